"""Straight ways and arcs: their ends, their norms, and inputs that single out no arc."""

from __future__ import annotations

import math

import pytest
import torch

from rdm_cli.kernels.interpolation import angle, lerp, slerp

ALPHAS = torch.linspace(0, 1, 9)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("way", [lerp, slerp])
def test_ends_are_the_inputs(way) -> None:
    a, b = noise(0, 3, 8, 8), noise(1, 3, 8, 8)
    points = way(a, b, ALPHAS)
    assert points.shape == (9, 3, 8, 8) and points.dtype == torch.float32
    # the weights of an end are 1 and 0 to float64's last digit
    torch.testing.assert_close(points[0], a, rtol=0, atol=1e-7)
    torch.testing.assert_close(points[-1], b, rtol=0, atol=1e-7)


@pytest.mark.parametrize("way", [lerp, slerp])
def test_one_point_is_the_same_as_among_many(way) -> None:
    a, b = noise(0, 5), noise(1, 5)
    many = way(a, b, ALPHAS)
    for i, alpha in enumerate(ALPHAS):
        for single in (float(alpha), alpha):
            torch.testing.assert_close(way(a, b, single), many[i], rtol=0, atol=0)


def test_slerp_turns_evenly_on_the_sphere() -> None:
    """On a quarter circle the points are (cos, sin) of even angles, whatever the dimension."""
    a, b = torch.zeros(2, 50), torch.zeros(2, 50)
    a[0, 0], b[1, 7] = 1.0, 1.0
    points = slerp(a, b, ALPHAS)
    angles = ALPHAS.double() * math.pi / 2
    torch.testing.assert_close(points[:, 0, 0].double(), angles.cos(), rtol=0, atol=1e-7)
    torch.testing.assert_close(points[:, 1, 7].double(), angles.sin(), rtol=0, atol=1e-7)


def test_slerp_keeps_the_norm_of_noise_and_lerp_does_not() -> None:
    a, b = noise(0, 3, 32, 32), noise(1, 3, 32, 32)
    norms = slerp(a, b, ALPHAS).flatten(1).norm(dim=1) / math.sqrt(a.numel())
    # two Gaussian vectors of 3072 values: norms within 1/sqrt(2 * 3072) = 1.3 % of each other
    torch.testing.assert_close(norms, torch.ones(9), rtol=0, atol=0.05)
    assert lerp(a, b, 0.5).norm() / math.sqrt(a.numel()) < 0.75


@pytest.mark.parametrize("factor", [1.0, 2.0, 1 + 1e-7, -1.0, -3.0, 0.0])
def test_parallel_and_opposite_inputs_go_straight(factor: float) -> None:
    a = noise(0, 3, 4, 4)
    points = slerp(a, a * factor, ALPHAS)
    assert points.isfinite().all()
    torch.testing.assert_close(points, lerp(a, a * factor, ALPHAS))


def test_arcs_and_straight_ways_meet_where_the_angle_vanishes() -> None:
    """No jump at the threshold: a hair above it, the arc differs from the straight way by theta^2."""
    a = noise(0, 100).double()
    for tilt in (1e-7, 1e-6, 1e-5):
        b = a + tilt * noise(1, 100).double()
        torch.testing.assert_close(slerp(a, b, ALPHAS), lerp(a, b, ALPHAS), rtol=0, atol=1e-9)


def test_angles_are_exact_where_an_arccosine_is_not() -> None:
    for theta in (0.0, 1e-9, 1e-5, 0.5, math.pi / 2, math.pi - 1e-9, math.pi):
        a = torch.tensor([1.0, 0.0], dtype=torch.float64)
        b = 3 * torch.tensor([math.cos(theta), math.sin(theta)], dtype=torch.float64)
        assert float(angle(a, b)) == pytest.approx(theta, rel=1e-9, abs=1e-15)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        slerp(torch.ones(3), torch.ones(4), 0.5)
    with pytest.raises(ValueError, match="alpha"):
        lerp(torch.ones(3), torch.ones(3), torch.ones(2, 2))
