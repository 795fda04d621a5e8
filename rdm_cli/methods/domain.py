r"""What a bundle's training images look like to its encoder: the Gaussian of their codes.

    distance(z) = sqrt((z - mean)' (S + a I)^-1 (z - mean)),        a = SHRINKAGE tr S / d

the Mahalanobis distance, S the covariance of the training images' codes. An encoder gives any image a code;
that of an image which is unlike those of the training lies farther from their mean than nearly all of theirs
(Lee et al. 2018, arXiv 1807.03888, tell such images by the same distance). ``limit`` is the distance that one
in 200 of the training codes exceeds, among those that mean and covariance were not fitted on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rdm_cli.kernels.float64 import in_float64
from rdm_cli.kernels.randomness import keyed_generator

SHRINKAGE = 1e-3
BEYOND_LIMIT = 1 / 200  # of the training codes
LEAST_CODES = 400


@dataclass(frozen=True, kw_only=True)
class Domain:
    """``mean`` (d,) of training codes, ``whitening`` (d, d), which gives a code the identity's covariance.

    A code whose distance exceeds ``limit`` is outside. Raises ValueError for other shapes.
    """

    mean: Tensor
    whitening: Tensor
    limit: float

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.whitening.shape != (len(self.mean),) * 2:
            shapes = tuple(self.mean.shape), tuple(self.whitening.shape)
            raise ValueError(f"mean and whitening are (d,) and (d, d), not {shapes[0]} and {shapes[1]}")

    def distances(self, z: Tensor) -> Tensor:
        """How far codes ``z`` (N, ...) of d values are from the training codes' mean: (N,), on the CPU."""
        deviation = z.detach().flatten(1).cpu().float() - self.mean
        return (deviation @ self.whitening).norm(dim=1)

    def outside(self, z: Tensor) -> Tensor:
        """Which of the codes ``z`` (N, ...) are farther than nearly all training codes, (N,) bool."""
        return self.distances(z) > self.limit


def more_than_chance(num_outside: int, num_images: int) -> bool:
    """Whether so many of training-like images would be outside in fewer than one of a hundred such draws."""
    return _binomial_tail(num_outside, num_images, BEYOND_LIMIT) < 0.01


def _binomial_tail(k: int, n: int, p: float) -> float:
    """P(X >= k) for X ~ Binomial(n, p), with a relative error below 1e-5; 1 where k is the mean or less.

    Only the side below 1/2 is exact. Terms are summed upwards from k, where each is smaller than the last.
    """
    if k <= n * p:
        return 1.0
    if k > n:
        return 0.0
    log_choices = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    term = math.exp(log_choices + k * math.log(p) + (n - k) * math.log1p(-p))
    total = 0.0
    while term > 1e-9 * total and k <= n:
        total += term
        term *= (n - k) / (k + 1) * p / (1 - p)
        k += 1
    return total


def fit_domain(z: Tensor, *, seed: int = 0) -> Domain | None:
    """The domain of training codes ``z`` (N, d); None for fewer than 400 codes, or than d codes in 4/5 of N.

    The fifth that sets the limit is drawn by ``seed``.
    """
    z = in_float64(z.flatten(1).cpu())
    order = torch.randperm(len(z), generator=keyed_generator(seed, "domain"))
    fitted, rest = z[order[: -(len(z) // 5)]], z[order[-(len(z) // 5) :]]
    if len(z) < LEAST_CODES or len(fitted) <= z.shape[1]:
        return None
    mean, covariance = fitted.mean(dim=0), torch.cov(fitted.T).reshape(z.shape[1], z.shape[1])
    values, vectors = torch.linalg.eigh(covariance)
    shrunk = values.clamp(min=0) + SHRINKAGE * values.mean()
    found = Domain(mean=mean.float(), whitening=(vectors / shrunk.sqrt()).float(), limit=0.0)
    limit = float(torch.quantile(found.distances(rest), 1 - BEYOND_LIMIT))
    return Domain(mean=found.mean, whitening=found.whitening, limit=limit)
