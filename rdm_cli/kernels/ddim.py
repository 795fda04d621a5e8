r"""DDIM in both directions (Song et al. 2021, eq. 12 at eta = 0): one update serves both.

    x_0    = clamp(x_t / sqrt(ab_t) - sqrt(1/ab_t - 1) eps)
    eps    = (x_t / sqrt(ab_t) - x_0) / sqrt(1/ab_t - 1)           re-derived where x_0 was clamped
    x_next = sqrt(ab_to) x_0 + sqrt(1 - ab_to) eps

Where x does not lie at the timestep that the network is asked about, x_0 is what the network says of that
timestep, and eps is re-derived for where x lies.

Decoding goes to the cleaner neighbour and ends at ab = 1; encoding goes to the noisier one and ends
at ab = 0, where x_next is eps itself: that is x_T.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor

from rdm_cli.kernels.parameterization import per_item, to_x_0
from rdm_cli.kernels.spec import EpsFn, SamplingSpec

Step = TypeVar("Step")


def predict(
    eps_fn: EpsFn,
    x_t: Tensor,
    t: Tensor,
    alpha_bar: Tensor,
    *,
    clip: bool,
    alpha_bar_asked: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(x_0, eps) at ``x_t``: ``t`` int64 (B,), ``alpha_bar`` float64 (B,), and that of ``t`` if different."""
    eps = eps_fn(x_t, t)
    x_0 = to_x_0(eps, x_t, alpha_bar if alpha_bar_asked is None else alpha_bar_asked)
    x_0 = x_0.clamp(-1, 1) if clip else x_0
    if clip or alpha_bar_asked is not None:
        recip = per_item((1 / alpha_bar).sqrt(), x_t)
        eps = (recip * x_t - x_0) / per_item((1 / alpha_bar - 1).sqrt(), x_t)
    return x_0, eps


def predict_at(
    eps_fn: EpsFn,
    x_t: Tensor,
    t: int,
    alpha_bar: Tensor,
    *,
    clip: bool,
    alpha_bar_asked: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`predict` where all of ``x_t`` (B, ...) is at one ``t``; alpha_bar is a float64 scalar."""
    batch = len(x_t)
    asked = None if alpha_bar_asked is None else alpha_bar_asked.expand(batch)
    return predict(eps_fn, x_t, timestep(t, x_t), alpha_bar.expand(batch), clip=clip, alpha_bar_asked=asked)


def timestep(t: int, x_t: Tensor) -> Tensor:
    """``t`` for each item of ``x_t`` (B, ...), as a denoiser is told: int64 (B,)."""
    return torch.full((len(x_t),), t, dtype=torch.int64, device=x_t.device)


def eps_coefficients(alpha_bar: Tensor, alpha_bar_to: Tensor) -> tuple[float, float]:
    """(r, c) such that DDIM's step without clamping is x_to = r x_t + c eps; scalars, alpha_bar above 0."""
    r = math.sqrt(alpha_bar_to / alpha_bar)
    return r, math.sqrt(1 - alpha_bar_to) - r * math.sqrt(1 - alpha_bar)


def ddim_step(
    eps_fn: EpsFn,
    x_t: Tensor,
    t: int,
    alpha_bar: Tensor,
    alpha_bar_to: Tensor,
    alpha_bar_asked: Tensor | None = None,
    *,
    clip: bool,
) -> Tensor:
    """Move ``x_t`` (B, C, H, W) from ``alpha_bar`` to ``alpha_bar_to`` (float64 scalars)."""
    x_0, eps = predict_at(eps_fn, x_t, t, alpha_bar, clip=clip, alpha_bar_asked=alpha_bar_asked)
    to = alpha_bar_to.expand(len(x_t))
    return per_item(to.sqrt(), x_t) * x_0 + per_item((1 - to).sqrt(), x_t) * eps


def ddim_decode(
    eps_fn: EpsFn, x_T: Tensor, spec: SamplingSpec, num_steps: int | None = None
) -> Iterator[Tensor]:
    """Yield x_t after each step from ``x_T``; the last is x_0."""
    x_t = x_T
    for leg in spec.trajectory(num_steps).decoding():
        x_t = ddim_step(eps_fn, x_t, *leg, clip=spec.clip_x_0)
        yield x_t


def ddim_encode(
    eps_fn: EpsFn, x_0: Tensor, spec: SamplingSpec, num_steps: int | None = None
) -> Iterator[Tensor]:
    """Yield x_t after each step from ``x_0`` in [-1, 1]; the last is x_T."""
    x_t = x_0
    for leg in spec.trajectory(num_steps).encoding():
        x_t = ddim_step(eps_fn, x_t, *leg, clip=spec.clip_x_0)
        yield x_t


def last(steps: Iterator[Step]) -> Step:
    """Run a trajectory to its end and return where it ends."""
    result: Step | None = None
    for result in steps:  # noqa: B007
        pass
    assert result is not None, "a trajectory has at least one step"
    return result
