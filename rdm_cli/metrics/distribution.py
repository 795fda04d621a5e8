r"""How far generated images are from real ones as distributions, on the features of some network.

The Fréchet distance of the two Gaussians with the samples' moments (Dowson & Landau 1982; Heusel
et al. 2017, arXiv 1706.08500, equation 6),

    FD = |mu_x - mu_y|^2 + tr S_x + tr S_y - 2 tr (S_x S_y)^(1/2),        tr (AA' BB')^(1/2) = ||A'B||_*

rises above the truth with the number of dimensions over that of images. So features are first projected on
the reference's principal axes, as few as the samples bear; what lies outside them the figure cannot see, and
how much that is stands beside it.

The kernel distance (Bińkowski et al. 2018, arXiv 1801.01401) is the squared maximum mean
discrepancy in its unbiased form, with their kernel, on all d features:

    KD = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j)
    k(a, b) = (a'b / d + 1)^3

Neither is FID or KID unless the features are Inception's (:mod:`rdm_cli.metrics.features`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rdm_cli.metrics.features import feature_pair
from rdm_cli.metrics.intervals import (
    LEVEL,
    Estimate,
    centred_estimate,
    percentile_estimate,
    resampled_counts,
    resampled_rows,
)

# At ten images a dimension the excess is a few per cent of the features' variance
IMAGES_PER_DIMENSION = 10
BLOCK_VALUES = 2**24  # of the kernel, computed at once: 128 MiB


@dataclass(frozen=True, kw_only=True)
class FrechetDistance:
    """The distance of two sets of features, in squared units of a feature, and what it rests on.

    ``distance`` has the interval of its spread; ``bias`` is the bootstrap's estimate of how much of the value
    comes from finite samples alone (Efron & Tibshirani 1993, section 10.2): two samples of one distribution
    have a distance of about their bias. ``num_dimensions`` were compared; ``kept_reference`` and
    ``kept_generated``, 0 to 1, are the shares in them of each set's squared differences from the reference's
    mean: where the second is far below the first, much that is wrong is not seen here.
    """

    distance: Estimate
    bias: float
    num_dimensions: int
    kept_reference: float
    kept_generated: float
    num_reference: int
    num_generated: int


def frechet_of_moments(mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor) -> float:
    """Fréchet distance of two Gaussians: means (d,), covariances (d, d) symmetric, computed in float64.

    At least 0. The root's trace is taken as a sum of singular values, which are exact where those of
    the product's eigenvalues would be square roots of rounding errors.
    """
    overlap = torch.linalg.svdvals(_root(cov_x).T @ _root(cov_y)).sum()
    offset = (mean_x.double() - mean_y.double()).square().sum()
    distance = offset + cov_x.double().trace() + cov_y.double().trace() - 2 * overlap
    return max(float(distance), 0.0)


def frechet_distance(
    reference: Tensor,
    generated: Tensor,
    *,
    seed: int,
    num_dimensions: int | None = None,
    num_resamples: int = 200,
    level: float = LEVEL,
) -> FrechetDistance:
    """Fréchet distance of ``reference`` (N, d) and ``generated`` (M, d), on the reference's principal axes.

    ``num_dimensions`` None takes one for every ten images of the smaller set, and all of them from 10 d
    images on. Distances compare only on as many dimensions and with one reference. Raises ValueError for
    fewer than ten images, for shapes that disagree, and for features that are not finite.
    """
    x, y = feature_pair(reference, generated, smallest=IMAGES_PER_DIMENSION)
    if num_dimensions is None:
        num_dimensions = min(len(x), len(y)) // IMAGES_PER_DIMENSION
    num_dimensions = min(num_dimensions, x.shape[1])
    if num_dimensions < 1:
        raise ValueError(f"a distance needs a dimension or more, not {num_dimensions}")
    mean, covariance = _moments(x)
    axes = torch.linalg.eigh(covariance).eigenvectors[:, -num_dimensions:]
    x, y = x - mean, y - mean
    x_seen, y_seen = x @ axes, y @ axes
    value = frechet_of_moments(*_moments(x_seen), *_moments(y_seen))
    replicates = torch.tensor(
        [
            frechet_of_moments(*_moments(x_seen[a]), *_moments(y_seen[b]))
            for a, b in resampled_rows([len(x), len(y)], seed=seed, num_resamples=num_resamples)
        ],
        dtype=torch.float64,
    )
    return FrechetDistance(
        distance=centred_estimate(value, replicates, level=level, floor=0.0),
        bias=float(replicates.mean()) - value,
        num_dimensions=num_dimensions,
        kept_reference=_share(x_seen, x),
        kept_generated=_share(y_seen, y),
        num_reference=len(x),
        num_generated=len(y),
    )


def kernel_distance(
    reference: Tensor, generated: Tensor, *, seed: int, num_resamples: int = 1000, level: float = LEVEL
) -> Estimate:
    """Kernel distance of ``reference`` (N, d) and ``generated`` (M, d), with a bootstrap interval.

    Unbiased, so it may fall below 0 where the distributions agree; papers print it times 1000. Replicates
    leave out the pairs of an image with its own copies, which would add a bias (Hušková & Janssen 1993);
    where the distributions agree the interval is wider than it need be. The kernel is computed in blocks of
    rows, so memory grows with ``num_resamples`` (N + M), never with N M. Raises ValueError for fewer than two
    images, for shapes that disagree, and for features that are not finite.
    """
    x, y = feature_pair(reference, generated, smallest=2)
    once = [torch.ones(1, len(sample), dtype=torch.float64) for sample in (x, y)]
    drawn = [
        resampled_counts(len(sample), seed=seed, num_resamples=num_resamples, sample=i)
        for i, sample in enumerate((x, y))
    ]
    a, b = (torch.cat(both) for both in zip(once, drawn, strict=True))  # the first row is the value's
    found = _mean_of_pairs(x, a) + _mean_of_pairs(y, b) - 2 * _mean_of_products(x, y, a, b)
    return percentile_estimate(float(found[0]), found[1:], level=level)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and unbiased covariance (d, d) of ``x`` (N, d)."""
    mean = x.mean(dim=0)
    centred = x - mean
    return mean, centred.T @ centred / (len(x) - 1)


