"""The simulation of very large jobs, against what is known in closed form."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scale_simulation import Job, expected_seconds, simulate

ALIKE = Job(images=1_000_000, workers=50, rate=100.0, unit=1000)


@pytest.mark.parametrize("queued", [True, False])
@pytest.mark.parametrize(("workers", "rounds"), [(1, 1000), (50, 20), (999, 2), (1000, 1), (5000, 1)])
def test_without_failures_it_is_work_by_workers(queued: bool, workers: int, rounds: int) -> None:
    job = replace(ALIKE, workers=workers, start=30.0)
    done = simulate(job, queued=queued)
    assert done.seconds == pytest.approx(30 + rounds * 10.0)
    assert done.busy == pytest.approx(1_000_000 / 100.0) and done.lost == done.num_failures == 0


def test_a_slow_worker_decides_where_shares_are_fixed_and_costs_little_in_a_queue() -> None:
    job = replace(ALIKE, slow_share=0.1, slow_factor=5.0)
    assert simulate(job, queued=False).seconds == pytest.approx(20 * 10.0 * 5)
    queued = simulate(job, queued=True).seconds
    # no sooner than all speeds together allow, and at most the longest unit later
    speeds = 50 * (0.9 + 0.1 / 5)
    assert 1000 * 10 / (speeds + 5) <= queued <= 1000 * 10 / (speeds - 5) + 50


@pytest.mark.parametrize(("mtbf", "restart"), [(5.0, 0.0), (20.0, 3.0), (1e6, 60.0)])
def test_a_unit_with_failures_takes_what_the_formula_says(mtbf: float, restart: float) -> None:
    job = Job(images=20_000, workers=1, rate=0.1, unit=1, mtbf=mtbf, restart=restart)
    done = simulate(replace(job, images=20_000), queued=True)
    assert done.seconds / 20_000 == pytest.approx(expected_seconds(10.0, mtbf, restart), rel=0.03)
    assert done.busy - done.lost == pytest.approx(20_000 * 10.0)


def test_smaller_units_lose_less_and_a_seed_says_all() -> None:
    job = replace(ALIKE, mtbf=2000.0, restart=60.0)
    small = simulate(replace(job, unit=100), queued=True, seed=1)
    large = simulate(replace(job, unit=10_000), queued=True, seed=1)
    assert small.lost < large.lost / 10 and small.seconds < large.seconds
    assert simulate(job, queued=True, seed=1) == simulate(job, queued=True, seed=1)
    assert simulate(job, queued=True, seed=1) != simulate(job, queued=True, seed=2)
