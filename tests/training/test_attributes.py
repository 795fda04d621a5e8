"""Attribute probes on synthetic codes whose directions are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from rdm_cli.errors import RdmError
from rdm_cli.methods.directions import Directions
from rdm_cli.training.attributes import _parts, fit_attributes, scales_of

WIDTH, NUM_CODES = 16, 2000
NAMES = ("tall", "round")


def synthetic(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(z, labels, directions): labels are noisy signs along two directions of the standardised codes."""
    generator = torch.Generator().manual_seed(seed)
    normalised = torch.randn(NUM_CODES, WIDTH, generator=generator)
    truth = torch.randn(2, WIDTH, generator=generator)
    truth /= truth.norm(dim=1, keepdim=True)
    noise = 0.3 * torch.randn(NUM_CODES, 2, generator=generator)
    labels = ((normalised @ truth.T + noise) > 0.4).float()
    std = torch.rand(WIDTH, generator=generator) + 0.2
    return normalised * std + torch.randn(WIDTH, generator=generator), labels, truth


def test_known_directions_are_recovered() -> None:
    z, labels, truth = synthetic()
    fit = fit_attributes(z, labels, NAMES, seed=0)
    assert fit.directions.names == NAMES and not fit.skipped
    cosines = torch.nn.functional.cosine_similarity(fit.directions.weight, truth)
    assert cosines.min() > 0.97
    # codes here are white, so that filter and pattern are one direction
    patterns = torch.nn.functional.cosine_similarity(fit.directions.pattern, truth)
    assert patterns.min() > 0.97
    shifted = fit.directions.shift(z, "tall", 0.3)
    moved = (shifted - z) / fit.directions.z_std
    torch.testing.assert_close(moved @ truth[0], 0.3 * math.sqrt(WIDTH) * patterns[0].expand(NUM_CODES))


def test_scores_are_those_of_the_stored_weights_on_the_held_out_part() -> None:
    z, labels, _ = synthetic()
    fit = fit_attributes(z, labels, NAMES, held_out=0.25, seed=5)
    *_, test = _parts(NUM_CODES, 0.25, 5)
    assert int(test.sum()) == 500
    logits = fit.directions.logits(z[test])
    for k, name in enumerate(NAMES):
        target, scores = labels[test, k].numpy(), logits[:, k].numpy()
        assert fit.directions.scores[name]["auroc"] == pytest.approx(roc_auc_score(target, scores), abs=1e-5)
        expected = average_precision_score(target, scores)
        assert fit.directions.scores[name]["average_precision"] == pytest.approx(expected, abs=1e-4)
        assert fit.directions.scores[name]["num_positive"] == int(labels[:, k].sum())
        assert fit.directions.scores[name]["num_labelled"] == NUM_CODES


def test_the_held_out_part_is_never_learned_from() -> None:
    z, labels, _ = synthetic()
    *_, test = _parts(NUM_CODES, 0.2, 0)
    spoilt = labels.clone()
    spoilt[test] = 1 - spoilt[test]
    fit, other = (fit_attributes(z, part, NAMES, seed=0) for part in (labels, spoilt))
    assert torch.equal(fit.directions.weight, other.directions.weight)
    assert fit.directions.scores["tall"]["auroc"] > 0.95
    assert other.directions.scores["tall"]["auroc"] == pytest.approx(
        1 - fit.directions.scores["tall"]["auroc"], abs=1e-6
    )


def test_unknown_labels_are_left_out() -> None:
    z, labels, _ = synthetic()
    unknown = torch.rand(NUM_CODES, generator=torch.Generator().manual_seed(1)) < 0.5
    partial = labels.clone()
    partial[unknown, 0] = torch.nan
    fit = fit_attributes(z, partial, NAMES, seed=0, l2=0.01)
    assert fit.directions.scores["tall"]["num_labelled"] == int((~unknown).sum())
    # Values of z where the label is unknown are seen by the mean and std alone.
    alone = fit_attributes(z, partial[:, :1], NAMES[:1], seed=0, l2=0.01)
    torch.testing.assert_close(fit.directions.weight[:1], alone.directions.weight, rtol=1e-3, atol=1e-3)
    assert fit.directions.scores["tall"]["auroc"] > 0.95


def test_minus_one_counts_as_negative_as_in_celeba() -> None:
    z, labels, _ = synthetic()
    fit, signed = (fit_attributes(z, part, NAMES, seed=0, l2=0.01) for part in (labels, 2 * labels - 1))
    assert torch.equal(fit.directions.weight, signed.directions.weight)


