r"""How well scores separate two classes: of one set, and of many resamples of it at once.

Each thing counts as often as a resample drew it, and sorting once serves all resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rdm_cli.metrics.intervals import (
    LEVEL,
    NUM_RESAMPLES,
    RULE_OF_THREE,
    Estimate,
    differing_share,
    percentile_estimate,
    resampled_counts,
)

SMALLEST_CLASS = 5  # examples of each class from which on a bootstrap says something


@dataclass(frozen=True, kw_only=True)
class Separation:
    """AUROC, average precision and F1, each 0 to 1; chance is 0.5, the share of positives, and in between.

    F1 is that of calling positive what scores above 0. ``num_positive`` of ``num_scored`` were.
    """

    auroc: Estimate
    average_precision: Estimate
    f1: Estimate
    num_positive: int
    num_scored: int


def auroc(scores: Tensor, target: Tensor) -> float:
    """Probability that a positive scores above a negative; ties count half.

    ``scores`` (N,) in any unit; ``target`` bool (N,). Raises ValueError where a class is missing.
    """
    return float(_of_one_set(scores, target)[0])


def average_precision(scores: Tensor, target: Tensor) -> float:
    """Precision averaged over the recalls at which a positive is found; arguments as in :func:`auroc`."""
    return float(_of_one_set(scores, target)[1])


def _of_one_set(scores: Tensor, target: Tensor) -> Tensor:
    no_resamples = torch.empty(0, len(target), dtype=torch.float64)
    return separation_replicates(scores, target.bool(), no_resamples)[0]


def separation(
    scores: Tensor, target: Tensor, *, seed: int, num_resamples: int = NUM_RESAMPLES, level: float = LEVEL
) -> Separation:
    """How well ``scores`` (N,), logits or any others that are above 0 for yes, tell ``target`` (N,) bool.

    Raises ValueError where a class is missing.
    """
    counts = resampled_counts(len(scores), seed=seed, num_resamples=num_resamples)
    value, replicates = separation_replicates(scores, target, counts)
    return separation_estimate(
        value,
        replicates,
        num_positive=int(target.sum()),
        num_scored=len(target),
        num_pairs=smaller_class(target),
        level=level,
    )


def smaller_class(target: Tensor) -> int:
    """How many pairs of a positive and a negative ``target``, bool (N,), has that share no member."""
    return min(int(target.sum()), int((~target).sum()))


def separation_estimate(
    value: Tensor,
    replicates: Tensor,
    *,
    num_positive: int,
    num_scored: int,
    num_pairs: int,
    level: float = LEVEL,
) -> Separation:
    """The figures with their intervals, from what :func:`separation_replicates` gives.

    ``num_pairs`` is the size of the smaller class. An AUROC of 1 or 0 has its interval by the rule of three:
    that many independent pairs were ordered, all of them one way. Others have none below ``SMALLEST_CLASS``.
    """
    auroc, average_precision, f1 = (
        _with_interval(float(v), r[r.isfinite()], num_pairs, level)
        for v, r in zip(value, replicates, strict=True)
    )
    if auroc.value in (0.0, 1.0):
        reversed_share = differing_share(num_pairs, level=level)
        low, high = (1 - reversed_share, 1.0) if auroc.value == 1.0 else (0.0, reversed_share)
        auroc = Estimate(
            value=auroc.value, low=low, high=high, level=level, num_resamples=0, method=RULE_OF_THREE
        )
    return Separation(
        auroc=auroc,
        average_precision=average_precision,
        f1=f1,
        num_positive=num_positive,
        num_scored=num_scored,
    )


def _with_interval(value: float, replicates: Tensor, num_pairs: int, level: float) -> Estimate:
    if num_pairs >= SMALLEST_CLASS:
        return percentile_estimate(value, replicates, level=level)
    return Estimate(value=value, low=math.nan, high=math.nan, level=level, num_resamples=0)


def separation_replicates(scores: Tensor, target: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """AUROC, average precision and F1 of the set, float64 (3,), and of each of its R resamples, (3, R).

    ``scores`` (N,), ``target`` bool (N,), ``counts`` (R, N) as :func:`resampled_counts` gives them. NaN where
    a resample lacks a class. Raises ValueError where the set does.
    """
    if target.ndim != 1 or scores.shape != target.shape or target.all() or not target.any():
        raise ValueError("a ranking needs scores of positives and negatives, as (N,)")
    weights = torch.cat([torch.ones(1, len(target), dtype=torch.float64), counts.double()])
    thresholds, places = torch.unique(scores.detach().cpu(), return_inverse=True)  # (U,) rising, (N,)
    empty = weights.new_zeros(len(weights), len(thresholds))
    positive = empty.index_add(1, places, weights * target)
    negative = empty.index_add(1, places, weights * ~target)
    found = torch.stack(
        [
            _auroc(positive, negative),
            _average_precision(positive, negative),
            _f1(positive, negative, thresholds > 0),
        ]
    )
    complete = (positive.sum(dim=1) > 0) & (negative.sum(dim=1) > 0)
    found = torch.where(complete, found, torch.full_like(found, torch.nan))
    return found[:, 0], found[:, 1:]


# Below: counts (R, U) of the positives and of the negatives that score each of U values, the lowest first.


def _auroc(positive: Tensor, negative: Tensor) -> Tensor:
    beaten = negative.cumsum(dim=1) - negative / 2
    return (positive * beaten).sum(dim=1) / (positive.sum(dim=1) * negative.sum(dim=1))


def _average_precision(positive: Tensor, negative: Tensor) -> Tensor:
    found, wrong = (counts.flip(1).cumsum(dim=1) for counts in (positive, negative))
    precision = found / (found + wrong).clamp(min=1)  # nothing was found where nothing was called
    return (positive.flip(1) * precision).sum(dim=1) / positive.sum(dim=1)


def _f1(positive: Tensor, negative: Tensor, called: Tensor) -> Tensor:
    right, wrong = positive[:, called].sum(dim=1), negative[:, called].sum(dim=1)
    return 2 * right / (right + wrong + positive.sum(dim=1))
