"""How fast ``rdm encode`` goes through many images: a first run, and a second one that finds all up to date.

    python benchmarks/encode_throughput.py faces/ --before /path/to/another/checkout --rounds 5

With ``--before``, the package of another checkout (of an earlier commit, say) is measured beside that of this
one, in turns, by the same interpreter; ``--before-python`` names another. Codes of both must be the same
bytes. Seconds are those that a run's summary says, which leave out what starting takes; CPU seconds are
user and system time of the whole process, less that of encoding one image: on a busy machine they say more.
"""

from __future__ import annotations

import hashlib
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

HERE = Path(__file__).resolve().parents[1]
RUNS = ("first run", "second run")


@dataclass(frozen=True)
class Package:
    """An rdm that is measured: its checkout and the interpreter that runs it."""

    name: str
    checkout: Path
    python: str
    said: dict[str, list[float]] = field(default_factory=lambda: {run: [] for run in RUNS})
    wall: dict[str, list[float]] = field(default_factory=lambda: {run: [] for run in RUNS})
    cpu: dict[str, list[float]] = field(default_factory=lambda: {run: [] for run in RUNS})

    def encode(self, images: Path, output: Path, options: list[str]) -> tuple[float, float, float]:
        """Seconds as the summary says, of the wall clock, and of the CPU; raises CalledProcessError."""
        words = [self.python, "-m", "rdm_cli", "encode", str(images), "-o", str(output), *options]
        environment = os.environ | {"PYTHONPATH": str(self.checkout)}
        used, begun = _cpu_seconds(), time.perf_counter()
        # in no checkout: a working folder stands before PYTHONPATH
        done = subprocess.run(
            words, env=environment, cwd="/", check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        seconds = time.perf_counter() - begun
        found = re.search(r"encoded \d+ images? in ([\d.]+) s", done.stderr.decode())
        assert found is not None, done.stderr.decode()
        return float(found[1]), seconds, _cpu_seconds() - used

    def measure(self, images: Path, options: list[str], starting: float) -> str:
        """One round of both runs, into a folder of its own; the SHA-256 of all codes."""
        with tempfile.TemporaryDirectory(prefix="rdm-") as folder:
            output = Path(folder) / "codes"
            for run in RUNS:
                said, wall, cpu = self.encode(images, output, options)
                print(
                    f"{self.name}, {run}: {said:.1f} s said, {wall:.1f} s, {cpu:.1f} CPU s", file=sys.stderr
                )
                self.said[run].append(said)
                self.wall[run].append(wall)
                self.cpu[run].append(cpu - starting)
            whole = hashlib.sha256()
            for path in sorted(output.rglob("*.safetensors")):
                whole.update(path.relative_to(output).as_posix().encode() + path.read_bytes())
        return whole.hexdigest()


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(
    images: Annotated[Path, typer.Argument(help="A folder of images: rdm data avatars faces --n 6000.")],
    before: Annotated[Path | None, typer.Option(help="Another checkout of rdm, to compare with.")] = None,
    before_python: Annotated[str, typer.Option(help="The interpreter for it.")] = sys.executable,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    option: Annotated[list[str] | None, typer.Option(help="Options of rdm encode.")] = None,
) -> None:
    """Measure, and print a line for each package and run."""
    options = option or ["--no-x-t"]
    packages = [Package("now", HERE, sys.executable)]
    if before is not None:
        packages.insert(0, Package("before", before.resolve(), before_python))
    found = sorted(path for path in images.resolve().rglob("*") if path.suffix == ".png")
    starting = {}
    for package in packages:
        with tempfile.TemporaryDirectory(prefix="rdm-") as folder:  # a second time: the first fills caches
            starting[package.name] = [package.encode(found[0], Path(folder), options) for _ in range(2)][1][2]
    digests = set()
    for number in range(rounds):
        for package in packages if number % 2 == 0 else reversed(packages):
            digests.add(package.measure(images.resolve(), options, starting[package.name]))
    print(
        f"{len(found)} images, {rounds} rounds, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs; medians"
    )
    for run in RUNS:
        for package in packages:
            said, cpu = (median(seconds[run]) for seconds in (package.said, package.cpu))
            print(
                f"{run}, {package.name}: {said:.2f} s said ({len(found) / max(said, 1e-9):.0f} images/s), "
                f"{median(package.wall[run]):.2f} s of the process, "
                f"{1000 * cpu / len(found):.2f} CPU ms an image"
            )
        if len(packages) == 2:
            told = [
                f"{what} {median(b / max(n, 1e-9) for b, n in zip(*pair, strict=True)):.2f}"
                for what, pair in (
                    ("said", [package.said[run] for package in packages]),
                    ("process", [package.wall[run] for package in packages]),
                    ("CPU", [package.cpu[run] for package in packages]),
                )
            ]
            print(f"{run}: times as fast as before, median of the rounds' ratios: {', '.join(told)}")
    if len(digests) != 1:
        raise SystemExit("the codes differ between rounds or packages")
    print("all codes are the same bytes")


if __name__ == "__main__":
    typer.run(main)
