r"""Two things that one distance mixes up: are generated images like real ones, and are they as varied?

The manifold of a set is the union of balls about its points, each as wide as the way to its k-th neighbour:

    precision = share of generated points in the real manifold      (Kynkäänniemi et al. 2019, section 2,
    recall    = share of real points in the generated manifold       arXiv 1904.06991)
    density   = real balls that a generated point lies in, over k   (Naeem et al. 2020, section 3,
    coverage  = share of real balls that hold a generated point      arXiv 2002.09797)

An outlier's ball is huge, which flatters precision and recall; density and coverage bear it. The intervals
are those of a share of the points that are judged (of a mean, for density), the manifolds as they are:
drawing these again would put copies next to each other and shrink their balls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rdm_cli.metrics.features import feature_pair
from rdm_cli.metrics.intervals import LEVEL, NUM_RESAMPLES, Estimate, mean_estimate, share_estimate

BLOCK_VALUES = 2**24  # distances that are computed at once: 128 MiB


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall:
    """Both from 0 to 1; about 1 for two samples of one distribution, below it by how small they are."""

    precision: Estimate
    recall: Estimate
    num_neighbours: int


@dataclass(frozen=True, kw_only=True)
class DensityCoverage:
    """``coverage`` from 0 to 1; ``density`` from 0, and 1 in the mean for two samples of one distribution."""

    density: Estimate
    coverage: Estimate
    num_neighbours: int


def precision_recall(
    reference: Tensor,
    generated: Tensor,
    *,
    num_neighbours: int = 3,
    level: float = LEVEL,
) -> PrecisionRecall:
    """Improved precision and recall of features ``generated`` (M, d) against ``reference`` (N, d).

    Both depend on N and M: compare figures of equal numbers. Distances are computed in blocks of rows, so
    memory grows with N + M and not with N M. Raises ValueError where a set has no ``num_neighbours``
    neighbours, for shapes that disagree, and for features that are not finite.
    """
    x, y = feature_pair(reference, generated, smallest=num_neighbours + 1)
    in_real = torch.cat([inside.any(dim=1) for inside in _inside_balls(y, x, num_neighbours)])
    in_generated = torch.cat([inside.any(dim=1) for inside in _inside_balls(x, y, num_neighbours)])
    precision, recall = (share_estimate(inside, level=level) for inside in (in_real, in_generated))
    return PrecisionRecall(precision=precision, recall=recall, num_neighbours=num_neighbours)


def density_coverage(
    reference: Tensor,
    generated: Tensor,
    *,
    seed: int,
    num_neighbours: int = 5,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> DensityCoverage:
    """Density and coverage; memory and errors as in :func:`precision_recall`.

    The interval of density is that of a mean, with ``num_resamples`` replicates where it is a bootstrap's.
    """
    x, y = feature_pair(reference, generated, smallest=num_neighbours + 1)
    counts, filled = [], torch.zeros(len(x), dtype=torch.bool)
    for inside in _inside_balls(y, x, num_neighbours):
        counts.append(inside.sum(dim=1))
        filled |= inside.any(dim=0)
    depths = torch.cat(counts).double() / num_neighbours
    deepest = len(x) / num_neighbours
    density = mean_estimate(
        depths, seed=seed, bounds=(0.0, deepest), num_resamples=num_resamples, level=level
    )
    coverage = share_estimate(filled, level=level)
    return DensityCoverage(density=density, coverage=coverage, num_neighbours=num_neighbours)


def _radii(points: Tensor, num_neighbours: int) -> Tensor:
    """Distance from each of ``points`` (N, d) to its k-th nearest other, (N,)."""
    radii = []
    for rows in torch.arange(len(points)).split(max(1, BLOCK_VALUES // len(points))):
        distances = torch.cdist(points[rows], points)
        distances[torch.arange(len(rows)), rows] = float("inf")
        radii.append(distances.kthvalue(num_neighbours, dim=1).values)
    return torch.cat(radii)


def _inside_balls(points: Tensor, centres: Tensor, num_neighbours: int) -> Iterator[Tensor]:
    """Which balls about ``centres`` (N, d) hold each of ``points`` (M, d): bool (rows, N) a block."""
    radii = _radii(centres, num_neighbours)
    for some in points.split(max(1, BLOCK_VALUES // len(centres))):
        yield torch.cdist(some, centres) <= radii
