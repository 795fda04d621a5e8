"""DPM-Solver++(2M), UniPC and Heun: diffusers' schedulers of that name on the same nodes; their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from rdm_cli.kernels.ddim import ddim_decode, ddim_step, last
from rdm_cli.kernels.heun import heun_decode
from rdm_cli.kernels.multistep import dpm_solver_decode, unipc_decode
from rdm_cli.kernels.schedules import LATENT_CONSTANT, LINEAR, ScheduleConfig
from rdm_cli.kernels.spec import EpsFn, SamplingSpec

FREE = SamplingSpec(clip_x_0=False)
SOLVERS = {"dpm++": dpm_solver_decode, "unipc": unipc_decode, "heun": heun_decode}
Decode = Callable[..., Iterator[Tensor]]


def theirs(name: str, spec: SamplingSpec, num_steps: int) -> Any:
    """diffusers' scheduler ``name`` on the nodes of ``spec``, in float64.

    Its own are the same timesteps at noise levels that lie between them, in a float32 table (test_spacing).
    """
    from diffusers import DPMSolverMultistepScheduler, HeunDiscreteScheduler, UniPCMultistepScheduler

    legs = spec.trajectory(num_steps).decoding()
    assert legs[-1].alpha_bar_to == 1
    sigmas = torch.stack([(1 / leg.alpha_bar - 1).sqrt() for leg in legs] + [torch.zeros(()).double()])
    timesteps = torch.tensor([leg.t for leg in legs])
    if name == "heun":
        scheduler = HeunDiscreteScheduler(clip_sample=spec.clip_x_0)
        scheduler.set_timesteps(num_steps)
        scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
        scheduler.timesteps = torch.cat([timesteps[:1], timesteps[1:].repeat_interleave(2)])
        return scheduler
    kind = {"dpm++": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}[name]
    # thresholding at a largest value of 1 is clamping
    scheduler = kind(solver_order=2, thresholding=spec.clip_x_0, sample_max_value=1.0)
    scheduler.set_timesteps(num_steps)
    scheduler.sigmas, scheduler.timesteps = sigmas, timesteps
    return scheduler


def their_decode(name: str, eps_fn: EpsFn, x_T: Tensor, spec: SamplingSpec, num_steps: int) -> list[Tensor]:
    """x_t after each step, by diffusers."""
    scheduler = theirs(name, spec, num_steps)
    table = spec.schedule.alpha_bar()
    x_t, states = x_T, []
    if name != "heun":
        for t in scheduler.timesteps:
            x_t = scheduler.step(eps_fn(x_t, t.expand(len(x_t))), t, x_t).prev_sample
            states.append(x_t)
        return states
    x_bar = x_T / table[scheduler.timesteps[0]].sqrt()  # x_t with a signal of 1
    for call, t in enumerate(scheduler.timesteps):
        asked = scheduler.scale_model_input(x_bar, t)
        x_bar = scheduler.step(eps_fn(asked, t.expand(len(asked))), t, x_bar).prev_sample
        if call % 2 == 1:
            states.append(x_bar * table[t].sqrt())
    return [*states, x_bar]


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("spacing", ["stride", "karras", "log-snr"])
@pytest.mark.parametrize("num_steps", [2, 8, 20])
@pytest.mark.parametrize("name", SOLVERS)
def test_every_step_is_diffusers(
    name: str, num_steps: int, spacing: str, clip: bool, draw: Any, mixture: Any
) -> None:
    spec = SamplingSpec(clip_x_0=clip, spacing=spacing)
    eps_fn, x_T = mixture((3, 4, 4)), draw(0, 2, 3, 4, 4)
    ours = list(SOLVERS[name](eps_fn, x_T, spec, num_steps))
    expected = their_decode(name, eps_fn, x_T, spec, num_steps)
    # UniPC and Heun are float64 throughout. DPM-Solver++ rounds x to float32 before each step (6e-8), which
    # eps and later steps carry on, some tenfold
    tolerance = 3e-6 if name == "dpm++" else 1e-9
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, other.double(), rtol=tolerance, atol=tolerance)
    assert not clip or ours[-1].abs().max() <= 1 + 1e-12


@pytest.mark.parametrize("spacing", ["stride", "karras", "log-snr"])
@pytest.mark.parametrize("name", SOLVERS)
def test_the_latent_priors_schedule_and_shape(name: str, spacing: str, draw: Any, mixture: Any) -> None:
    """Vectors (B, d), constant betas of 0.008: 3e-4 of the signal are left at the last timestep."""
    spec = SamplingSpec(schedule=LATENT_CONSTANT, clip_x_0=False, spacing=spacing)
    eps_fn, x_T = mixture((7,), 0.3, LATENT_CONSTANT), draw(1, 5, 7)
    ours = last(SOLVERS[name](eps_fn, x_T, spec, 10))
    expected = their_decode(name, eps_fn, x_T, spec, 10)[-1].double()
    torch.testing.assert_close(ours, expected, rtol=3e-6, atol=3e-6)


FINE = ScheduleConfig(beta_start=1e-6, beta_end=2e-4, num_train_steps=100_000)
"""The linear schedule with a hundred times the timesteps: rounding to them hardly moves a node."""


@pytest.mark.parametrize(
    ("decode", "order"), [(ddim_decode, 1), (dpm_solver_decode, 2), (unipc_decode, 2), (heun_decode, 2)]
)
@pytest.mark.parametrize("spacing", ["karras", "log-snr"])
def test_the_error_falls_with_the_order(decode: Decode, order: int, spacing: str, gaussian: Any) -> None:
    """Of a Gaussian's flow, x_t / sqrt(ab std^2 + 1 - ab), to the first timestep; then of a DDIM step."""
    std, spec = 0.5, SamplingSpec(schedule=FINE, clip_x_0=False, spacing=spacing)
    eps_fn, x_T = gaussian(std, FINE), torch.ones(1, 1, dtype=torch.float64)
    first, final = spec.trajectory(2).alpha_bar
    lowest = ((first * std**2 + 1 - first) / (final * std**2 + 1 - final)).sqrt() * x_T
    exact = ddim_step(eps_fn, lowest, 0, first, torch.ones_like(first), clip=False)
    errors = [float((last(decode(eps_fn, x_T, spec, n)) - exact).abs()) for n in (20, 40, 80)]
    for coarse, fine in pairwise(errors):
        # the order is that of small steps; half a power is left for these
        assert fine < coarse / 2 ** (order - 0.5)


