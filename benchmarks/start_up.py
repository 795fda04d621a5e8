"""Where the time of a short command goes: ``rdm encode one.png`` against ``import torch`` alone.

    python benchmarks/start_up.py --image face.png --markdown docs/performance.md

Each line is a process of its own, once a round, round after round. Those that stop early say what the next
one adds: Python itself, torch, rdm's command line, the command's own modules, and the bundle.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from interleaved import timed_side_by_side
from report_tables import WIDTH, PageOption, publish, refuse_unmarked, table

SCRIPT = "start_up"
TORCH = "import torch"


def process(*words: str) -> Callable[[], object]:
    """Runs Python with ``words``; raises CalledProcessError where it fails."""
    return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True)


def main(
    image: Annotated[Path, typer.Option(help="The image to encode.")],
    bundle: Annotated[str, typer.Option(help="The bundle.")] = "avatars64-diffae",
    steps: Annotated[int, typer.Option(min=1, help="DDIM steps.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that are counted.")] = 7,
    page: PageOption = None,
) -> None:
    """Measure, and print the table."""
    refuse_unmarked(page, SCRIPT)
    loaded = f"import rdm_cli; rdm_cli.open_pipeline({bundle!r}, device='cpu')"
    with tempfile.TemporaryDirectory() as scratch:
        encode = ["-m", "rdm_cli", "encode", str(image), "-o", scratch, "--bundle", bundle, "--force"]
        seconds = timed_side_by_side(
            {
                "nothing": process("-c", ""),
                TORCH: process("-c", "import torch"),
                "rdm --version": process("-m", "rdm_cli", "--version"),
                "open the bundle": process("-c", loaded),
                f"rdm encode, {steps} steps": process(*encode, "--steps", str(steps)),
                "rdm encode, z alone": process(*encode, "--no-x-t"),
            },
            rounds=rounds,
        )
    rows = []
    for name, found in seconds.items():
        beyond = median(ours - theirs for ours, theirs in zip(found, seconds[TORCH], strict=True))
        rows.append((name, f"{median(found):.2f}", f"{beyond:+.2f}"))
    told = (
        f"Each in a process of its own, {rounds} rounds: seconds by the median round, and the median of the "
        f"rounds' differences from `{TORCH}` alone."
    )
    tables = f"{textwrap.fill(told, WIDTH)}\n\n{table(('', 's', f'beyond {TORCH}'), rows)}"
    publish(tables, page, SCRIPT)


if __name__ == "__main__":
    typer.run(main)
