r"""Ancestral sampling (Ho et al. 2020, eq. 6 and 7): the posterior of the forward chain, step by step.

    x_{t-1} = sqrt(ab_prev) beta / (1 - ab) x_0 + sqrt(1 - beta) (1 - ab_prev) / (1 - ab) x_t
              + sqrt(beta (1 - ab_prev) / (1 - ab)) n,    n ~ N(0, I)

The variance is the posterior's own ("fixed small") or, as LRDM has it, beta ("fixed large"). With fewer
steps than T the chain is the respaced one, whose beta is 1 - ab / ab_prev (Nichol & Dhariwal 2021, eq. 19).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from rdm_cli.kernels.ddim import predict
from rdm_cli.kernels.parameterization import per_item
from rdm_cli.kernels.randomness import keyed_noise
from rdm_cli.kernels.spec import EpsFn, SamplingSpec, Variance

NoiseFn = Callable[[int], Tensor]
"""Number of the step, from 0 at the noisiest, to standard normal noise of x_T's shape."""


def ancestral_step(
    eps_fn: EpsFn,
    x_t: Tensor,
    t: int,
    alpha_bar: Tensor,
    alpha_bar_prev: Tensor,
    noise: Tensor | None,
    *,
    clip: bool,
    variance: Variance = "posterior",
) -> Tensor:
    """Move ``x_t`` (B, C, H, W) to the next cleaner step; ``noise`` None is for the last, which adds none.

    ``alpha_bar`` and ``alpha_bar_prev`` are float64 scalars, ``noise`` is of x_t's shape.
    """
    batch = x_t.shape[0]
    t_batch = torch.full((batch,), t, dtype=torch.int64, device=x_t.device)
    x_0, _ = predict(eps_fn, x_t, t_batch, alpha_bar.expand(batch), clip=clip)
    beta = 1 - alpha_bar / alpha_bar_prev
    towards_x_0 = alpha_bar_prev.sqrt() * beta / (1 - alpha_bar)
    towards_x_t = (1 - beta).sqrt() * (1 - alpha_bar_prev) / (1 - alpha_bar)
    mean = per_item(towards_x_0.expand(batch), x_t) * x_0 + per_item(towards_x_t.expand(batch), x_t) * x_t
    if noise is None:
        return mean
    spread = beta if variance == "beta" else beta * (1 - alpha_bar_prev) / (1 - alpha_bar)
    return mean + per_item(spread.sqrt().expand(batch), x_t) * noise


def noise_of(x_T: Tensor) -> NoiseFn:
    """Noise for each step that each x_T of the batch (B, ...) determines, so that a code has one picture.

    Where, when and beside what else it is sampled makes no difference.
    """
    keys = [hashlib.sha256(row.contiguous().numpy().tobytes()).hexdigest() for row in x_T.float().cpu()]
    return lambda step: keyed_noise(step, keys, x_T.shape[1:], "ancestral").to(x_T.device)


def ancestral_sample(
    eps_fn: EpsFn,
    x_T: Tensor,
    spec: SamplingSpec,
    num_steps: int | None = None,
    *,
    noise_fn: NoiseFn,
) -> Iterator[Tensor]:
    """Yield x_t after each step from ``x_T``; the last is x_0. ``noise_fn`` is asked N - 1 times."""
    legs = spec.trajectory(num_steps).decoding()
    x_t = x_T
    for step, leg in enumerate(legs):
        noise = noise_fn(step) if step < len(legs) - 1 else None
        t, alpha_bar, alpha_bar_prev, _ = leg
        x_t = ancestral_step(
            eps_fn, x_t, t, alpha_bar, alpha_bar_prev, noise, clip=spec.clip_x_0, variance=spec.variance
        )
        yield x_t
