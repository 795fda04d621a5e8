"""When a job of very many images on very many workers is done: units of work, slow workers, and failures.

    python benchmarks/scale_simulation.py --images 1e9 --workers 10000 --rate 100

Two ways of sharing. With a queue, as Ray has one, a worker that is free takes the next unit. With fixed
shares, as ``--shard i/n`` has them, each worker does its own units, and the slowest decides. A worker is slow
with some probability, by a factor, for the whole job. It fails at random, after an exponential time; then the
unit that it was at is lost, and it comes back after a while and does that again: what was finished before is
on a disk.

Of one worker that fails, a unit of t seconds takes (mtbf + restart) (exp(t / mtbf) - 1) on average; see
``expected_seconds``. Everything is drawn from the seed.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, replace
from typing import Annotated

import typer


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done, and by whom; ``rate`` are a worker's images a second, times are seconds.

    ``slow_share`` of the workers take ``slow_factor`` times as long. ``mtbf`` is the mean time between the
    failures of one worker, ``restart`` how long it is away, ``start`` how long it takes to begin with.
    """

    images: int
    workers: int
    rate: float
    unit: int = 4096
    slow_share: float = 0.0
    slow_factor: float = 1.0
    mtbf: float = math.inf
    restart: float = 0.0
    start: float = 0.0

    @property
    def num_units(self) -> int:
        """How many units there are; the last may be smaller, and counts as a whole one."""
        return -(-self.images // self.unit)

    @property
    def unit_seconds(self) -> float:
        """Of a worker that is not slow, and does not fail."""
        return self.unit / self.rate


@dataclass(frozen=True, kw_only=True)
class Completion:
    """When all is done, how much was computed (worker seconds), and how much of that was lost in failures."""

    seconds: float
    busy: float
    lost: float
    num_failures: int


def expected_seconds(unit: float, mtbf: float, restart: float) -> float:
    """The mean time that one worker takes for a unit that needs ``unit`` seconds without a failure."""
    return unit if mtbf == math.inf else (mtbf + restart) * math.expm1(unit / mtbf)


def simulate(job: Job, *, queued: bool, seed: int = 0) -> Completion:
    """Play ``job`` through, with a queue or with fixed shares."""
    rng = random.Random(seed)
    seconds = [
        job.unit_seconds * (job.slow_factor if rng.random() < job.slow_share else 1.0)
        for _ in range(job.workers)
    ]
    busy = lost = 0.0
    num_failures = 0

    def time_for(unit: float) -> float:
        """What a unit takes with its failures."""
        nonlocal busy, lost, num_failures
        total = 0.0
        while job.mtbf != math.inf and (until := rng.expovariate(1 / job.mtbf)) < unit:
            total += until + job.restart
            lost += until
            num_failures += 1
        busy += unit
        return total + unit

    free = [(job.start, worker) for worker in range(job.workers)]
    for i in range(job.num_units):
        if queued:
            at, worker = free[0]
            heapq.heapreplace(free, (at + time_for(seconds[worker]), worker))
        else:
            at, worker = free[i % job.workers]
            free[worker] = (at + time_for(seconds[worker]), worker)
    done = max(at for at, _ in free)
    return Completion(seconds=done, busy=busy + lost, lost=lost, num_failures=num_failures)


def told(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def run(
    images: Annotated[float, typer.Option(help="Images.")] = 1e9,
    workers: Annotated[int, typer.Option(help="Workers.")] = 10_000,
    rate: Annotated[float, typer.Option(help="Images a second of a worker.")] = 100.0,
    unit: Annotated[int, typer.Option(help="Images that are lost when a worker fails.")] = 4096,
    slow_share: Annotated[float, typer.Option(help="Of the workers, so many are slow.")] = 0.02,
    slow_factor: Annotated[float, typer.Option(help="By so much.")] = 5.0,
    mtbf_hours: Annotated[float, typer.Option(help="Between two failures of a worker.")] = 24.0,
    restart: Annotated[float, typer.Option(help="Seconds until a worker that failed is back.")] = 120.0,
    start: Annotated[float, typer.Option(help="Seconds until a worker begins.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """See the file's docstring."""
    calm = Job(images=int(images), workers=workers, rate=rate, unit=unit, start=start)
    slow = replace(calm, slow_share=slow_share, slow_factor=slow_factor)
    failing = replace(calm, mtbf=3600 * mtbf_hours, restart=restart)
    both = replace(slow, mtbf=3600 * mtbf_hours, restart=restart)
    ideal = calm.images / (calm.rate * calm.workers)
    print(f"{calm.images:,} images, {workers:,} workers of {rate:g} images/s: {told(ideal)} at best\n")
    print("| | a queue | fixed shares | failures | computed again |")
    print("| --- | --- | --- | --- | --- |")
    for name, job in {
        "all alike": calm, "some slow": slow, "some fail": failing, "some slow, some fail": both,
    }.items():  # fmt: skip
        queue, shares = (simulate(job, queued=queued, seed=seed) for queued in (True, False))
        again = 100 * queue.lost / queue.busy
        times = f"{told(queue.seconds)} | {told(shares.seconds)}"
        print(f"| {name} | {times} | {queue.num_failures:,} | {again:.2f} % |")


if __name__ == "__main__":
    typer.run(run)
