"""What is printed while work goes on: on a terminal, which a pty is, and in a log."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
WORK = """
    import sys, time
    import rdm_cli.console as console
    console.LOG_SECONDS = 0.2
    voice = console.Console()
    with voice.progress("encoded", 3, unit="images") as advance:
        for i in range(3):
            for _ in range(4):
                advance(0.25)
                time.sleep(0.15)
            voice.emit(f"codes/{i}.safetensors")
            voice.note(f"a remark on {i}")
            voice.problem(f"rdm: {i}.png: bad")
    voice.note("encoded 3 images")
"""


def script(text: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(text)]


class Screen:
    """As much of a terminal as rich's bars need; ``lines`` are what stands there at last."""

    CODES = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")

    def __init__(self) -> None:
        self.lines, self.row, self.column = [""], 0, 0
        self.written_over: list[tuple[str, str]] = []  # what a text was written into

    def feed(self, text: str) -> None:
        for _, numbers, letter, turn, plain in self.CODES.findall(text):
            if turn == "\r":
                self.column = 0
            elif turn == "\n":
                self.row, self.column = self.row + 1, 0
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif letter == "A":
                self.row -= int(numbers or 1)
            elif letter == "K":
                self.lines[self.row] = ""
            elif plain:
                line = self.lines[self.row]
                if line.strip():
                    self.written_over.append((line, plain))
                before = line[: self.column].ljust(self.column)
                self.lines[self.row] = before + plain + line[self.column + len(plain) :]
                self.column += len(plain)


def on_terminal(command: list[str], **environment: str) -> tuple[str, int]:
    """All that a command prints on a terminal, both its streams, and its exit code."""
    master, slave = pty.openpty()
    known = {"TERM": "xterm", "COLUMNS": "100", "LINES": "30", "NO_COLOR": "1"}
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=os.environ | known | environment, cwd=PROJECT
    )
    os.close(slave)
    printed = b""
    while True:
        try:
            some = os.read(master, 65536)
        except OSError:  # EIO: the other side is closed
            break
        if not some:
            break
        printed += some
    os.close(master)
    return printed.decode(), process.wait()


LINES = [
    line
    for i in range(3)
    for line in (f"codes/{i}.safetensors", f"a remark on {i}", f"rdm: {i}.png: bad")
] + ["encoded 3 images"]  # fmt: skip


def test_lines_and_bar_never_share_a_line() -> None:
    printed, code = on_terminal(script(WORK))
    assert code == 0 and "\x1b[" in printed
    screen = Screen()
    screen.feed(printed)
    assert [line.rstrip() for line in screen.lines if line.strip()] == LINES
    for line, text in screen.written_over:  # parts of one bar alone
        assert not any(told in line or told in text for told in LINES), (line, text)


def test_the_bar_of_a_single_image_moves() -> None:
    """It stood at 0/1 until all was done."""
    printed, _ = on_terminal(
        script(WORK.replace("range(3)", "range(1)").replace('"encoded", 3', '"encoded", 1'))
    )
    shown = [int(number) for number in re.findall(r"(\d+)%", printed)]
    assert shown == sorted(shown) and len({n for n in shown if 0 < n < 100}) >= 2
    assert "0/1 images" in printed


def test_a_terminal_that_knows_no_bars_is_a_log() -> None:
    printed, _ = on_terminal(script(WORK), TERM="dumb")
    assert "\x1b" not in printed and "━" not in printed
    assert re.search(r"rdm: encoded: \d+ %, \d/3 images, \d s so far", printed)


