"""Reversible solvers: the image comes back to rounding, the rules are the papers'; what each amplifies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from belm import belm_weight
from torch import Tensor

from rdm_cli.kernels.ddim import ddim_decode, eps_coefficients, last
from rdm_cli.kernels.reversible import TwoStates
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.kernels.two_step import Weight, bdia_weight, growth, two_states, two_step_decode, two_step_encode

FREE = SamplingSpec(clip_x_0=False)
LOG_SNR = FREE.spaced("log-snr")
Both = tuple[Callable[..., Iterator[TwoStates]], Callable[..., Iterator[Tensor]]]


def weighted(weight: Weight) -> Both:
    return partial(two_step_encode, weight=weight), partial(two_step_decode, weight=weight)


SOLVERS: dict[str, Both] = {
    "bdia": (two_step_encode, two_step_decode),
    "bdia-1": weighted(lambda *_: 1.0),
    "o-belm": weighted(belm_weight),
}
EXACT = {"dtype": torch.float64}


@pytest.mark.parametrize("spacing", ["stride", "linspace", "ahead", "karras", "log-snr", "angle"])
@pytest.mark.parametrize("name", SOLVERS)
def test_the_image_comes_back_to_the_rounding_of_float64(
    name: str, spacing: str, draw: Any, mixture: Any
) -> None:
    encode, decode = SOLVERS[name]
    eps_fn, x_0 = mixture((3, 4, 4)), 0.6 * draw(0, 2, 3, 4, 4)
    spec = FREE.spaced(spacing)
    states = last(encode(eps_fn, x_0, spec, 10, **EXACT))
    assert states.x_t.dtype == states.other.dtype == torch.float64
    back = last(decode(eps_fn, states, spec, 10, **EXACT))
    # roundings of 1e-16 of states up to 1e4 times too large (O-BELM, uneven steps), times a decode's slopes
    torch.testing.assert_close(back, x_0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_network_in_float32_is_asked_the_same_questions_both_ways(name: str, tiny_bundle: Path) -> None:
    from rdm_cli.bundles.bundle import open_bundle

    model = open_bundle(str(tiny_bundle)).model
    draws = torch.Generator().manual_seed(0)
    x_0 = torch.rand(2, 3, 16, 16, generator=draws) * 2 - 1
    with torch.no_grad():
        eps_fn = model.denoiser(model.encode(x_0))
        encode, decode = SOLVERS[name]
        states = last(encode(eps_fn, x_0, LOG_SNR, 8))
        back = last(decode(eps_fn, states, LOG_SNR, 8))
    # where a rounding of float64 tips one of float32 over, eps is off by 1e-7 there: few values are
    assert float((back - x_0).square().mean().sqrt()) < 1e-6


def test_no_clamping_whatever_the_spec_says(draw: Any, mixture: Any) -> None:
    eps_fn, x_0 = mixture((3, 4, 4)), draw(1, 2, 3, 4, 4)  # beyond [-1, 1]
    for encode, decode in SOLVERS.values():
        states = last(encode(eps_fn, x_0, SamplingSpec(clip_x_0=True), 6, **EXACT))
        back = last(decode(eps_fn, states, SamplingSpec(clip_x_0=True), 6, **EXACT))
        torch.testing.assert_close(back, x_0, rtol=0, atol=1e-9)


def test_o_belm_is_its_formula(draw: Any, mixture: Any) -> None:
    """x_bar_{i+1} = q^2 x_bar_{i-1} + (1 - q^2) x_bar_i + h_{i+1} (h_i + h_{i+1}) / h_i eps_i."""
    eps_fn, x_0 = mixture((5,)), draw(2, 3, 5)
    path = FREE.trajectory(6)
    states = list(two_step_encode(eps_fn, x_0, FREE, 6, weight=belm_weight, **EXACT))
    sigma_bar = [0.0, *(1 / path.alpha_bar - 1).sqrt().tolist()]
    alpha = [1.0, *path.alpha_bar.sqrt().tolist()]
    for i, (here, after) in enumerate(zip(states, states[1:], strict=False), start=1):
        h, h_next = sigma_bar[i] - sigma_bar[i - 1], sigma_bar[i + 1] - sigma_bar[i]
        q2 = (h_next / h) ** 2
        eps = eps_fn(here.x_t, path.t[i - 1].expand(3))
        x_bar = (
            q2 * here.other / alpha[i - 1] + (1 - q2) * here.x_t / alpha[i] + h_next * (h + h_next) / h * eps
        )
        torch.testing.assert_close(after.x_t, x_bar * alpha[i + 1], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(after.other, here.x_t, rtol=0, atol=0)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_bdia_is_its_formula(gamma: float, draw: Any, mixture: Any) -> None:
    """z_{i-1} = gamma (z_{i+1} - DDIM up) + DDIM down, as the paper writes a step of a decode."""
    eps_fn, x_T = mixture((5,)), draw(3, 3, 5)
    path = FREE.trajectory(4)
    legs = path.decoding()
    start, weight = two_states(eps_fn, x_T, FREE, 4, **EXACT), bdia_weight(FREE, 4, gamma)
    states = [start.x_t, start.other, *two_step_decode(eps_fn, start, FREE, 4, weight=weight, **EXACT)]
    for i, leg in enumerate(legs[1:], start=1):
        eps = eps_fn(states[i], torch.tensor(leg.t).expand(3))
        r_up, c_up = eps_coefficients(leg.alpha_bar, legs[i - 1].alpha_bar)
        r_down, c_down = eps_coefficients(leg.alpha_bar, leg.alpha_bar_to)
        here = states[i]
        expected = gamma * (states[i - 1] - (r_up * here + c_up * eps)) + r_down * here + c_down * eps
        torch.testing.assert_close(states[i + 1], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "encode_calls", "decode_calls"), [("bdia", 9, 6), ("o-belm", 9, 6)])
def test_network_calls(
    name: str, encode_calls: int, decode_calls: int, draw: Any, mixture: Any, counted: Any
) -> None:
    encode, decode = SOLVERS[name]
    up, down = counted(mixture((3,))), counted(mixture((3,)))
    states = list(encode(up, draw(5, 2, 3), FREE, 7))
    assert len(states) == 7 and up.calls == encode_calls
    list(decode(down, states[-1], FREE, 7))
    assert down.calls == decode_calls
    assert sorted(set(up.timesteps)) == sorted(set(down.timesteps))


def test_growth_is_the_product_of_the_weights() -> None:
    assert growth(LOG_SNR, 11, bdia_weight(LOG_SNR, 11, 0.9)) == pytest.approx(0.9**-10)
    for num_steps in (2, 5, 50):
        assert growth(FREE, num_steps, bdia_weight(FREE, num_steps)) == pytest.approx(500)
    levels = [1.0, *LOG_SNR.trajectory(11).alpha_bar.tolist()]
    sigma_bar = [math.sqrt(1 / ab - 1) for ab in levels]
    h = [b - a for a, b in zip(sigma_bar, sigma_bar[1:], strict=False)]
    expected = (h[-1] / h[0]) ** 2 * math.sqrt(levels[-1] * levels[-2] / (levels[0] * levels[1]))
    assert growth(LOG_SNR, 11, belm_weight) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["bdia", "bdia-1", "o-belm"])
def test_a_decode_divides_volumes_of_pairs_by_the_growth(name: str, gaussian: Any) -> None:
    """Of a Gaussian, whose denoiser is linear, so that a decode is a 2 x 2 matrix."""
    _, decode = SOLVERS[name]
    x_t, other = torch.eye(2, dtype=torch.float64)[:, :, None]
    *_, before, x_0 = decode(gaussian(0.5), TwoStates(x_t, other), LOG_SNR, 10, **EXACT)
    determinant = abs(float(torch.linalg.det(torch.cat([before, x_0], dim=1))))
    weights = {
        "bdia": bdia_weight(LOG_SNR, 10),
        "bdia-1": bdia_weight(LOG_SNR, 10, 1.0),
        "o-belm": belm_weight,
    }
    assert determinant == pytest.approx(1 / growth(LOG_SNR, 10, weights[name]), rel=1e-6)


def test_a_decode_amplifies_little_of_what_the_network_answers_differently(draw: Any, mixture: Any) -> None:
    """O-BELM forgets it on the way down, BDIA with gamma 1 amplifies it, its default is between."""
    eps_fn, x_0 = mixture((3, 8, 8), 0.02), 0.02 * draw(8, 1, 3, 8, 8)

    def elsewhere(x_t: Tensor, t: Tensor) -> Tensor:
        return eps_fn(x_t, t) + 1e-6 * draw(int(t[0]), *x_t.shape)

    errors = {}
    for name, (encode, decode) in SOLVERS.items():
        states = last(encode(eps_fn, x_0, LOG_SNR, 20, **EXACT))
        errors[name] = float((last(decode(elsewhere, states, LOG_SNR, 20, **EXACT)) - x_0).abs().max())
    assert errors["o-belm"] < errors["bdia"] < errors["bdia-1"]
    assert errors["o-belm"] < 1e-5 and errors["bdia"] < 1e-3


def test_o_belm_is_second_order_and_starts_from_noise_alone(gaussian: Any) -> None:
    """Decoded from x_T: the pair is made by one DDIM step, whose single error is of second order as well."""
    std, x_T = 0.5, torch.ones(1, 1, dtype=torch.float64)
    errors = []
    for n in (20, 40):
        first, *_, final = LOG_SNR.trajectory(n).alpha_bar
        lowest = ((first * std**2 + 1 - first) / (final * std**2 + 1 - final)).sqrt() * x_T
        pair = two_states(gaussian(std), x_T, LOG_SNR, n, **EXACT)
        *_, found, _ = two_step_decode(gaussian(std), pair, LOG_SNR, n, weight=belm_weight, **EXACT)
        errors.append(float((found - lowest).abs()))
    assert errors[1] < errors[0] / 3
    assert errors[0] < float((last(ddim_decode(gaussian(std), x_T, LOG_SNR, 20)) - lowest).abs())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, x: bdia_weight(FREE, 5, 0), "gamma"),
        (lambda f, x: next(two_step_encode(f, x, FREE, 5, start_iterations=0)), "first step"),
        (lambda f, x: next(two_step_encode(f, x, FREE, 1)), "at least 2 steps"),
    ],
)
def test_impossible_settings_are_refused(call: Any, message: str, draw: Any, mixture: Any) -> None:
    with pytest.raises(ValueError, match=message):
        call(mixture((3,)), draw(9, 1, 3))


def test_solvers_know_how_often_they_ask_the_network() -> None:
    """Which is what progress is told by; a decode may need one more or less at its ends."""
    from rdm_cli.kernels.solvers import State
    from rdm_cli.registry import SOLVERS, load

    calls = [0]

    def eps_fn(x_t: Tensor, t: Tensor) -> Tensor:
        calls[0] += 1
        return 0.1 * x_t

    x_0 = torch.rand(1, 3, 4, 4) * 2 - 1
    for name in SOLVERS:
        solver = load(SOLVERS, "solver", name)
        spec, state = solver.spec(SamplingSpec()), x_0
        if solver.encode is not None:
            calls[0] = 0
            ends: list[State] = list(solver.encode(eps_fn, x_0, spec, 10, solver.iterations))
            assert calls[0] == solver.calls_up(10), name
            state = ends[-1]
        calls[0] = 0
        list(solver.decode(eps_fn, state, spec, 10))
        assert abs(calls[0] - solver.calls_down(10)) <= 1, name
