"""Implicit inversion: ordinary decoding finds back, and iterates are taken only where they are better."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rdm_cli.kernels.ddim import ddim_decode, ddim_encode, last
from rdm_cli.kernels.fixed_point import fixed_point_encode, solve
from rdm_cli.kernels.spec import EpsFn, SamplingSpec

FREE = SamplingSpec(clip_x_0=False)


def round_trip_error(eps_fn: EpsFn, x_0: Tensor, spec: SamplingSpec, n: int, **settings: int) -> float:
    x_T = last(fixed_point_encode(eps_fn, x_0, spec, n, **settings))
    assert x_T.dtype == x_0.dtype
    return float((last(ddim_decode(eps_fn, x_T, spec, n)) - x_0).square().mean().sqrt())


@pytest.mark.parametrize("spacing", ["stride", "linspace", "ahead", "karras", "log-snr"])
def test_a_gaussian_is_inverted_to_rounding(spacing: str, draw: Any, gaussian: Any) -> None:
    """Its step is linear, with one slope for all values: two calls tell the slope, and the rest is exact."""
    x_0 = 0.5 * draw(0, 3, 2, 4, 4)
    assert round_trip_error(gaussian(0.5), x_0, FREE.spaced(spacing), 6, num_iterations=3) < 1e-9


@pytest.mark.parametrize("spacing", ["stride", "log-snr"])
def test_a_mixture_is_inverted_better_the_more_iterations(spacing: str, draw: Any, mixture: Any) -> None:
    eps_fn = mixture((3, 4, 4), 0.2)
    x_0 = 0.6 * draw(99, 4, 3, 4, 4) + 0.2 * draw(1, 4, 3, 4, 4)  # draws from it; elsewhere no decode leads
    spec = FREE.spaced(spacing)
    published = last(ddim_decode(eps_fn, last(ddim_encode(eps_fn, x_0, spec, 10)), spec, 10)) - x_0
    errors = [round_trip_error(eps_fn, x_0, spec, 10, num_iterations=k) for k in (2, 4, 8)]
    assert errors[0] < float(published.square().mean().sqrt())
    assert errors[1] < errors[0] and errors[2] < errors[0] / 100


def test_network_calls(draw: Any, mixture: Any, counted: Any) -> None:
    eps_fn = counted(mixture((3,)))
    states = list(fixed_point_encode(eps_fn, draw(2, 2, 3), FREE, 5, num_iterations=4))
    assert len(states) == 5 and eps_fn.calls == 20
    assert eps_fn.timesteps == [t for t in (0, 200, 400, 600, 800) for _ in range(4)]


def test_a_batch_is_its_items(draw: Any, mixture: Any) -> None:
    eps_fn, x_0 = mixture((4,)), draw(3, 3, 4)
    whole = last(fixed_point_encode(eps_fn, x_0, FREE, 5, num_iterations=5))
    for i in range(3):
        alone = last(fixed_point_encode(eps_fn, x_0[i : i + 1], FREE, 5, num_iterations=5))
        torch.testing.assert_close(alone, whole[i : i + 1], rtol=1e-9, atol=1e-9)


def test_where_plain_iteration_diverges_mixing_does_not(draw: Any) -> None:
    """f(y) = 2 - 3 y: plain iterates triple their distance to 1/2; the secant through two of them hits it."""
    start = draw(4, 4, 3)
    torch.testing.assert_close(
        solve(lambda y: 2 - 3 * y, start, num_calls=3, memory=1),
        torch.full_like(start, 0.5),
        rtol=0,
        atol=1e-8,
    )


def test_an_iterate_whose_residual_rises_is_not_taken(draw: Any) -> None:
    """Without memory nothing is learnt from it, and the start is what remains; item by item."""
    start = draw(5, 2, 3)
    slope = torch.tensor([[-3.0], [0.5]], dtype=torch.float64)
    found = solve(lambda y: slope * y, start, num_calls=4, memory=0)
    torch.testing.assert_close(found[0], start[0], rtol=0, atol=0)
    torch.testing.assert_close(found[1], start[1] / 16, rtol=1e-12, atol=0)


def test_mixing_solves_a_linear_map_of_few_slopes(draw: Any) -> None:
    """Of m distinct slopes, m earlier iterates tell all: mixing is GMRES there (Walker & Ni 2011)."""
    slopes = torch.tensor([0.9, -2.0, 0.5], dtype=torch.float64).repeat(4)
    start = draw(6, 5, 12)
    found = solve(lambda y: slopes * y + 1, start, num_calls=8, memory=3)
    torch.testing.assert_close(found, (1 / (1 - slopes)).expand(5, 12), rtol=1e-5, atol=1e-5)


def test_what_is_solved_already_stays(draw: Any) -> None:
    """No residual and no differences: the least squares have nothing to divide by."""
    start = draw(7, 2, 3)
    torch.testing.assert_close(solve(lambda y: y, start, num_calls=4, memory=2), start, rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{"num_iterations": 0}, {"memory": -1}])
def test_nothing_is_refused_late(settings: dict[str, int], draw: Any, mixture: Any) -> None:
    with pytest.raises(ValueError, match="num_iterations="):
        next(fixed_point_encode(mixture((3,)), draw(8, 1, 3), FREE, 5, **settings))