def _root(covariance: Tensor) -> Tensor:
    """Some A with A A' = ``covariance``; rounding may have left tiny eigenvalues below 0."""
    values, axes = torch.linalg.eigh(covariance.double())
    return axes * values.clamp(min=0).sqrt()


def _share(seen: Tensor, whole: Tensor) -> float:
    total = float(whole.square().sum())
    return float(seen.square().sum()) / total if total > 0 else 1.0


def _cubed(products: Tensor, num_dimensions: int) -> Tensor:
    """The kernel of features whose inner products are given."""
    return (products / num_dimensions + 1) ** 3


def _mean_of_pairs(x: Tensor, counts: Tensor) -> Tensor:
    """Mean kernel over pairs of different images of ``x`` (N, d), by ``counts`` (R, N) of each: (R,)."""
    own = _cubed(x.square().sum(dim=1), x.shape[1])
    total = _sum_of_products(x, x, counts, counts) - counts.square() @ own
    return total / (counts.sum(dim=1).square() - counts.square().sum(dim=1))


def _mean_of_products(x: Tensor, y: Tensor, counts_x: Tensor, counts_y: Tensor) -> Tensor:
    return _sum_of_products(x, y, counts_x, counts_y) / (counts_x.sum(dim=1) * counts_y.sum(dim=1))


def _sum_of_products(x: Tensor, y: Tensor, counts_x: Tensor, counts_y: Tensor) -> Tensor:
    """Sum of the kernel over all pairs of ``x`` (N, d) and ``y`` (M, d), by counts (R, N), (R, M): (R,)."""
    rows = max(1, BLOCK_VALUES // len(y))
    total = torch.zeros(len(counts_x), dtype=torch.float64)
    for some, counts in zip(x.split(rows), counts_x.split(rows, dim=1), strict=True):
        total += (counts @ _cubed(some @ y.T, x.shape[1]) * counts_y).sum(dim=1)
    return total