def test_attributes_without_examples_are_named_with_the_reason() -> None:
    z, labels, _ = synthetic()
    labels = torch.cat([labels, torch.zeros(NUM_CODES, 1), torch.full((NUM_CODES, 1), torch.nan)], dim=1)
    fit = fit_attributes(z, labels, (*NAMES, "never", "unknown"), seed=0)
    assert fit.directions.names == NAMES
    assert fit.skipped["never"] == "0 positive in the training part, at least 2 needed"
    assert set(fit.skipped) == {"never", "unknown"}
    with pytest.raises(RdmError, match="no attribute has enough examples: never: 0 positive"):
        fit_attributes(z, labels[:, 2:], ("never", "unknown"), seed=0)


def test_fits_repeat_bit_for_bit_and_depend_on_the_seed() -> None:
    z, labels, _ = synthetic()
    first, again, other = (fit_attributes(z, labels, NAMES, seed=seed) for seed in (0, 0, 1))
    one, same, another = (found.directions for found in (first, again, other))
    assert torch.equal(one.weight, same.weight) and one.scores == same.scores
    assert not torch.equal(one.weight, another.weight)


def test_the_penalty_prefers_directions_among_existing_codes() -> None:
    """Two columns hold one signal; a third, nearly dead one cancels noise. Strong penalties ignore it."""
    z, labels, _ = synthetic()
    fit = fit_attributes(z, labels, NAMES, seed=0)
    weak = fit_attributes(z, labels, NAMES, seed=0, l2=1e-4)
    for name in NAMES:
        assert fit.l2[name] > 1e-3
        assert fit.directions.scores[name]["auroc"] > weak.directions.scores[name]["auroc"] - 0.005


def test_a_dead_dimension_gets_no_weight() -> None:
    z, labels, _ = synthetic()
    z[:, 3] = 1.5
    fit = fit_attributes(z, labels, NAMES, seed=0)
    assert torch.isfinite(fit.directions.weight).all()
    assert fit.directions.weight[:, 3].abs().max() < 1e-12  # L-BFGS leaves rounding


@pytest.mark.parametrize("held_out", [0.0, 1.0])
def test_wrong_arguments(held_out: float) -> None:
    z, labels, _ = synthetic()
    with pytest.raises(ValueError, match="held-out fraction"):
        fit_attributes(z, labels, NAMES, seed=0, held_out=held_out)
    with pytest.raises(ValueError, match="labels must be"):
        fit_attributes(z, labels[:-1], NAMES, seed=0)


def test_the_pattern_is_the_difference_of_the_means() -> None:
    # z_1 = 2 a + noise, z_2 = noise alone: a filter must use z_2 to cancel the noise, the pattern must not
    generator = torch.Generator().manual_seed(3)
    label = torch.arange(4000) % 2
    noise = torch.randn(4000, generator=generator)
    small = 0.1 * torch.randn(4000, 2, generator=generator)
    z = torch.stack([2.0 * label + 3 * noise, noise], dim=1) + small
    fit = fit_attributes(z, label[:, None].float(), ("a",), seed=0)
    pattern = fit.directions.pattern[0] / fit.directions.pattern[0].norm()
    weight = fit.directions.weight[0] / fit.directions.weight[0].norm()
    # in standardised z: (2 / std, 0), up to the sampling error of two means of 1600 codes
    torch.testing.assert_close(pattern, torch.tensor([1.0, 0.0]), atol=0.15, rtol=0)
    assert weight[1] < -0.5
    moved = fit.directions.shift(z[:1], "a", 0.5)
    torch.testing.assert_close(moved - z[:1], 0.5 * 2**0.5 * pattern[None] * fit.directions.z_std)


def test_scales_are_those_from_which_the_classifier_turns() -> None:
    """Along the direction of what it measures, the logit of a code grows by its weight times the step."""
    directions = Directions(
        names=("a",), weight=torch.tensor([[2.0, 0.0]]), bias=torch.tensor([1.0]), z_mean=torch.zeros(2),
        z_std=torch.ones(2), pattern=torch.tensor([[1.0, 1.0]]),
    )  # fmt: skip
    z = torch.tensor([[-1.5, 5.0], [-2.5, 0.0], [-3.5, 1.0], [1.5, 0.0]])
    needed = directions.scales_needed(z, "a")  # one scale moves each of the two values by 1
    torch.testing.assert_close(needed, torch.tensor([1.0, 2.0, 3.0, -2.0]))
    found = scales_of(directions, "a", z, torch.tensor([0.0, 0.0, 0.0, 1.0]))
    assert found["added_in_half"] == pytest.approx(2.0) and found["removed_in_half"] == pytest.approx(-2.0)
    assert found["added_in_nine_tenths"] == pytest.approx(2.8)
    blank = replace(directions, pattern=torch.zeros(1, 2))
    assert scales_of(blank, "a", z, torch.zeros(4)) == {}
