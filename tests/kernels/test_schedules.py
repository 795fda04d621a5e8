"""Schedules against diffusers' tables and Ho et al.'s formulas; timesteps against the reference's rule."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rdm_cli.kernels.schedules import (
    LATENT_CONSTANT,
    LINEAR,
    ScheduleConfig,
    linspace_timesteps,
    respace,
    stride_timesteps,
)


def test_linear_table_is_diffusers() -> None:
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear").alphas_cumprod
    # theirs is a product of 1000 float32 factors: 1000 roundings of 6e-8
    torch.testing.assert_close(LINEAR.alpha_bar().float(), theirs, rtol=6e-5, atol=0)


def test_constant_table_is_a_power() -> None:
    n = torch.arange(1, 1001, dtype=torch.float64)
    torch.testing.assert_close(LATENT_CONSTANT.alpha_bar(), (1 - 0.008) ** n, rtol=1e-12, atol=0)


def reference_stride(num_steps: int) -> list[int] | None:
    """The reference's rule, by search: the smallest stride that gives exactly that many."""
    for stride in range(1, 1000):
        if len(range(0, 1000, stride)) == num_steps:
            return list(range(0, 1000, stride))
    return None


def test_every_valid_number_gives_the_references_timesteps() -> None:
    for num_steps in range(2, 1001):
        expected = reference_stride(num_steps)
        if expected is not None:
            assert stride_timesteps(num_steps) == expected


@given(num_train=st.integers(1, 1200), data=st.data())
def test_any_number_of_steps_is_possible(num_train: int, data: st.DataObject) -> None:
    num_steps = data.draw(st.integers(1, num_train))
    steps = stride_timesteps(num_steps, num_train)
    assert len(steps) == num_steps
    assert all(a < b for a, b in zip(steps, steps[1:], strict=False))
    assert 0 <= steps[0] and steps[-1] < num_train


@pytest.mark.parametrize("num_steps", [0, -1, 1001])
def test_impossible_numbers_of_steps_are_refused(num_steps: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 1000"):
        stride_timesteps(num_steps)


def test_respaced_chain_keeps_the_signal_of_its_timesteps() -> None:
    """The betas of the short chain multiply to the long chain's alpha_bar (Nichol & Dhariwal, eq. 19)."""
    path = respace(LINEAR, stride_timesteps(37))
    torch.testing.assert_close(torch.cumprod(1 - path.betas, dim=0), path.alpha_bar, rtol=1e-12, atol=0)
    assert path.alpha_bar_prev[0] == 1 and path.alpha_bar_next[-1] == 0
    torch.testing.assert_close(path.alpha_bar_prev[1:], path.alpha_bar[:-1], rtol=0, atol=0)
    torch.testing.assert_close(path.alpha_bar_next[:-1], path.alpha_bar[1:], rtol=0, atol=0)


def test_a_full_chain_has_the_schedules_betas() -> None:
    config = ScheduleConfig(num_train_steps=50)
    torch.testing.assert_close(respace(config, range(50)).betas, config.betas(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("steps", [[], [3, 3], [5, 2], [-1, 4], [0, 1000]])
def test_timesteps_must_ascend_within_the_schedule(steps: list[int]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        respace(LINEAR, steps)


@given(num_train=st.integers(2, 1200), data=st.data())
def test_linspace_leads_from_the_first_timestep_to_the_last(num_train: int, data: st.DataObject) -> None:
    num_steps = data.draw(st.integers(1, num_train - 1))
    steps = linspace_timesteps(num_steps, num_train)
    assert len(steps) == num_steps + 1
    assert (steps[0], steps[-1]) == (0, num_train - 1)
    assert all(a < b for a, b in zip(steps, steps[1:], strict=False))


@pytest.mark.parametrize("num_steps", [0, 1000])
def test_impossible_numbers_of_linspace_steps_are_refused(num_steps: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 999"):
        linspace_timesteps(num_steps)


def test_a_trajectory_within_its_timesteps_meets_itself() -> None:
    """Encoding's steps are decoding's, reversed, each from where the other ended; none leaves the ends."""
    path = respace(LINEAR, linspace_timesteps(10), within=True)
    up, down = path.encoding(), path.decoding()
    assert len(path) == len(up) == len(down) == 10
    assert [leg.t for leg in up] == path.t[:-1].tolist()
    assert [leg.t for leg in down] == path.t[1:].tolist()[::-1]
    for there, back in zip(up, reversed(down), strict=True):
        assert (there.alpha_bar, there.alpha_bar_to) == (back.alpha_bar_to, back.alpha_bar)
    assert (up[-1].alpha_bar_to, down[-1].alpha_bar_to) == (path.alpha_bar[-1], path.alpha_bar[0])


def test_a_trajectory_to_the_ends_goes_beyond_its_timesteps() -> None:
    path = respace(LINEAR, stride_timesteps(10))
    up, down = path.encoding(), path.decoding()
    assert len(path) == len(up) == len(down) == 10
    assert [leg.t for leg in up] == [leg.t for leg in down][::-1] == path.t.tolist()
    assert (up[-1].alpha_bar_to, down[-1].alpha_bar_to) == (0, 1)


def test_cosine_table_is_diffusers() -> None:
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod
    torch.testing.assert_close(
        ScheduleConfig(beta_kind="cosine").alpha_bar().float(), theirs, rtol=6e-5, atol=1e-9
    )
