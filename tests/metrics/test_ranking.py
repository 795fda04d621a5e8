"""AUROC, average precision and F1 against scikit-learn, and their intervals against DeLong's variance."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from rdm_cli.metrics.intervals import resampled_counts
from rdm_cli.metrics.ranking import auroc, average_precision, separation, separation_replicates


def scored(num: int, seed: int = 0, decimals: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(num, generator=generator) < 0.3
    return (torch.randn(num, generator=generator) + target - 0.6).round(decimals=decimals), target


@pytest.mark.parametrize("decimals", [0, 6])
def test_against_scikit_learn(decimals: int) -> None:
    """The set and its resamples, these as sets with copies; with ties and without."""
    scores, target = scored(150, decimals=decimals)
    counts = resampled_counts(150, seed=0, num_resamples=4)
    value, replicates = separation_replicates(scores, target, counts)
    for k, metric in enumerate((roc_auc_score, average_precision_score, f1_score)):
        for found, times in ((value[k], torch.ones(150)), *zip(replicates[k], counts, strict=True)):
            rows = torch.arange(150).repeat_interleave(times.long())
            answer = scores[rows] > 0 if metric is f1_score else scores[rows]
            assert float(found) == pytest.approx(metric(target[rows].numpy(), answer.numpy()))


def test_the_interval_of_auroc_against_delong() -> None:
    """DeLong et al. 1988: the variance of AUROC from how often each positive wins and each negative loses."""
    scores, target = scored(300)
    wins = (scores[target][:, None] > scores[~target][None]).double()
    variance = wins.mean(dim=1).var() / int(target.sum()) + wins.mean(dim=0).var() / int((~target).sum())
    found = separation(scores, target, seed=0).auroc
    assert found.value == pytest.approx(float(wins.mean()))
    assert found.high - found.low == pytest.approx(2 * 1.96 * float(variance.sqrt()), rel=0.1)


def test_perfect_and_opposite_scores() -> None:
    target = torch.tensor([True, True, False, False])
    best = separation(target.float() - 0.5, target, seed=0, num_resamples=20)
    assert (best.auroc.value, best.average_precision.value, best.f1.value) == (1.0, 1.0, 1.0)
    assert (best.num_positive, best.num_scored) == (2, 4)
    worst = separation(0.5 - target.float(), target, seed=0, num_resamples=20)
    assert (worst.auroc.value, worst.f1.value) == (0.0, 0.0)


def test_resamples_without_a_class_are_left_out() -> None:
    target = torch.tensor([True, False, False])
    _, replicates = separation_replicates(
        torch.tensor([1.0, 0.0, -1.0]), target, resampled_counts(3, seed=0, num_resamples=200)
    )
    assert 0 < int(replicates[0].isnan().sum()) < 100
    found = separation(*scored(40), seed=0, num_resamples=200)
    assert found.auroc.num_resamples <= 200 and found.auroc.has_ends


@pytest.mark.parametrize("num", [2, 40])
def test_a_perfect_auroc_is_no_certainty(num: int) -> None:
    """As many pairs as the smaller class has were ordered, all rightly: the rule of three of those."""
    target = torch.arange(3 * num) < num
    best = separation(target.float() - 0.5, target, seed=0, num_resamples=50).auroc
    assert (best.value, best.high) == (1.0, 1.0) and best.low == pytest.approx(0.05 ** (1 / num))
    worst = separation(0.5 - target.float(), target, seed=0, num_resamples=50).auroc
    assert (worst.value, worst.low) == (0.0, 0.0) and worst.high == pytest.approx(1 - 0.05 ** (1 / num))


def test_fewer_than_five_of_a_class_have_no_bootstrap() -> None:
    target = torch.arange(20) < 4
    scores = torch.randn(20, generator=torch.Generator().manual_seed(0))
    few = separation(scores, target, seed=0, num_resamples=50)
    assert 0 < few.auroc.value < 1
    assert not (few.auroc.has_ends or few.average_precision.has_ends or few.f1.has_ends)
    assert separation(scores, torch.arange(20) < 5, seed=0, num_resamples=50).auroc.has_ends


def test_one_class_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="positives and negatives"):
        separation(torch.zeros(3), torch.ones(3, dtype=torch.bool), seed=0)


@pytest.mark.parametrize("scale", [0.1, 1.0, 60.0])
@pytest.mark.parametrize("decimals", [0, 6])
def test_the_figures_of_one_set_against_scikit_learn(scale: float, decimals: int) -> None:
    """Small and huge logits, with ties and without."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(400, generator=generator) < 0.2
    scores = (scale * (torch.randn(400, generator=generator) + target + 3)).round(decimals=decimals)
    expected = roc_auc_score(target.numpy(), scores.numpy())
    assert auroc(scores, target) == pytest.approx(expected, abs=1e-6)
    expected = average_precision_score(target.numpy(), scores.numpy())
    assert average_precision(scores, target) == pytest.approx(expected, abs=1e-6)


def test_one_class_alone_has_no_figures() -> None:
    with pytest.raises(ValueError, match="positives and negatives"):
        auroc(torch.rand(4), torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="positives and negatives"):
        average_precision(torch.rand(4), torch.zeros(4, dtype=torch.bool))
