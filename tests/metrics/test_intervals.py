"""Intervals against scipy's bootstrap and against how often they must hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, bootstrap
from scipy.stats import t as student

from rdm_cli.metrics.intervals import (
    BOOTSTRAP,
    RULE_OF_THREE,
    STUDENT,
    WILSON,
    centred_estimate,
    mean_estimate,
    percentile_estimate,
    resampled_rows,
    share_estimate,
    t_quantile,
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


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 28, 29, 200])
def test_students_quantile_is_scipys(degrees: int) -> None:
    for share in (0.5, 0.6, 0.975, 0.9995):
        assert t_quantile(share, degrees) == pytest.approx(student.ppf(share, degrees), rel=1e-9, abs=1e-12)
    with pytest.raises(ValueError, match="no such quantile"):
        t_quantile(0.4, degrees)


@pytest.mark.parametrize(("num", "method"), [(2, STUDENT), (5, STUDENT), (29, STUDENT), (30, BOOTSTRAP)])
def test_a_mean_of_few_values_has_students_interval(num: int, method: str) -> None:
    values = skewed(num)
    found = mean_estimate(values, seed=0)
    assert found.method == method and (found.num_resamples == 0) == (method == STUDENT)
    if method == STUDENT:
        low, high = student.interval(0.95, num - 1, loc=values.mean(), scale=values.std() / num**0.5)
        assert (found.low, found.high) == pytest.approx((float(low), float(high)), rel=1e-5)
        within = mean_estimate(values, seed=0, bounds=(0.0, 100.0))
        assert within.low == pytest.approx(max(float(low), 0.0), rel=1e-5)


@pytest.mark.parametrize("num", [2, 4, 10])
def test_the_interval_of_few_values_holds_the_truth_as_often_as_it_says(num: int) -> None:
    """The bootstrap's held it in 50 % of cases at 2 values and in 80 % at 4."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(400, num, generator=generator)
    found = [mean_estimate(values, seed=0) for values in samples]
    held = sum(one.low <= 0.0 <= one.high for one in found) / len(found)
    assert 0.92 <= held <= 0.98  # 0.95, with a deviation of 0.011


def test_one_value_has_no_interval() -> None:
    found = mean_estimate(torch.tensor([0.5]), seed=0)
    assert found.value == 0.5 and math.isnan(found.low) and not found.has_ends and str(found) == "0.5"


@pytest.mark.parametrize("num", [4, 64])
def test_none_of_n_is_bounded_by_the_rule_of_three(num: int) -> None:
    """`0 (0 to 0)` is no interval: what was not seen in n things may be in about 3 of n."""
    none = mean_estimate(torch.zeros(num), seed=0, bounds=(0.0, 1.0))
    assert none.method == RULE_OF_THREE and (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(1 - 0.05 ** (1 / num)) and none.high == pytest.approx(3 / num, rel=0.35)
    assert binomtest(0, num, none.high, alternative="less").pvalue == pytest.approx(0.05)
    every = mean_estimate(torch.full((num,), 2.0), seed=0, bounds=(0.0, 2.0))
    assert (every.high, every.low) == pytest.approx((2.0, 2.0 - 2 * none.high))
    unknown = mean_estimate(torch.full((num,), 0.25), seed=0)
    assert unknown.value == 0.25 and not unknown.has_ends and str(unknown) == "0.25"


def test_replicates_that_all_agree_are_no_interval() -> None:
    for found in (percentile_estimate(1.0, torch.ones(9)), centred_estimate(0.0, torch.zeros(9), floor=0.0)):
        assert not found.has_ends and found.value in (0.0, 1.0)


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
    with pytest.raises(ValueError, match="empty sample has no mean"):
        mean_estimate(torch.zeros(0), seed=0)
    with pytest.raises(ValueError, match="R at least 2"):
        percentile_estimate(0.0, torch.zeros(1))
    with pytest.raises(ValueError, match="strictly between"):
        percentile_estimate(0.0, torch.zeros(2), level=1.0)


@pytest.mark.parametrize(("positive", "num"), [(0, 8), (3, 8), (8, 8), (250, 1000)])
def test_a_shares_interval_is_scipys_of_wilson(positive: int, num: int) -> None:
    found = share_estimate(torch.arange(num) < positive)
    theirs = binomtest(positive, num).proportion_ci(0.95, method="wilson")
    assert found.value == positive / num and (found.num_resamples, found.method) == (0, WILSON)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_a_share_needs_trials() -> None:
    with pytest.raises(ValueError, match="a share needs trials"):
        share_estimate(torch.zeros(0, dtype=torch.bool))