@pytest.mark.parametrize(("name", "calls"), [("dpm++", 6), ("unipc", 6), ("heun", 11)])
def test_network_calls(name: str, calls: int, draw: Any, mixture: Any, counted: Any) -> None:
    eps_fn = counted(mixture((2,)))
    states = list(SOLVERS[name](eps_fn, draw(3, 2, 2), FREE.spaced("karras"), 6))
    assert len(states) == 6 and eps_fn.calls == calls
    assert eps_fn.timesteps[0] == 999 and eps_fn.timesteps[-1] == 0


@pytest.mark.parametrize("name", SOLVERS)
def test_one_step_is_ddims(name: str, draw: Any, mixture: Any) -> None:
    eps_fn, x_T = mixture((3,)), draw(4, 2, 3)
    for spacing in ("stride", "log-snr"):
        spec = FREE.spaced(spacing)
        expected = last(ddim_decode(eps_fn, x_T, spec, 1))
        torch.testing.assert_close(last(SOLVERS[name](eps_fn, x_T, spec, 1)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_trajectory_that_ends_at_the_first_timestep(name: str, draw: Any, gaussian: Any) -> None:
    """PDAE's, even in t: its last step is by far the longest in log-SNR."""
    spec, std, x_T = SamplingSpec(clip_x_0=False, spacing="linspace"), 0.5, draw(5, 4, 3)
    first, final = LINEAR.alpha_bar()[[0, 999]]
    exact = ((first * std**2 + 1 - first) / (final * std**2 + 1 - final)).sqrt() * x_T
    error = (last(SOLVERS[name](gaussian(std), x_T, spec, 20)) - exact).norm()
    assert error < (last(ddim_decode(gaussian(std), x_T, spec, 20)) - exact).norm()


@pytest.mark.parametrize("name", SOLVERS)
def test_a_batch_is_its_items_in_its_own_precision(name: str, draw: Any, mixture: Any) -> None:
    x_T = draw(6, 3, 5).float()
    eps_fn = mixture((5,))
    spec = SamplingSpec(spacing="karras")
    whole = last(SOLVERS[name](eps_fn, x_T, spec, 7))
    assert whole.dtype == torch.float32
    for i in range(3):
        alone = last(SOLVERS[name](eps_fn, x_T[i : i + 1], spec, 7))
        torch.testing.assert_close(alone, whole[i : i + 1], rtol=1e-5, atol=1e-5)
