"""DDIM against diffusers' scheduler, against the exact denoiser of a Gaussian, and against itself."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from rdm_cli.kernels.ddim import ddim_decode, ddim_encode, last
from rdm_cli.kernels.parameterization import per_item
from rdm_cli.kernels.schedules import LINEAR
from rdm_cli.kernels.spec import EpsFn, SamplingSpec

FREE = SamplingSpec(clip_x_0=False)
ALPHA_BAR = LINEAR.alpha_bar()


def noise(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gaussian(std: float) -> EpsFn:
    """eps of images that are N(0, std^2): sqrt(1 - ab) x_t / (ab std^2 + 1 - ab)."""

    def eps_fn(x_t: Tensor, t: Tensor) -> Tensor:
        ab = per_item(ALPHA_BAR[t], x_t)
        return (1 - ab).sqrt() * x_t / (ab * std**2 + 1 - ab)

    return eps_fn


def rough(x_t: Tensor, t: Tensor) -> Tensor:
    """No denoiser of anything; its predictions of x_0 leave [-1, 1], so that clamping matters."""
    return torch.sin(3 * x_t) + 0.3 * x_t.roll(1, dims=-1) + per_item(t, x_t) / 1000


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("num_steps", [5, 20, 50, 100])
def test_every_step_is_diffusers(num_steps: int, clip: bool) -> None:
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        clip_sample=clip,
        set_alpha_to_one=True,
        timestep_spacing="leading",
        steps_offset=0,
    )
    theirs.set_timesteps(num_steps)
    spec = SamplingSpec(clip_x_0=clip)
    assert theirs.timesteps.tolist() == spec.trajectory(num_steps).t.flip(0).tolist()
    x_t = noise(0, 2, 3, 4, 4, dtype=torch.float32)
    for t, ours in zip(theirs.timesteps, ddim_decode(rough, x_t, spec, num_steps), strict=True):
        eps = rough(x_t, t.expand(2))
        expected = theirs.step(eps, t, x_t, eta=0.0, use_clipped_model_output=clip).prev_sample
        # one step from the same x_t; their tables are float32 products, off by up to 6e-5 relative
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
        x_t = ours


@pytest.mark.parametrize("std", [0.1, 1.0, 2.0])
def test_a_gaussian_is_decoded_in_closed_form(std: float) -> None:
    """Each step multiplies: by sqrt(ab ab') std^2 / v + sqrt((1-ab)(1-ab')) / v, v = ab std^2 + 1 - ab."""
    x_T = noise(1, 4, 1, 3, 3)
    path = FREE.trajectory(25)
    ab, to = path.alpha_bar, path.alpha_bar_prev
    factors = ((ab * to).sqrt() * std**2 + ((1 - ab) * (1 - to)).sqrt()) / (ab * std**2 + 1 - ab)
    expected = x_T * factors.flip(0).cumprod(0)[:, None, None, None, None]
    got = torch.stack(list(ddim_decode(gaussian(std), x_T, FREE, 25)))
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_more_steps_approach_the_flow_of_a_gaussian() -> None:
    """The flow keeps x_t / sqrt(ab std^2 + 1 - ab); DDIM is first order in it."""
    std, x_T = 0.5, noise(2, 8, 1, 2, 2)
    errors = []
    for num_steps in (50, 100, 200):
        ab = FREE.trajectory(num_steps).alpha_bar[-1]
        exact = x_T * std / (ab * std**2 + 1 - ab).sqrt()
        got = last(ddim_decode(gaussian(std), x_T, FREE, num_steps))
        errors.append(float((got - exact).norm() / exact.norm()))
    assert errors[-1] < 0.02
    for coarse, fine in pairwise(errors):
        assert fine < 0.7 * coarse  # halving the step nearly halves the error


def test_inversion_then_decoding_is_the_identity_at_many_steps() -> None:
    x_0 = noise(3, 6, 3, 4, 4) * 0.5
    errors = []
    for num_steps in (100, 1000):
        x_T = last(ddim_encode(gaussian(0.5), x_0, FREE, num_steps))
        back = last(ddim_decode(gaussian(0.5), x_T, FREE, num_steps))
        errors.append(float((back - x_0).norm() / x_0.norm()))
    assert errors[1] < 0.01 and errors[1] < 0.2 * errors[0]


def test_the_inverse_of_a_gaussian_is_standard_noise() -> None:
    """x_T of N(0, std^2) images has unit variance: x_0 / std, up to the signal left at the last step."""
    x_0 = noise(4, 50, 3, 4, 4) * 0.5
    x_T = last(ddim_encode(gaussian(0.5), x_0, FREE, 1000))
    torch.testing.assert_close(x_T, x_0 / 0.5, rtol=0.01, atol=1e-3)


def test_the_last_encoding_step_returns_eps_rederived_from_the_clamped_x_0() -> None:
    spec = SamplingSpec(clip_x_0=True)
    *_, before, x_T = ddim_encode(rough, noise(5, 2, 3, 4, 4), spec, 10)
    ab = spec.trajectory(10).alpha_bar[-1]
    t = torch.full((2,), 900)
    x_0 = ((before - (1 - ab).sqrt() * rough(before, t)) / ab.sqrt()).clamp(-1, 1)
    torch.testing.assert_close(x_T, (before - ab.sqrt() * x_0) / (1 - ab).sqrt(), rtol=1e-9, atol=1e-9)


def test_decoded_images_are_clamped_only_where_asked() -> None:
    x_T = 5 * noise(6, 2, 3, 4, 4)
    assert last(ddim_decode(rough, x_T, SamplingSpec(clip_x_0=True), 10)).abs().max() <= 1
    assert last(ddim_decode(rough, x_T, FREE, 10)).abs().max() > 1


def test_a_batch_is_its_items_and_any_trailing_shape_will_do() -> None:
    x_T = noise(7, 3, 5)
    whole = last(ddim_decode(rough, x_T, FREE, 7))
    for i in range(3):
        torch.testing.assert_close(
            last(ddim_decode(rough, x_T[i : i + 1], FREE, 7)), whole[i : i + 1], rtol=0, atol=0
        )


def test_the_way_up_is_the_way_down_between_timesteps() -> None:
    """PDAE's spacing, on a Gaussian whose denoiser is exact: what is encoded comes back."""
    spec = SamplingSpec(clip_x_0=False, spacing="linspace")
    x_0 = 0.5 * noise(4, 4, 3, 8, 8)
    coarse, fine = (
        float(
            (
                last(ddim_decode(gaussian(0.5), last(ddim_encode(gaussian(0.5), x_0, spec, n)), spec, n))
                - x_0
            ).norm()
        )
        for n in (50, 500)
    )
    # a first-order method: ten times the steps, a tenth of the error
    assert fine < coarse / 5 and fine < 0.02 * float(x_0.norm())
