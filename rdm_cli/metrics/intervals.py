r"""Figures that are estimates, each with an interval of 95 %.

**The bootstrap** (Efron & Tibshirani 1993, chapter 13). The N things that were measured are drawn again, N
times with replacement, and the figure is computed anew; the spread of many such replicates is taken for the
spread over other data of the same kind. Two forms:

    percentile    [q_low, q_high] of the replicates
    centred       value + [q_low - mean, q_high - mean]

The second is for figures that finite samples push to one side (a Fréchet distance rises): there replicates
lie off the value by about as much as the value lies off the truth, and only their spread can be used.

**Student's t.** The bootstrap's interval of a mean is too narrow for few values: it covers the truth in 50 %
of cases at N = 2 and in 80 % at N = 4. Below ``SMALL_SAMPLE`` values a mean has the interval of Student
(1908), ``mean +- t_{N-1} s / sqrt(N)``, cut to the range of the values where that is known.

**Where all N values agree** neither has a width, which does not mean that the figure is certain. Of the
things that were not measured, at most a share ``1 - (1 - level)^(1/N)``, about 3/N at 95 % (the rule of
three), differs; for values of a known range this bounds the mean. For others there is no interval, and its
ends are NaN.
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
SMALL_SAMPLE = 30  # values from which on a mean's bootstrap interval holds about what it says
BOOTSTRAP, STUDENT, WILSON, RULE_OF_THREE = "bootstrap", "Student's t", "Wilson", "rule of three"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and the interval ``[low, high]`` that covers the truth in a share ``level`` of repetitions.

    All in the unit of the figure. ``method`` names how the interval was found, ``num_resamples`` how many
    replicates a bootstrap's rests on (0 for others). Both ends are NaN where nothing can be said of them.
    """

    value: float
    low: float
    high: float
    level: float
    num_resamples: int
    method: str = BOOTSTRAP

    @property
    def has_ends(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def __str__(self) -> str:
        return (
            f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})" if self.has_ends else f"{self.value:.4g}"
        )


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
    """``value`` with the percentile interval of its ``replicates``, float (R,); NaN where all R agree."""
    low, high = _quantiles(replicates, level)
    return Estimate(value=value, low=low, high=high, level=level, num_resamples=len(replicates))


def centred_estimate(
    value: float, replicates: Tensor, *, level: float = LEVEL, floor: float = -float("inf")
) -> Estimate:
    """``value`` with the spread of its ``replicates``, float (R,), moved to lie about it.

    ``floor`` is the least that the figure can be; the interval ends there. NaN where all R replicates agree.
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
    values: Tensor,
    *,
    seed: int,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> Estimate:
    """The mean of ``values`` (N,), one for each thing measured, with its interval.

    The bootstrap's percentiles; Student's t below ``SMALL_SAMPLE`` values; the rule of three where all values
    agree. ``bounds`` are the least and the most that a value can be, but for rounding. The interval's ends
    are NaN for one value, and where all agree and a bound is not known. Raises ValueError where there are no
    values, or one is not finite (the PSNR of a perfect reconstruction).
    """
    if values.ndim != 1 or not values.isfinite().all():
        raise ValueError(f"an interval needs finite values (N,), not {tuple(values.shape)}")
    if len(values) == 0:
        raise ValueError("an empty sample has no mean")
    exact = values.detach().cpu().double()
    if bool((exact == exact[0]).all()):
        return _constant_estimate(float(exact[0]), len(exact), bounds, level)
    mean = float(exact.mean())
    if len(exact) < SMALL_SAMPLE:
        half = mean_half_width(exact, level=level)
        low, high = max(mean - half, min(bounds[0], mean)), min(mean + half, max(bounds[1], mean))
        return Estimate(value=mean, low=low, high=high, level=level, num_resamples=0, method=STUDENT)
    draws = resampled_rows([len(exact)], seed=seed, num_resamples=num_resamples)
    return percentile_estimate(mean, torch.stack([exact[rows].mean() for (rows,) in draws]), level=level)


def mean_half_width(values: Tensor, *, level: float = LEVEL) -> float:
    """Half the width of Student's interval of the mean of ``values`` (N,); infinite for one value."""
    num = len(values)
    if num < 2:
        return math.inf
    return t_quantile((1 + level) / 2, num - 1) * float(values.cpu().double().std()) / math.sqrt(num)


def t_quantile(share: float, degrees: int) -> float:
    """Where Student's t distribution of ``degrees`` >= 1 of freedom has ``share`` (0.5 to 1) below it.

    By bisection of its distribution function, which is a finite sum (Abramowitz & Stegun 1964, 26.7.3 and
    26.7.4). Raises ValueError for other arguments.
    """
    if not 0.5 <= share < 1 or degrees < 1:
        raise ValueError(f"no such quantile of Student's t: {share} of {degrees} degrees of freedom")
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_inside(middle, degrees) < 2 * share - 1 else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _t_inside(angle: float, degrees: int) -> float:
    """How often abs(T) < sqrt(degrees) tan(angle) for Student's T, and an ``angle`` from 0 to pi / 2."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(2 + odd, degrees + 1, 2):
        total += term
        term *= cosine**2 * (k - 1) / k
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def differing_share(num: int, *, level: float = LEVEL) -> float:
    """The largest share that may differ where ``num`` things were looked at and none did (rule of three)."""
    return float(1 - (1 - level) ** (1 / num))


def _constant_estimate(value: float, num: int, bounds: tuple[float, float], level: float) -> Estimate:
    low = high = math.nan
    if num > 1 and all(map(math.isfinite, bounds)):
        differing = differing_share(num, level=level)
        low = value - differing * max(value - bounds[0], 0.0)
        high = value + differing * max(bounds[1] - value, 0.0)
    return Estimate(value=value, low=low, high=high, level=level, num_resamples=0, method=RULE_OF_THREE)


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
    return Estimate(value=share, low=low, high=high, level=level, num_resamples=0, method=WILSON)


def _quantiles(replicates: Tensor, level: float) -> tuple[float, float]:
    if replicates.ndim != 1 or len(replicates) < 2:
        raise ValueError(f"an interval needs replicates (R,), R at least 2, not {tuple(replicates.shape)}")
    if not 0 < level < 1:
        raise ValueError(f"the level must lie strictly between 0 and 1, not {level}")
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    exact = replicates.cpu().double()
    if bool((exact == exact[0]).all()):
        return math.nan, math.nan
    low, high = torch.quantile(exact, ends).tolist()
    return low, high
