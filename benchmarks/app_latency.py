"""How long a slider of rdm app takes from its move to the picture in the page, over 200 moves.

    python benchmarks/app_latency.py [--bundle B] [--moves 200]

Starts rdm app and the machine's Chromium. A move is counted from the slider's event until the browser has
decoded the preview that answers it; the next move is made then. Prints the distribution, the machine's load,
and the processor's time that the server used, which does not depend on the load.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

MOVE = """async (value) => {
  const slider = document.querySelector("input[type=range][id^=slide-]");
  const picture = document.getElementById("edited");
  const before = picture.dataset.turn;
  const begun = performance.now();
  slider.value = value;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  while (picture.dataset.turn === before) await new Promise((resolve) => setTimeout(resolve, 1));
  await picture.decode();
  return performance.now() - begun;
}"""


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far, where Linux says it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="avatars64-diffae")
    parser.add_argument("--moves", type=int, default=200)
    given = parser.parse_args()
    words = ["app", "-b", given.bundle, "--no-browser", "--json", "-q"]
    app = subprocess.Popen([sys.executable, "-m", "rdm_cli", *words], stdout=subprocess.PIPE, text=True)
    assert app.stdout is not None
    try:
        url = json.loads(app.stdout.readline())["url"]
        with sync_playwright() as driver:
            chromium = os.environ.get("RDM_CHROMIUM") or shutil.which("chromium")
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page()
            page.goto(url)
            page.wait_for_selector("#edited[data-settled]", state="attached", timeout=120_000)
            page.wait_for_selector("#state:empty", state="attached", timeout=120_000)
            page.evaluate(MOVE, 0.02)  # the first preview also asks what the unedited z says
            values = [round(0.9 * (k % 41 - 20) / 20, 2) for k in range(1, given.moves + 1)]
            used = processor_seconds(app.pid)
            took = [page.evaluate(MOVE, value) for value in values]
            used = processor_seconds(app.pid) - used
            browser.close()
    finally:
        app.send_signal(signal.SIGINT)
        app.wait()
    took.sort()
    p = [took[min(len(took) - 1, int(q * len(took)))] for q in (0.05, 0.5, 0.95, 0.99)]
    print(f"{given.bundle}: {len(took)} moves, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("p5 {:.0f} ms, median {:.0f} ms, p95 {:.0f} ms, p99 {:.0f} ms".format(*p))
    print(f"processor's time of the server: {1000 * used / len(took):.0f} ms a move")
    within = sum(t <= 150 for t in took) / len(took)
    print(f"mean {statistics.mean(took):.0f} ms; within 150 ms: {100 * within:.0f} %")


if __name__ == "__main__":
    main()