def test_a_log_has_a_line_a_minute() -> None:
    """Here: every 0.2 s."""
    done = subprocess.run(script(WORK), capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [line for line in LINES if line.startswith("codes/")]
    talk = done.stderr.splitlines()
    told = [line for line in talk if line.startswith("rdm: encoded: ")]
    assert 3 <= len(told) <= 12
    assert [line for line in talk if line not in told] == [line for line in LINES if line[:6] != "codes/"]
    pattern = r"rdm: encoded: \d+ %, \d/3 images, \d s so far(, about \d s left)?"
    assert all(re.fullmatch(pattern, line) for line in told)


def test_a_log_tells_of_work_that_stands_still_and_of_streams() -> None:
    text = """
        import time
        import rdm_cli.console as console
        console.LOG_SECONDS = 0.1
        with console.Console().progress("encoded", None, unit="images") as advance:
            advance(2.0)
            time.sleep(0.35)
        with console.Console(quiet=True).progress("encoded", 3) as advance:
            time.sleep(0.25)
    """
    done = subprocess.run(script(text), capture_output=True, text=True, cwd=PROJECT)
    assert set(done.stderr.splitlines()) == {"rdm: encoded: 2 images, 0 s so far"}


def test_a_real_job_tells_its_log(
    tiny_bundle: Path,
    faces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from rdm_cli import cli, console

    monkeypatch.setattr(console, "LOG_SECONDS", 0.02)
    words = ["encode", faces / "a.png", "-o", tmp_path, "-b", tiny_bundle, "--steps", 200]
    assert cli.main([str(word) for word in words]) == 0
    told = re.findall(r"rdm: encoded: (\d+) %, 0/1 images", capfd.readouterr().err)
    assert len({number for number in told if 0 < int(number) < 100}) >= 2


Verb = Callable[[Path, Callable[[float], None]], object]


def test_every_verb_moves_by_network_calls(tiny_bundle: Path, faces: Path, tmp_path: Path) -> None:
    """Each image counts as one, whatever is done with it, in amounts that are parts of it."""
    from rdm_cli.jobs.batch import Task
    from rdm_cli.jobs.encode import Encoding, encode_files
    from rdm_cli.jobs.files import manipulate_files, reconstruct_files
    from rdm_cli.jobs.pictures import interpolate_files
    from rdm_cli.pipeline.effort import Effort
    from rdm_cli.pipeline.pipeline import open_pipeline

    pipeline = open_pipeline(str(tiny_bundle), device="cpu")
    count = [0]

    def tasks(ending: str) -> list[Task]:
        count[0] += 1
        return [
            Task(source=faces / f"{name}.png", target=tmp_path / str(count[0]) / f"{name}{ending}", name=name)
            for name in "abc"
        ]

    def total_of(run: Callable[..., object]) -> tuple[float, float]:
        amounts: list[float] = []
        list(run(amounts.append))  # type: ignore[call-overload]
        assert min(amounts) >= 0
        return sum(amounts), max(amounts)

    plain, fixed = Effort(steps=10), Effort(inversion="fixed-point", steps=4)
    code = ".safetensors"
    for encoding in (
        Encoding(effort=plain),
        Encoding(effort=fixed),
        Encoding(effort=Effort(inversion="exact", steps=8)),
        Encoding(effort=plain, verify=True),
        Encoding(effort=fixed, lossless=True),
        Encoding(effort=plain, min_psnr_db=25.0),
    ):
        found, largest = total_of(lambda a, e=encoding: encode_files(pipeline, tasks(code), e, advance=a))
        assert found == pytest.approx(3) and largest <= 1.51, encoding  # a batch of three, in ten calls
        assert encoding.min_psnr_db or largest <= 0.5
    found, largest = total_of(
        lambda a: reconstruct_files(pipeline, tasks(".png"), effort=plain, variations=2, advance=a)
    )
    assert found == pytest.approx(3) and largest <= 0.1
    found, largest = total_of(
        lambda a: manipulate_files(
            lambda _: pipeline, tasks(".png"), batch_size=4, edits=[{"hat": 0.1}, {"hat": 0.2}], strip=True,
            effort=plain, advance=a,
        )
    )  # fmt: skip
    assert found == pytest.approx(3) and largest <= 0.2
    found, largest = total_of(
        lambda a: interpolate_files(
            pipeline, [faces / "a.png", faces / "b.png"], tmp_path / "walk", num_frames=3, frame_ms=50,
            effort=plain, advance=a,
        )
    )  # fmt: skip
    assert found == pytest.approx(2 + 3) and largest <= 0.5
