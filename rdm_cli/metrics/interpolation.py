r"""How evenly pictures change along a way between two codes.

For frames x_0 ... x_{N-1} at even steps and a distance d of pictures, with steps s_i = d(x_i, x_{i+1}):

    length      sum_i s_i, and over d(x_0, x_{N-1}) the detour: 1 for the shortest way there is
    largest     max_i s_i / mean_i s_i: 1 for an even way, N - 1 for one jump
    smoothness  1 - G, G the steps' Gini coefficient: 1 for an even way, 1 / (N - 1) for one jump

Perceptual path length (Karras et al. 2019, arXiv 1812.04948, section 4.1) is that of steps so small that d,
which is quadratic in them, can be divided by their square:

    PPL = E d(x(t), x(t + epsilon)) / epsilon^2

Pixel blending is the even way by mean squared error, and passes through double exposures: these figures say
how a picture changes, not whether it is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Two batches of pictures, each (B, C, H, W), to the distance of each pair (B,), from 0 up
Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Smoothness:
    """The figures of one way, as the module's docstring has them.

    ``length`` in the distance's unit; ``detour`` from 1 up, for distances that obey the triangle inequality;
    ``largest_step`` 1 to N - 1; ``smoothness`` 1 / (N - 1) to 1. Where nothing moves, the last three are 1;
    where the ends alone agree, ``detour`` is infinite.
    """

    length: float
    detour: float
    largest_step: float
    smoothness: float


def step_distances(frames: Tensor, distance: Distance) -> Tensor:
    """Distance from each of ``frames`` (N, C, H, W) to the next, float64 (N - 1,).

    Raises ValueError for fewer than two frames.
    """
    if frames.ndim != 4 or len(frames) < 2:
        raise ValueError(f"a way has two frames or more, (N, C, H, W), not {tuple(frames.shape)}")
    return distance(frames[:-1], frames[1:]).detach().cpu().double()


def smoothness(frames: Tensor, distance: Distance) -> Smoothness:
    """How evenly ``frames`` (N, C, H, W), at even steps of the way, follow each other.

    ``distance`` may be one of :mod:`rdm_cli.metrics.reconstruction` or a perceptual one; squared ones (MSE,
    LPIPS) weigh jumps more, so compare figures of one distance and one N. Raises ValueError for fewer than
    two frames.
    """
    steps = step_distances(frames, distance)
    length, whole = float(steps.sum()), float(distance(frames[:1], frames[-1:]))
    if length == 0:
        return Smoothness(length=0.0, detour=1.0, largest_step=1.0, smoothness=1.0)
    return Smoothness(
        length=length,
        detour=length / whole if whole > 0 else float("inf"),
        largest_step=float(steps.max() / steps.mean()),
        smoothness=1 - gini(steps),
    )


def gini(values: Tensor) -> float:
    """Gini coefficient of ``values`` (N,) from 0 up: mean difference of two over twice the mean.

    0 where all are equal (or 0), (N - 1) / N where one has everything.
    """
    total = values.double().sum()
    if total == 0:
        return 0.0
    rising = values.double().sort().values
    ranks = torch.arange(1, len(values) + 1, dtype=torch.float64, device=values.device)
    return float(((2 * ranks - len(values) - 1) * rising).sum() / (len(values) * total))


def perceptual_path_lengths(x: Tensor, y: Tensor, distance: Distance, *, epsilon: float) -> Tensor:
    """What PPL is the mean of, float64 (B,): ``distance(x, y)`` over ``epsilon`` squared.

    ``x`` and ``y`` (B, C, H, W) are pictures at t and at t + ``epsilon``, t running from 0 to 1 on each way.
    Karras et al. take 1e-4 and drop the highest and lowest hundredth; in 8 bits, or where sampling is no
    smooth function of the code, a step that small shows rounding alone. Put an interval to it with
    :func:`rdm_cli.metrics.intervals.mean_estimate`. Raises ValueError for shapes that disagree and for
    an ``epsilon`` that is not positive.
    """
    if x.shape != y.shape or x.ndim != 4:
        raise ValueError(f"pictures must share one shape (B, C, H, W): {tuple(x.shape)}, {tuple(y.shape)}")
    if epsilon <= 0:
        raise ValueError(f"epsilon must be positive, not {epsilon}")
    return distance(x, y).detach().cpu().double() / epsilon**2
