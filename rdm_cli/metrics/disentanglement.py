r"""How alone one code dimension tells an attribute: by how far it is ahead of the second best.

    MIG = mean_k (I(z_a; y_k) - I(z_b; y_k)) / H(y_k)       (Chen et al. 2018, arXiv 1802.04942, section 4)
    TAD = sum_k (A_ak - A_bk) [A_ak >= 0.75]                (Yeats et al. 2022, arXiv 2209.10677)

a and b are the two best dimensions for attribute k; I is the mutual information with z cut into bins of
equal mass, H the entropy; A_ik is the AUROC of z_i by itself, or of -z_i where that is more. An attribute
whose best dimension reaches 0.75 is captured; TAD grows with the number of those, which stands beside it.
Yeats et al. first leave out attributes that go along with others; here all that are given count.

A code of many dimensions, trained without any wish for disentanglement, has MIG and TAD near 0 however linear
it is: for those, DCI and linear probes say more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rdm_cli.metrics.intervals import LEVEL, Estimate, centred_estimate, resampled_counts
from rdm_cli.metrics.linear_probes import checked_labels
from rdm_cli.metrics.ranking import separation_replicates

NUM_BINS = 20
CAPTURED = 0.75
# Replicates look for the two best dimensions among these: the others are too far behind to get there
NUM_CANDIDATES = 10


@dataclass(frozen=True, kw_only=True)
class Gap:
    """``best`` is a dimension's index in the flattened code, ``value`` what it scores, ``gap`` its lead."""

    best: int
    value: float
    gap: float


@dataclass(frozen=True, kw_only=True)
class GapScore:
    """MIG (0 to 1) or TAD (0 to half the number of attributes), with each attribute's part in it.

    ``num_captured`` of the attributes reached 0.75 (None for MIG). ``skipped``: of one class alone.
    """

    score: Estimate
    by_name: Mapping[str, Gap]
    num_captured: int | None
    skipped: Mapping[str, str]


def mutual_information_gap(
    z: Tensor,
    labels: Tensor,
    names: Sequence[str],
    *,
    seed: int,
    num_resamples: int = 200,
    level: float = LEVEL,
) -> GapScore:
    """MIG of codes ``z`` (N, ...), flattened, against binary ``labels`` (N, K).

    Labels are positive where > 0, NaN where unknown. A value is information in shares of the attribute's
    entropy. Twenty bins add some 19 / 2N nats to every dimension, and so about nothing to the gap. Raises
    ValueError for shapes that disagree, fewer than two dimensions, or no attribute of two classes.
    """
    found = _gaps(z, labels, names, _information, seed=seed, num_resamples=num_resamples)
    return GapScore(
        score=centred_estimate(
            float(found.value.mean()), found.replicates.mean(dim=0), level=level, floor=0.0
        ),
        by_name=found.by_name,
        num_captured=None,
        skipped=found.skipped,
    )


def total_auroc_difference(
    z: Tensor,
    labels: Tensor,
    names: Sequence[str],
    *,
    seed: int,
    num_resamples: int = 200,
    level: float = LEVEL,
) -> GapScore:
    """TAD of codes ``z`` (N, ...) against binary ``labels`` (N, K); arguments and errors as for MIG.

    A value is an AUROC, 0.5 to 1. Which attributes are captured is decided on the whole set.
    """
    found = _gaps(z, labels, names, _auroc, seed=seed, num_resamples=num_resamples)
    captured = torch.tensor([gap.value >= CAPTURED for gap in found.by_name.values()])
    return GapScore(
        score=centred_estimate(
            float(found.value[captured].sum()),
            found.replicates[captured].sum(dim=0),
            level=level,
            floor=0.0,
        ),
        by_name=found.by_name,
        num_captured=int(captured.sum()),
        skipped=found.skipped,
    )


@dataclass(frozen=True, kw_only=True)
class _Gaps:
    """Each attribute's lead: ``value`` (K',) on the set, ``replicates`` (K', R) on its resamples."""

    value: Tensor
    replicates: Tensor
    by_name: dict[str, Gap]
    skipped: dict[str, str]


# (z (N, d), target bool (N,), counts (R, N)) -> scores (d, R) of each dimension by itself on each resample
_Score = Callable[[Tensor, Tensor, Tensor], Tensor]


def _gaps(
    z: Tensor, labels: Tensor, names: Sequence[str], score: _Score, *, seed: int, num_resamples: int
) -> _Gaps:
    z = z.detach().cpu().double().flatten(1)
    labels = checked_labels(labels, names, len(z))
    if z.shape[1] < 2:
        raise ValueError("a gap needs two dimensions or more")
    counts = resampled_counts(len(z), seed=seed, num_resamples=num_resamples)
    values, replicates, by_name, skipped = [], [], {}, {}
    for k, name in enumerate(names):
        known, target = ~labels[:, k].isnan(), labels[:, k] > 0
        if not target.any() or target[known].all():
            skipped[name] = "examples of one class alone"
            continue
        rows, target = z[known], target[known]
        scores = score(rows, target, torch.ones(1, len(rows), dtype=torch.float64))[:, 0]
        best = scores.topk(min(NUM_CANDIDATES, len(scores)))
        lead = best.values[0] - best.values[1]
        resampled = score(rows[:, best.indices], target, counts[:, known]).topk(2, dim=0).values
        leads = resampled[0] - resampled[1]
        values.append(lead)
        replicates.append(
            torch.where(leads.isnan(), lead, leads)
        )  # a resample that lacks a class says nothing
        by_name[name] = Gap(best=int(best.indices[0]), value=float(best.values[0]), gap=float(lead))
    if not by_name:
        raise ValueError("no attribute has examples of both classes")
    return _Gaps(
        value=torch.stack(values), replicates=torch.stack(replicates), by_name=by_name, skipped=skipped
    )


def _auroc(z: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    columns = [separation_replicates(column, target, counts)[1][0] for column in z.T]
    found = torch.stack(columns)
    return torch.maximum(found, 1 - found)


def _information(z: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Mutual information over the target's entropy, (d, R); NaN where a resample lacks a class."""
    weights = torch.stack([counts * target, counts * ~target])  # (2, R, N)
    joint = torch.stack([weights @ inside.double() for inside in _bins(z)], dim=-1)  # (2, R, d, bins)
    joint = joint / joint.sum(dim=(0, 3), keepdim=True)
    of_target, of_bin = joint.sum(dim=3, keepdim=True), joint.sum(dim=0, keepdim=True)
    entropy = -torch.special.xlogy(of_target, of_target).sum(dim=(0, 3))  # (R, d)
    independent = torch.special.xlogy(joint, of_target * of_bin)
    information = (torch.special.xlogy(joint, joint) - independent).sum(dim=(0, 3))
    return (information / torch.where(entropy > 0, entropy, torch.nan)).T


def _bins(z: Tensor) -> list[Tensor]:
    """Which values of each dimension lie in each bin of equal mass: bool (N, d) for each bin.

    Equal values share a bin, so a dimension of few values has fewer bins that hold anything.
    """
    last = (torch.arange(1, NUM_BINS) * len(z) / NUM_BINS).round().long() - 1
    edges = z.sort(dim=0).values[last.clamp(min=0)]  # (bins - 1, d): the highest value of each bin
    place = torch.searchsorted(edges.T.contiguous(), z.T.contiguous()).T
    return [place == b for b in range(NUM_BINS)]
