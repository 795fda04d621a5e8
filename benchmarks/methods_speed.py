"""What working in latents buys: speed and memory of Diff-AE, PDAE and LRDM, training and sampling.

    python benchmarks/methods_speed.py --precision bf16 --json speed.json --markdown docs/training.md

Every measurement is a process of its own (speed_measurement.py, which says what is measured), so that its
peak of memory is its own. A round measures each configuration once; rounds follow one another, so that
whatever else the machine does meets all alike. Reported are medians over the rounds, and medians of each
round's ratio to Diff-AE.

With --json every measurement is kept, and a run that was stopped goes on; with --markdown the table takes its
place between the page's two markers. It wants a machine that does nothing else, and was planned to take 25
minutes of two cores. --size 32 --quick is a smoke test.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from report_tables import WIDTH, PageOption, keep_json, publish, refuse_unmarked, table

# torch is not imported here: a child's peak of memory starts from that of the process that forked it

SCRIPT = "methods_speed"
TITLES = {
    "diffae": "Diff-AE",
    "pdae": "PDAE",
    "lrdm": "LRDM",
    "lrdm-cached": "LRDM, cached latents",
}
SIZES = (32, 64, 256)
Measurements = dict[str, dict[str, Any]]
"""By "size configuration task round", what the process printed."""


def planned(sizes: list[int], rounds: int) -> Iterator[tuple[str, int, str, str]]:
    """(key, size, configuration, task) of every measurement, in order; sampling knows no cache."""
    for k in range(rounds):
        for size in sizes:
            for task in ("train", "sample"):
                for name in TITLES:
                    if (name, task) != ("lrdm-cached", "sample"):
                        yield f"{size} {name} {task} {k}", size, name, task


def measured(size: int, name: str, task: str, options: dict[str, Any]) -> dict[str, Any]:
    """Run one measurement; raises RuntimeError with the end of what it said where it fails."""
    script = Path(__file__).with_name("speed_measurement.py")
    words = [
        f"--{option.replace('_', '-')}={value}" for option, value in options.items() if value is not None
    ]
    run = subprocess.run(
        [sys.executable, str(script), name, str(size), task, *words], capture_output=True, text=True
    )
    if run.returncode:
        raise RuntimeError(f"{size} {name} {task}: {run.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def over_rounds(
    found: Measurements, rounds: int, size: int, name: str, task: str, figure: str
) -> list[float]:
    """``figure`` of one configuration in each round; [] where it was not measured."""
    keys = [f"{size} {name} {task} {k}" for k in range(rounds)]
    return [found[key][figure] for key in keys if key in found]


def row(found: Measurements, rounds: int, size: int, name: str) -> list[str]:
    """One configuration's line of the table."""

    def figures(task: str, figure: str, of: str = name) -> list[float]:
        return over_rounds(found, rounds, size, of, task, figure)

    prior = sum(figures("sample", "prior_bytes")[:1])
    parameters = f"{figures('train', 'parameter_bytes')[0] / 1e6:,.0f}"
    cells = [str(size), TITLES[name], f"{parameters} + {prior / 1e6:,.0f}" if prior else parameters]
    for task in ("train", "sample"):
        seconds = figures(task, "seconds_per_image")
        if not seconds:
            cells += ["as above"] * 3
            continue
        usual = figures(task, "seconds_per_image", of="diffae")
        faster = median(theirs / ours for theirs, ours in zip(usual, seconds, strict=True))
        peaks = zip(figures(task, "peak_bytes"), figures(task, "libraries_bytes"), strict=True)
        memory = median(peak - before for peak, before in peaks)
        middle = median(seconds)
        cells.append(f"{1 / middle:.3g}" if task == "train" else f"{middle:.3g}")
        cells += [f"{faster:.2f}", f"{memory / 1e6:,.0f}"]
    return cells


def markdown(found: Measurements, sizes: list[int], rounds: int, settings: dict[str, Any]) -> str:
    """The table, and above it what it was measured with."""
    threads = found[next(planned(sizes, rounds))[0]]["num_threads"]
    batches = ", ".join(f"{settings['batch_sizes'][str(size)]} at {size} px" for size in sizes)
    told = (
        f"Medians of {rounds} interleaved rounds on {threads} CPU threads, networks in "
        f"{settings['precision']}; batches of {batches}; {settings['steps']} DDIM steps a sample. Presets: "
        "small ones of each size; at 256 px ffhq256, r64x8x8, and PDAE around ffhq256's UNet without z. "
        "Factors are speed against Diff-AE's. Memory is a process's peak beyond what its libraries"
        " take."
    )
    header = (
        "px", "method", "parameters + prior (MB)", "training images/s", "factor", "memory (MB)",
        "sampling s/image", "factor", "memory (MB)",
    )  # fmt: skip
    rows = [row(found, rounds, size, name) for size in sizes for name in TITLES]
    return f"{textwrap.fill(told, WIDTH)}\n\n{table(header, rows)}"


def known(json_file: Path | None, settings: dict[str, Any]) -> Measurements:
    """What ``json_file`` holds already that was measured with the same ``settings``."""
    if json_file is None or not json_file.exists():
        return {}
    stored = json.loads(json_file.read_text(encoding="utf-8"))
    return stored["measurements"] if stored["settings"] == settings else {}


def main(
    size: Annotated[list[int] | None, typer.Option(help="Side of the images: 32, 64 or 256.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="DDIM steps.")] = 10,
    seconds: Annotated[float, typer.Option(help="Time each measurement for at least so long.")] = 4.0,
    batch_64: Annotated[int, typer.Option(min=1, help="Images at once, up to 64 pixels.")] = 16,
    batch_256: Annotated[int, typer.Option(min=1, help="Images at once at 256.")] = 1,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    threads: Annotated[int | None, typer.Option(help="Threads; all cores without it.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One round of one step: to see that it runs.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the measurements here.")] = None,
    page: PageOption = None,
) -> None:
    """Measure, and print the table."""
    sizes = size or [64, 256]
    if not set(sizes) <= set(SIZES):
        raise typer.BadParameter(f"sizes are {', '.join(map(str, SIZES))}")
    refuse_unmarked(page, SCRIPT)
    rounds, seconds, steps = (1, 0.0, 1) if quick else (rounds, seconds, steps)
    batch_sizes = {str(s): batch_256 if s == 256 else batch_64 for s in SIZES}
    options = {"steps": steps, "precision": precision, "seconds": seconds, "threads": threads}
    settings = options | {"batch_sizes": batch_sizes}
    found = known(json_file, settings)
    begun = time.monotonic()
    for key, side, name, task in planned(sizes, rounds):
        if key in found:
            continue
        found[key] = measured(side, name, task, options | {"batch_size": batch_sizes[str(side)]})
        told = f"{key}: {found[key]['seconds_per_image']:.3g} s an image"
        print(f"[{time.monotonic() - begun:6.0f} s] {told}", file=sys.stderr, flush=True)
        if json_file is not None:
            kept = {"settings": settings, "measurements": found}
            keep_json(json_file, kept)
    tables = markdown(found, sizes, rounds, settings)
    publish(tables, page, SCRIPT)


if __name__ == "__main__":
    typer.run(main)
