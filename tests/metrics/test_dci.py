"""DCI: closed forms of the matrix, and codes whose disentanglement is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rdm_cli.metrics.dci import dci, disentanglement_completeness
from rdm_cli.metrics.linear_probes import hold_out

NAMES = ("a", "b", "c")


def factors(num: int = 600, dims: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Independent standard normal factors (num, dims), and for each of the first three its sign."""
    y = torch.randn(num, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return y, (y[:, :3] > 0).float()


def entropy(*shares: float) -> float:
    return -sum(p * math.log(p) for p in shares if p)


def test_one_dimension_for_each_attribute_is_perfect() -> None:
    assert disentanglement_completeness(torch.eye(4)) == pytest.approx((1.0, 1.0))
    spare = torch.cat([torch.diag(torch.tensor([1.0, 5.0])), torch.zeros(3, 2)])
    assert disentanglement_completeness(spare) == pytest.approx((1.0, 1.0))


def test_importance_without_preference_is_worth_nothing() -> None:
    assert disentanglement_completeness(torch.ones(5, 3)) == pytest.approx((0.0, 0.0))
    assert disentanglement_completeness(torch.zeros(5, 3)) == (0.0, 0.0)


def test_two_dimensions_that_share_an_attribute_are_disentangled_and_not_complete() -> None:
    """c of its attribute: two halves of it, of four dimensions: 1 - log_4 2 = 1/2."""
    importance = torch.tensor([[0.5, 0.0], [0.5, 0.0], [0.0, 0.5], [0.0, 0.5]])
    assert disentanglement_completeness(importance) == pytest.approx((1.0, 0.5))
    disentangled, complete = disentanglement_completeness(importance.T)
    assert (disentangled, complete) == pytest.approx((0.5, 1.0))


def test_a_matrix_with_weights_by_hand() -> None:
    importance = torch.tensor([[3.0, 1.0], [0.0, 2.0]])
    by_row = 4 / 6 * (1 - entropy(0.75, 0.25) / math.log(2)) + 2 / 6
    by_column = 3 / 6 + 3 / 6 * (1 - entropy(1 / 3, 2 / 3) / math.log(2))
    assert disentanglement_completeness(importance) == pytest.approx((by_row, by_column))


def test_negative_and_narrow_matrices_are_refused() -> None:
    for importance in (torch.tensor([[1.0, -1.0], [0.0, 1.0]]), torch.ones(3, 1), torch.ones(3)):
        with pytest.raises(ValueError, match="importance must be"):
            disentanglement_completeness(importance)


def test_the_factors_themselves_score_one_and_a_rotation_less() -> None:
    y, _ = factors()
    # Signs without noise are told ever better by ever larger weights, and no penalty is strong enough
    labels = (y + 0.3 * factors(seed=9)[0] > 0).float()
    held_out = hold_out(len(y), seed=0)
    angle = math.pi / 4
    turn = torch.eye(3, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    straight, turned = (
        dci(z, labels, NAMES, held_out=held_out, seed=0, num_resamples=50) for z in (y, y @ turn.T)
    )
    assert straight.disentanglement > 0.97 and straight.completeness > 0.97
    assert straight.informativeness.value > 0.9
    # two of three dimensions serve two of three attributes alike: 1/3 + 2/3 (1 - log_3 2)
    expected = 1 / 3 + 2 / 3 * (1 - math.log(2) / math.log(3))
    assert turned.disentanglement == pytest.approx(expected, abs=0.06)
    assert turned.completeness == pytest.approx(expected, abs=0.06)
    assert turned.informativeness.value > 0.9  # a rotation hides nothing from a linear classifier
    assert straight.importance.shape == (3, 3) and straight.names == NAMES


def test_noise_scores_nothing() -> None:
    _, labels = factors()
    noise, _ = factors(dims=8, seed=1)
    found = dci(noise, labels, NAMES, held_out=hold_out(len(noise), seed=0), seed=0, num_resamples=200)
    assert (found.disentanglement, found.completeness) == (0.0, 0.0)
    # the classifiers weigh nothing, whatever is drawn again: 0, and no spread to make an interval of
    assert found.informativeness.value == 0 and not found.informativeness.has_ends


def test_trees_see_what_lines_do_not() -> None:
    y, labels = factors(300)
    labels[:, 0] = (y[:, 0].abs() > 0.7).float()
    held_out = hold_out(len(y), seed=0)
    lasso, trees = (
        dci(y, labels, NAMES, held_out=held_out, seed=0, predictor=predictor, num_resamples=5)
        for predictor in ("lasso", "trees")
    )
    assert trees.disentanglement > 0.97 and trees.completeness > 0.97
    assert lasso.informativeness.value < 0.8 < trees.informativeness.value


def test_rare_attributes_are_skipped_and_one_alone_is_refused() -> None:
    y, labels = factors(80)
    labels[:, 2] = 0
    held_out = hold_out(80, seed=0)
    found = dci(y, labels, NAMES, held_out=held_out, seed=0, num_resamples=5)
    assert found.names == ("a", "b") and list(found.skipped) == ["c"]
    with pytest.raises(ValueError, match="two attributes or more"):
        dci(y, labels[:, 1:], ("b", "c"), held_out=held_out, seed=0)
