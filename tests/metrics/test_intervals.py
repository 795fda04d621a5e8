"""Intervals against scipy's bootstrap and against how often they must hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, bootstrap

from rdm_cli.metrics.intervals import (
    centred_estimate,
    mean_estimate,
    percentile_estimate,
    resampled_rows,
    share_estimate,
)


def skewed(num_values: int, seed: int = 0) -> torch.Tensor:
    return torch.empty(num_values).exponential_(generator=torch.Generator().manual_seed(seed))


def test_the_mean_against_scipy() -> None:
    values = skewed(200)
    found = mean_estimate(values, seed=0, num_resamples=4000)
    theirs = bootstrap(
        (values.numpy(),), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0)
    )
    assert found.value == pytest.approx(float(values.mean()), rel=1e-6)
    # two sets of 4000 draws: an end's standard error is about 0.04 of the deviation
    tolerance = 0.15 * float(theirs.standard_error)
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=tolerance)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=tolerance)


def test_it_holds_the_truth_as_often_as_it_says() -> None:
    held = 0
    for seed in range(120):
        found = mean_estimate(skewed(60, seed), seed=seed, num_resamples=150, level=0.9)
        held += found.low <= 1.0 <= found.high
    # 0.9 less what skewness takes from a percentile interval at 60 values; the share's deviation is 0.03
    assert 0.79 <= held / 120 <= 0.97


def test_the_seed_decides() -> None:
    values = skewed(50)
    assert mean_estimate(values, seed=3) == mean_estimate(values, seed=3)
    assert mean_estimate(values, seed=3) != mean_estimate(values, seed=4)


def test_more_resamples_begin_with_the_same_ones() -> None:
    few = [rows.tolist() for (rows,) in resampled_rows([9], seed=1, num_resamples=3)]
    many = [rows.tolist() for (rows,) in resampled_rows([9], seed=1, num_resamples=5)]
    assert many[:3] == few


def test_samples_are_drawn_from_each_by_itself() -> None:
    for a, b in resampled_rows([5, 3], seed=0, num_resamples=20):
        assert a.shape == (5,) and b.shape == (3,)
        assert int(a.max()) < 5 and int(b.max()) < 3


def test_a_constant_has_no_spread() -> None:
    found = mean_estimate(torch.full((7,), 0.25), seed=0, num_resamples=10)
    assert (found.value, found.low, found.high, found.num_resamples) == (0.25, 0.25, 0.25, 10)
    assert str(found) == "0.25 (0.25 to 0.25)"


def test_the_centred_form_moves_the_spread_and_keeps_to_its_floor() -> None:
    replicates = torch.linspace(10, 20, 101)
    plain = percentile_estimate(3.0, replicates, level=0.9)
    assert (plain.low, plain.high) == pytest.approx((10.5, 19.5))
    centred = centred_estimate(3.0, replicates, level=0.9)
    assert (centred.low, centred.high) == pytest.approx((-1.5, 7.5))
    assert centred_estimate(3.0, replicates, level=0.9, floor=0.0).low == 0.0


def test_what_has_no_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="finite values"):
        mean_estimate(torch.tensor([1.0, float("inf")]), seed=0)
    with pytest.raises(ValueError, match="empty sample"):
        mean_estimate(torch.zeros(0), seed=0)
    with pytest.raises(ValueError, match="R at least 2"):
        percentile_estimate(0.0, torch.zeros(1))
    with pytest.raises(ValueError, match="strictly between"):
        percentile_estimate(0.0, torch.zeros(2), level=1.0)


@pytest.mark.parametrize(("positive", "num"), [(0, 8), (3, 8), (8, 8), (250, 1000)])
def test_a_shares_interval_is_scipys_of_wilson(positive: int, num: int) -> None:
    found = share_estimate(torch.arange(num) < positive)
    theirs = binomtest(positive, num).proportion_ci(0.95, method="wilson")
    assert found.value == positive / num and found.num_resamples == 0
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_a_share_needs_trials() -> None:
    with pytest.raises(ValueError, match="a share needs trials"):
        share_estimate(torch.zeros(0, dtype=torch.bool))
