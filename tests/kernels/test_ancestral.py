"""Ancestral sampling against diffusers' scheduler and the moments of a Gaussian."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rdm_cli.kernels.ancestral import ancestral_sample, noise_of
from rdm_cli.kernels.ddim import last
from rdm_cli.kernels.parameterization import per_item
from rdm_cli.kernels.schedules import LINEAR
from rdm_cli.kernels.spec import SamplingSpec

ALPHA_BAR = LINEAR.alpha_bar()


def rough(x_t: Tensor, t: Tensor) -> Tensor:
    """No denoiser of anything; its predictions of x_0 leave [-1, 1], so that clamping matters."""
    return torch.sin(3 * x_t) + 0.3 * x_t.roll(1, dims=-1) + per_item(t, x_t) / 1000


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("num_steps", [7, 20, 36, 1000])
def test_every_step_is_diffusers(num_steps: int, clip: bool) -> None:
    from diffusers import DDPMScheduler

    spec = SamplingSpec(clip_x_0=clip)
    theirs = DDPMScheduler(
        beta_start=1e-4, beta_end=0.02, beta_schedule="linear", variance_type="fixed_small", clip_sample=clip
    )
    theirs.set_timesteps(timesteps=spec.trajectory(num_steps).t.flip(0).tolist())
    draws = torch.Generator().manual_seed(1)
    x_t = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    steps = ancestral_sample(
        rough, x_t, spec, num_steps, noise_fn=lambda _: torch.randn(x_t.shape, generator=draws)
    )
    their_draws = torch.Generator().manual_seed(1)
    for t, ours in zip(theirs.timesteps, steps, strict=True):
        expected = theirs.step(rough(x_t, t.expand(2)), t, x_t, generator=their_draws).prev_sample
        # one step from the same x_t; their tables are float32, and 1 - ab/ab_prev loses 3 digits of 7
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=5e-4)
        x_t = ours


def test_noise_is_asked_for_by_step_and_not_for_the_last() -> None:
    asked: list[int] = []

    def noise_fn(step: int) -> Tensor:
        asked.append(step)
        return torch.zeros(1, 4)

    steps = list(ancestral_sample(rough, torch.ones(1, 4), SamplingSpec(), 5, noise_fn=noise_fn))
    assert len(steps) == 5 and asked == [0, 1, 2, 3]


def test_noise_of_an_x_T_is_its_own() -> None:
    """Standard normal, another at each step, and the same in any batch."""
    x_T = torch.randn(3, 2, 40, 40, generator=torch.Generator().manual_seed(0))
    first, second = (noise_of(x_T)(step) for step in (0, 1))
    assert torch.equal(noise_of(x_T[1:2])(0), first[1:2]) and first.shape == x_T.shape
    rows = torch.stack([x_T, first, second]).flatten(2).flatten(0, 1)
    assert torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 0.1
    assert abs(float(first.std()) - 1) < 0.05 and abs(float(first.mean())) < 0.05


def test_a_gaussian_keeps_its_variance() -> None:
    """With the exact denoiser of N(0, std^2) every step is linear, so the variance has a recursion.

    x' = k x + s n gives var' = k^2 var + s^2; at 1000 steps it ends at std^2. The kernel's k and s are
    read off it with noise zero and one, and must be the posterior's (eq. 7).
    """
    std = 0.5
    spec = SamplingSpec(clip_x_0=False)

    def eps_fn(x_t: Tensor, t: Tensor) -> Tensor:
        ab = per_item(ALPHA_BAR[t], x_t)
        return (1 - ab).sqrt() * x_t / (ab * std**2 + 1 - ab)

    variance = torch.tensor(1.0, dtype=torch.float64)
    path = spec.trajectory(1000)
    for i in reversed(range(1000)):
        ab, prev = path.alpha_bar[i], path.alpha_bar_prev[i]
        beta = 1 - ab / prev
        x_0_per_x_t = ab.sqrt() * std**2 / (ab * std**2 + 1 - ab)
        k = (prev.sqrt() * beta * x_0_per_x_t + (1 - beta).sqrt() * (1 - prev)) / (1 - ab)
        variance = k**2 * variance + beta * (1 - prev) / (1 - ab)
    # fixed-small variance is exact for a point and a little too small for a Gaussian
    assert float(variance) == pytest.approx(std**2, rel=0.02)

    draws = torch.Generator().manual_seed(0)
    x_T = torch.randn(20_000, 1, generator=draws, dtype=torch.float64)
    x_0 = last(
        ancestral_sample(
            eps_fn,
            x_T,
            spec,
            1000,
            noise_fn=lambda _: torch.randn(x_T.shape, generator=draws, dtype=x_T.dtype),
        )
    )
    # the variance of 20,000 draws has a relative standard error of sqrt(2 / 20000) = 1 %
    assert float(x_0.var()) == pytest.approx(float(variance), rel=0.04)
