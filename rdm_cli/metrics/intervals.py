r"""Figures that are estimates, each with an interval: the bootstrap (Efron & Tibshirani 1993, chapter 13).

The N things that were measured are drawn again, N times with replacement, and the figure is computed anew;
the spread of many such replicates is taken for the spread over other data of the same kind. Two forms:

    percentile    [q_low, q_high] of the replicates
    centred       value + [q_low - mean, q_high - mean]

The second is for figures that finite samples push to one side (a Fréchet distance rises): there replicates
lie off the value by about as much as the value lies off the truth, and only their spread can be used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rdm_cli.kernels.randomness import keyed_generator

LEVEL = 0.95
NUM_RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and the interval ``[low, high]`` that covers the truth in a share ``level`` of repetitions.

    All in the unit of the figure. ``num_resamples`` says how many bootstrap replicates the interval rests on.
    """

    value: float
    low: float
    high: float
    level: float
    num_resamples: int

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"


def resampled_rows(
    sizes: Sequence[int], *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> Iterator[tuple[Tensor, ...]]:
    """Rows to compute a figure from again, ``num_resamples`` times.

    ``sizes`` are those of one sample or of several that are independent; each gets its own rows, int64
    (size,), with replacement. Replicate r depends on the seed, r and the sizes alone. Raises ValueError
    where a sample is empty.
    """
    if min(sizes) < 1:
        raise ValueError(f"an empty sample cannot be drawn from: sizes {tuple(sizes)}")
    for r in range(num_resamples):
        generator = keyed_generator(seed, "bootstrap", r)
        yield tuple(torch.randint(size, (size,), generator=generator) for size in sizes)


def resampled_counts(size: int, *, seed: int, num_resamples: int = NUM_RESAMPLES, sample: int = 0) -> Tensor:
    """How often each of ``size`` things was drawn in each replicate, float64 (num_resamples, size).

    For figures that take weights, where all replicates are one product of matrices. ``sample`` tells samples
    that are independent of each other apart.
    """
    draws = resampled_rows([size] * (sample + 1), seed=seed, num_resamples=num_resamples)
    return torch.stack([torch.bincount(rows[sample], minlength=size) for rows in draws]).double()


def percentile_estimate(value: float, replicates: Tensor, *, level: float = LEVEL) -> Estimate:
    """``value`` with the percentile interval of its ``replicates``, float (R,)."""
    low, high = _quantiles(replicates, level)
    return Estimate(value=value, low=low, high=high, level=level, num_resamples=len(replicates))


def centred_estimate(
    value: float, replicates: Tensor, *, level: float = LEVEL, floor: float = -float("inf")
) -> Estimate:
    """``value`` with the spread of its ``replicates``, float (R,), moved to lie about it.

    ``floor`` is the least that the figure can be; the interval ends there.
    """
    low, high = _quantiles(replicates, level)
    shift = value - float(replicates.cpu().double().mean())
    return Estimate(
        value=value,
        low=max(low + shift, floor),
        high=max(high + shift, floor),
        level=level,
        num_resamples=len(replicates),
    )


def mean_estimate(
    values: Tensor, *, seed: int, num_resamples: int = NUM_RESAMPLES, level: float = LEVEL
) -> Estimate:
    """The mean of ``values`` (N,), one for each thing measured, with its percentile interval.

    Raises ValueError where there are none, or one is not finite (the PSNR of a perfect reconstruction).
    """
    if values.ndim != 1 or not values.isfinite().all():
        raise ValueError(f"an interval needs finite values (N,), not {tuple(values.shape)}")
    exact = values.detach().cpu().double()
    replicates = torch.stack(
        [
            exact[rows].mean()
            for (rows,) in resampled_rows([len(exact)], seed=seed, num_resamples=num_resamples)
        ]
    )
    return percentile_estimate(float(exact.mean()), replicates, level=level)


def share_estimate(successes: Tensor, *, level: float = LEVEL) -> Estimate:
    """The share of True among ``successes``, bool (N,), with Wilson's interval (1927, JASA 22).

    The bootstrap's has no width where all agree, which few trials often do. ``num_resamples`` is 0. Raises
    ValueError where there are none.
    """
    num = len(successes)
    if successes.ndim != 1 or num == 0:
        raise ValueError(f"a share needs trials (N,), not {tuple(successes.shape)}")
    share = float(successes.cpu().double().mean())
    z = math.sqrt(2) * float(torch.erfinv(torch.tensor(level, dtype=torch.float64)))
    shrunk = 1 + z**2 / num
    centre = (share + z**2 / (2 * num)) / shrunk
    half = z / shrunk * math.sqrt(share * (1 - share) / num + z**2 / (4 * num**2))
    low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    low, high = min(low, share), max(high, share)  # where all agree, rounding would leave the share outside
    return Estimate(value=share, low=low, high=high, level=level, num_resamples=0)


def _quantiles(replicates: Tensor, level: float) -> tuple[float, float]:
    if replicates.ndim != 1 or len(replicates) < 2:
        raise ValueError(f"an interval needs replicates (R,), R at least 2, not {tuple(replicates.shape)}")
    if not 0 < level < 1:
        raise ValueError(f"the level must lie strictly between 0 and 1, not {level}")
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.quantile(replicates.cpu().double(), ends).tolist()
    return low, high
