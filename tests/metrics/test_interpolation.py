"""Path length and smoothness of ways whose steps are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rdm_cli.metrics.interpolation import gini, perceptual_path_lengths, smoothness, step_distances
from rdm_cli.metrics.reconstruction import mse


def grey(levels: list[float]) -> Tensor:
    """Flat pictures (N, 3, 4, 4)."""
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)


def difference(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).abs().mean(dim=(1, 2, 3))


def test_an_even_way() -> None:
    found = smoothness(grey([0.0, 0.25, 0.5, 0.75, 1.0]), difference)
    assert found.length == pytest.approx(1.0)
    assert (found.detour, found.largest_step, found.smoothness) == pytest.approx((1.0, 1.0, 1.0))


def test_one_jump() -> None:
    found = smoothness(grey([0.0, 0.0, 1.0, 1.0, 1.0]), difference)
    assert (found.length, found.detour, found.largest_step) == pytest.approx((1.0, 1.0, 4.0))
    assert found.smoothness == pytest.approx(1 / 4)


def test_a_detour() -> None:
    assert smoothness(grey([0.0, 2.0, 1.0]), difference).detour == pytest.approx(3.0)
    assert smoothness(grey([0.0, 1.0, 0.0]), difference).detour == math.inf


def test_a_way_is_as_smooth_backwards() -> None:
    frames = grey([0.0, 0.1, 0.7, 0.8])
    there, back = smoothness(frames, difference), smoothness(frames.flip(0), difference)
    assert (there.length, there.smoothness) == pytest.approx((back.length, back.smoothness))


def test_where_nothing_moves() -> None:
    found = smoothness(grey([0.3, 0.3, 0.3]), difference)
    assert (found.length, found.detour, found.largest_step, found.smoothness) == (0.0, 1.0, 1.0, 1.0)


def test_steps_one_by_one() -> None:
    steps = step_distances(grey([0.0, 1.0, 0.5]), difference)
    torch.testing.assert_close(steps, torch.tensor([1.0, 0.5], dtype=torch.float64))
    with pytest.raises(ValueError, match="two frames or more"):
        step_distances(grey([0.0]), difference)


def test_gini_by_its_definition() -> None:
    values = torch.rand(9, generator=torch.Generator().manual_seed(0))
    pairs = (values[:, None] - values[None]).abs().mean()
    assert gini(values) == pytest.approx(float(pairs / (2 * values.mean())), rel=1e-5)


@pytest.mark.parametrize("epsilon", [1e-1, 1e-2])
def test_path_length_of_a_straight_way_is_the_same_at_every_step(epsilon: float) -> None:
    """On pixels and by MSE it is the squared length of the way, however short the steps."""
    start, end = grey([-0.5]), grey([0.7])
    t = torch.tensor([0.0, 0.3, 0.6]).view(-1, 1, 1, 1)
    x, y = start + t * (end - start), start + (t + epsilon) * (end - start)
    found = perceptual_path_lengths(x, y, mse, epsilon=epsilon)
    torch.testing.assert_close(found, torch.full((3,), 0.36, dtype=torch.float64), rtol=1e-3, atol=0.0)


def test_what_has_no_path_length_is_refused() -> None:
    with pytest.raises(ValueError, match="share one shape"):
        perceptual_path_lengths(grey([0.0]), grey([0.0, 1.0]), mse, epsilon=0.1)
    with pytest.raises(ValueError, match="positive"):
        perceptual_path_lengths(grey([0.0]), grey([0.0]), mse, epsilon=0.0)
