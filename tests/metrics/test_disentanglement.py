"""MIG and TAD against scikit-learn and on codes where they are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score, roc_auc_score
from torch import Tensor

from rdm_cli.metrics.disentanglement import GapScore, mutual_information_gap, total_auroc_difference

NAMES = ("a", "b", "c")
METRICS = (mutual_information_gap, total_auroc_difference)


def codes(num: int = 400, dims: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(num, dims, generator=torch.Generator().manual_seed(seed))


def upper_half(values: Tensor) -> Tensor:
    return (values > values.median(dim=0).values).float()


def test_a_dimension_for_each_attribute() -> None:
    """All that there is to know, and the next dimension knows about nothing."""
    z = codes(2000)
    labels = upper_half(z[:, :3])
    mig, tad = (metric(z, labels, NAMES, seed=0, num_resamples=20) for metric in METRICS)
    assert mig.score.value > 0.97
    assert mig.by_name["b"].best == 1 and mig.by_name["b"].value == pytest.approx(1.0)
    assert mig.num_captured is None
    assert tad.score.value == pytest.approx(3 * 0.5, abs=0.12)  # the next reaches 0.5 and a little by chance
    assert tad.num_captured == 3 and tad.by_name["c"].value == 1.0


def test_two_dimensions_that_agree_leave_no_gap() -> None:
    z = codes()
    labels = upper_half(z[:, :3])
    twice = torch.cat([z, -2 * z], dim=1)  # order and sign of a dimension change nothing
    for metric in METRICS:
        found = metric(twice, labels, NAMES, seed=0, num_resamples=10)
        assert found.score.value == pytest.approx(0.0, abs=1e-9)
    assert found.num_captured == 3


def test_a_rotation_is_worth_less_and_noise_nothing() -> None:
    z = codes(2000)
    labels = upper_half(z[:, :3])
    turn, _ = torch.linalg.qr(codes(5, 5, seed=1))
    for metric in METRICS:
        straight, turned, noise = (
            metric(other, labels, NAMES, seed=0, num_resamples=10).score.value
            for other in (z, z @ turn, codes(2000, seed=2))
        )
        assert noise < 0.02 < turned < 0.8 * straight


def test_mig_against_scikit_learn() -> None:
    z, labels = codes(200), upper_half(codes(200) + codes(200, seed=3))[:, :3]
    found = mutual_information_gap(z, labels, NAMES, seed=0, num_resamples=2)
    for k, name in enumerate(NAMES):
        target = labels[:, k].numpy()
        information = []
        for column in z.T.numpy():
            bins = np.argsort(np.argsort(column)) // 10
            information.append(mutual_info_score(bins, target) / mutual_info_score(target, target))
        first, second = sorted(information)[:-3:-1]
        assert found.by_name[name].value == pytest.approx(first)
        assert found.by_name[name].gap == pytest.approx(first - second)


def test_tad_against_scikit_learn() -> None:
    z, labels = codes(200), upper_half(codes(200) + 0.8 * codes(200, seed=3))[:, :3]
    labels[:, 2] = (torch.arange(200) % 2).float()  # no dimension knows it
    found = total_auroc_difference(z, labels, NAMES, seed=0, num_resamples=2)
    total = 0.0
    for k in range(3):
        areas = [roc_auc_score(labels[:, k].numpy(), column) for column in z.T.numpy()]
        first, second = sorted(max(a, 1 - a) for a in areas)[:-3:-1]
        total += (first - second) * (first >= 0.75)
    assert found.num_captured == 2
    assert found.score.value == pytest.approx(total)


@pytest.mark.parametrize("metric", METRICS)
def test_the_interval_holds_the_spread_over_other_samples(metric) -> None:
    def score(seed: int, num_resamples: int) -> GapScore:
        z = codes(300, seed=seed)
        labels = upper_half(z[:, :3] + codes(300, seed=1000 + seed)[:, :3])
        return metric(z, labels, NAMES, seed=seed, num_resamples=num_resamples)

    spread = float(torch.tensor([score(seed, 2).score.value for seed in range(1, 31)]).std())
    found = score(0, 200).score
    assert found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.5)


@pytest.mark.parametrize("metric", METRICS)
def test_unknown_labels_are_left_out(metric) -> None:
    z = codes(100)
    labels = upper_half(z[:, :3])
    labels[60:, 0] = torch.nan
    labels[:, 2] = 1
    found = metric(z, labels, NAMES, seed=0, num_resamples=5)
    alone = metric(z[:60], labels[:60, :1], ("a",), seed=0, num_resamples=5)
    assert found.by_name["a"] == alone.by_name["a"]
    assert found.skipped == {"c": "examples of one class alone"}
    assert metric(z, labels, NAMES, seed=0, num_resamples=5) == found
    with pytest.raises(ValueError, match="both classes"):
        metric(z, labels[:, 2:], ("c",), seed=0)
    with pytest.raises(ValueError, match="two dimensions"):
        metric(z[:, :1], labels, NAMES, seed=0)
