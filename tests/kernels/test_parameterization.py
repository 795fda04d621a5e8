"""What a network predicts around a guess of the image."""

from __future__ import annotations

import pytest
import torch

from rdm_cli.kernels.parameterization import (
    add_noise,
    per_item,
    to_eps,
    to_x_0,
    training_target,
    v_around,
    weight_around,
    wiener_residual,
)
from rdm_cli.kernels.schedules import LINEAR

ALPHA_BAR = LINEAR.alpha_bar()[[0, 10, 300, 999]]
SPREAD = 0.06


def drawn(seed: int) -> torch.Tensor:
    return torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_with_spread_1_and_no_guess_the_answer_is_v() -> None:
    answer, x_t = drawn(0), drawn(1)
    torch.testing.assert_close(v_around(answer, x_t, torch.zeros_like(x_t), 1.0, ALPHA_BAR), answer)
    torch.testing.assert_close(weight_around(1.0, ALPHA_BAR), torch.ones(4, dtype=torch.float64))


def test_x_0_is_the_preconditioned_answer_around_the_guess() -> None:
    """Karras et al. 2022, eq. 7, written down as it stands there."""
    answer, x_t, guess = drawn(0), drawn(1), drawn(2)
    sigma_bar = per_item((1 / ALPHA_BAR - 1).sqrt(), x_t)
    total = SPREAD**2 + sigma_bar**2
    residual = x_t / per_item(ALPHA_BAR.sqrt(), x_t) - guess
    x_0 = guess + SPREAD**2 / total * residual - sigma_bar * SPREAD / total.sqrt() * answer
    v = v_around(answer, x_t, guess, SPREAD, ALPHA_BAR)
    torch.testing.assert_close(to_x_0(to_eps("v", v, x_t, ALPHA_BAR), x_t, ALPHA_BAR), x_0)


def test_where_noise_dominates_x_0_is_the_guess_whatever_the_noise() -> None:
    guess, most_noise = drawn(2), ALPHA_BAR[-1:].expand(4)
    answer = drawn(0).clamp(-1, 1)
    for seed in (3, 4):
        x_t = add_noise(drawn(1), drawn(seed), most_noise)
        v = v_around(answer, x_t, guess, SPREAD, most_noise)
        x_0 = to_x_0(to_eps("v", v, x_t, most_noise), x_t, most_noise)
        assert (x_0 - guess).abs().max() < 1.01 * SPREAD
        assert (
            wiener_residual(x_t, guess, SPREAD, most_noise).std() < 1e-3
        )  # and the network is shown nothing


def test_where_there_is_no_noise_the_network_is_shown_all_that_the_guess_lacks() -> None:
    x_0, guess = drawn(0), drawn(2)
    almost_one = torch.full((4,), 1 - 1e-9, dtype=torch.float64)
    seen = wiener_residual(add_noise(x_0, drawn(1), almost_one), guess, SPREAD, almost_one)
    torch.testing.assert_close(SPREAD * seen, x_0 - guess, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("t", range(4))
def test_the_weight_makes_the_loss_that_of_the_answer_times_spread_squared(t: int) -> None:
    x_0, eps, guess, answer = (drawn(i)[:1] for i in range(4))
    alpha_bar = ALPHA_BAR[t : t + 1]
    x_t = add_noise(x_0, eps, alpha_bar)
    target = training_target("v", x_0, eps, alpha_bar)
    of_one, of_two = (v_around(a, x_t, guess, SPREAD, alpha_bar) for a in (answer, answer + 1))
    torch.testing.assert_close(
        weight_around(SPREAD, alpha_bar) * (of_two - of_one).square().mean(),
        torch.tensor([SPREAD**2], dtype=torch.float64),
    )
    # an exact answer is one whose v is the target
    slope = of_two - of_one
    exact = answer + (target - of_one) / slope
    torch.testing.assert_close(v_around(exact, x_t, guess, SPREAD, alpha_bar), target)
