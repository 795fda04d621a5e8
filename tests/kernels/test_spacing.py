"""Timesteps even in a measure of the noise: as diffusers rounds them, distinct, and where the network was
trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rdm_cli.kernels.schedules import LATENT_CONSTANT, LINEAR, ScheduleConfig
from rdm_cli.kernels.spacing import Measure, even_shares, even_timesteps
from rdm_cli.kernels.spec import SamplingSpec

MEASURES = ["karras", "log-snr", "angle"]


@pytest.mark.parametrize(
    ("measure", "word"), [("karras", "use_karras_sigmas"), ("log-snr", "use_lu_lambdas")]
)
@pytest.mark.parametrize("num_steps", [1, 2, 5, 8, 10, 15, 20, 50, 100])
def test_timesteps_are_those_of_diffusers_without_its_repetitions(
    num_steps: int, measure: str, word: str
) -> None:
    from diffusers import DPMSolverMultistepScheduler

    theirs = DPMSolverMultistepScheduler(
        beta_start=1e-4, beta_end=0.02, beta_schedule="linear", **{word: True}
    )
    theirs.set_timesteps(num_steps)
    ours = even_timesteps(LINEAR.alpha_bar(), num_steps, measure)
    once = sorted(set(theirs.timesteps.tolist()))
    if len(once) == num_steps:
        # their table is float32, which moves a point that lies half-way
        np.testing.assert_allclose(ours, once, atol=1)
    else:
        assert len(once) < num_steps == len(set(ours))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("schedule", [LINEAR, LATENT_CONSTANT])
def test_points_are_even_up_to_the_nearest_timestep(schedule: ScheduleConfig, measure: str) -> None:
    sigma_bar = (1 / schedule.alpha_bar() - 1).sqrt()
    values = {"karras": sigma_bar ** (1 / 7), "log-snr": sigma_bar.log(), "angle": sigma_bar.atan()}[measure]
    steps = even_timesteps(schedule.alpha_bar(), 8, measure)
    assert (steps[0], steps[-1]) == (0, 999)
    even = torch.linspace(float(values[0]), float(values[-1]), 8, dtype=torch.float64)
    spread = values.diff()
    for step, value in zip(steps, even, strict=True):
        assert abs(values[step] - value) <= spread[max(0, step - 1) : step + 1].max()


@given(measure=st.sampled_from(MEASURES), num_train=st.integers(1, 300), data=st.data())
def test_any_number_of_steps_is_that_many_timesteps(
    measure: str, num_train: int, data: st.DataObject
) -> None:
    num_steps = data.draw(st.integers(1, num_train))
    alpha_bar = ScheduleConfig(num_train_steps=num_train).alpha_bar()
    steps = even_timesteps(alpha_bar, num_steps, measure)
    assert len(steps) == num_steps and steps[-1] == num_train - 1
    assert all(a < b for a, b in zip(steps, steps[1:], strict=False)) and steps[0] >= 0
    assert num_steps == 1 or steps[0] == 0


@pytest.mark.parametrize("num_steps", [0, 1001])
def test_impossible_numbers_of_steps_are_refused(num_steps: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 1000"):
        even_timesteps(LINEAR.alpha_bar(), num_steps, "karras")


@pytest.mark.parametrize("measure", MEASURES)
def test_a_spec_so_spaced_leads_from_the_noisiest_timestep_to_the_image(measure: str) -> None:
    spec = SamplingSpec(clip_x_0=False).spaced(measure)
    assert not spec.clip_x_0
    legs = spec.trajectory(6).decoding()
    assert (legs[0].t, legs[-1].t, legs[-1].alpha_bar_to) == (999, 0, 1)
    for leg in legs:
        assert leg.alpha_bar == LINEAR.alpha_bar()[leg.t]


@pytest.mark.parametrize("measure", MEASURES)
def test_shares_make_draws_even_in_the_measure(measure: Measure) -> None:
    """Shares sum to 1, and as many draws fall between two points of an even grid as between any others."""
    alpha_bar = LINEAR.alpha_bar()
    shares = even_shares(alpha_bar, measure)
    assert shares.shape == (1000,) and bool((shares > 0).all())
    assert float(shares.sum()) == pytest.approx(1)
    grid = even_timesteps(alpha_bar, 5, measure)
    middle = shares.cumsum(0) - shares / 2
    quarters = middle[grid].diff()
    assert quarters.tolist() == pytest.approx([0.25] * 4, abs=0.03)
