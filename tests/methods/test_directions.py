"""Directions: the edit's formula, its golden values, and what an unknown name is told."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from rdm_cli.errors import UsageError
from rdm_cli.methods.directions import Directions

WIDTH = 12


@pytest.fixture
def directions() -> Directions:
    generator = torch.Generator().manual_seed(0)
    return Directions(
        names=("Smiling", "glasses", "beard"),
        weight=torch.randn(3, WIDTH, generator=generator),
        bias=torch.randn(3, generator=generator),
        z_mean=torch.randn(WIDTH, generator=generator),
        z_std=torch.rand(WIDTH, generator=generator) + 0.5,
    )


@pytest.mark.parametrize("scale", [-1.5, 0.3, 2.0])
def test_shift_moves_the_standardised_code_by_scale_sqrt_d(directions: Directions, scale: float) -> None:
    z = torch.randn(4, WIDTH)
    step = (directions.shift(z, "glasses", scale) - z) / directions.z_std
    w = directions.weight[1]
    torch.testing.assert_close(step.norm(dim=1), torch.full((4,), abs(scale) * math.sqrt(WIDTH)))
    torch.testing.assert_close(step @ w / w.norm(), torch.full((4,), scale * math.sqrt(WIDTH)))


def test_shift_raises_the_logit_by_the_weights_norm(directions: Directions) -> None:
    z = torch.randn(4, WIDTH)
    rise = directions.logits(directions.shift(z, "beard", 0.5)) - directions.logits(z)
    expected = 0.5 * math.sqrt(WIDTH) * directions.weight[2].norm()
    torch.testing.assert_close(rise[:, 2], expected.expand(4), rtol=1e-5, atol=1e-5)


def test_shift_by_nothing_and_back_is_the_identity(directions: Directions) -> None:
    z = torch.randn(4, WIDTH)
    torch.testing.assert_close(directions.shift(z, "beard", 0.0), z)
    there_and_back = directions.shift(directions.shift(z, "beard", 0.7), "beard", -0.7)
    torch.testing.assert_close(there_and_back, z, rtol=1e-5, atol=1e-5)


def test_codes_that_are_maps_keep_their_shape(directions: Directions) -> None:
    z = torch.randn(2, 3, 2, 2)
    shifted = directions.shift(z, "beard", 0.3)
    assert shifted.shape == z.shape
    torch.testing.assert_close(shifted.flatten(1), directions.shift(z.flatten(1), "beard", 0.3))
    assert directions.logits(z).shape == (2, 3)


def test_an_unknown_name_lists_the_known_and_suggests_the_nearest(directions: Directions) -> None:
    with pytest.raises(UsageError, match=r"'smilling'; known: Smiling, glasses, beard; did you mean 'Smil"):
        directions.shift(torch.zeros(1, WIDTH), "smilling", 0.3)
    with pytest.raises(UsageError) as caught:
        directions.index("qqqq")
    assert caught.value.hint is None


def test_a_direction_without_weights_is_refused(directions: Directions) -> None:
    flat = Directions(
        names=("x",),
        weight=torch.zeros(1, WIDTH),
        bias=torch.zeros(1),
        z_mean=directions.z_mean,
        z_std=directions.z_std,
    )
    with pytest.raises(UsageError, match="no direction"):
        flat.shift(torch.zeros(1, WIDTH), "x", 0.3)


def test_tensors_that_disagree_are_refused(directions: Directions) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        directions.logits(torch.zeros(1, WIDTH + 1))
    with pytest.raises(ValueError, match="have shapes"):
        Directions(
            names=("a", "b"),
            weight=torch.zeros(1, WIDTH),
            bias=torch.zeros(1),
            z_mean=torch.zeros(WIDTH),
            z_std=torch.ones(WIDTH),
        )


def others(seed: int, *names: str, pattern: bool = False) -> Directions:
    generator = torch.Generator().manual_seed(seed)
    num = len(names)
    return Directions(
        names=names,
        weight=torch.randn(num, WIDTH, generator=generator),
        bias=torch.randn(num, generator=generator),
        z_mean=torch.randn(WIDTH, generator=generator),
        z_std=torch.rand(WIDTH, generator=generator) + 0.5,
        pattern=torch.randn(num, WIDTH, generator=generator) if pattern else None,
        scores={
            n: {"auroc": 0.5 + seed / 10, "average_precision": 0, "num_positive": 1, "num_labelled": 2}
            for n in names
        },
    )


@pytest.mark.parametrize("pattern", [False, True])
def test_an_update_leaves_the_others_as_they_were(directions: Directions, pattern: bool) -> None:
    """Each attribute edits and classifies as it did alone, whatever codes it was fitted on."""
    new = others(3, "beard", "hat", pattern=pattern)
    both = directions.updated(new).updated(others(4, "red"))
    assert both.names == ("Smiling", "glasses", "beard", "hat", "red")
    assert both.scores == {**new.scores, **others(4, "red").scores}
    z = torch.randn(5, WIDTH)
    for name in both.names:
        whose = next(d for d in (others(4, "red"), new, directions) if name in d.names)
        torch.testing.assert_close(both.shift(z, name, 0.3), whose.shift(z, name, 0.3))
        own, alone = both.logits(z)[:, both.index(name)], whose.logits(z)[:, whose.index(name)]
        torch.testing.assert_close(own, alone)
    assert dict(both.cosines("Smiling"))["glasses"] == pytest.approx(
        dict(directions.cosines("Smiling"))["glasses"], abs=1e-5
    )
    assert len(both.cosines("red")) == 4


def test_an_update_from_the_same_codes_shares_their_moments(directions: Directions) -> None:
    again = directions.updated(directions)
    assert again.names == directions.names and again.z_mean.shape == (WIDTH,)
    assert torch.equal(again.weight, directions.weight) and again.pattern is None
    with pytest.raises(ValueError, match="12 values in z do not go with those for 3"):
        directions.updated(
            Directions(
                names=("a",), weight=torch.zeros(1, 3), bias=torch.zeros(1), z_mean=torch.zeros(3),
                z_std=torch.ones(3),
            )
        )  # fmt: skip


def test_a_direction_that_was_hardly_learned_says_so() -> None:
    weak, fair = others(-1, "hat"), others(2, "hat")  # AUROC 0.4 and 0.7
    assert "'hat' was hardly learned: AUROC 0.40" in (weak.doubts("hat") or "")
    assert fair.doubts("hat") is None


@pytest.mark.golden
def test_golden_manipulation_and_logits(golden) -> None:
    tensors = load_file(golden("diffae") / "golden.safetensors")
    directions = Directions(
        names=tuple(str(i) for i in range(40)),
        weight=tensors["cls.weight"],
        bias=tensors["cls.bias"],
        z_mean=tensors["conds_mean"][0],
        z_std=tensors["conds_std"][0],
    )
    z = tensors["z_sem"]
    # z varies little between images there: compare the step too, relative to its own size.
    expected = tensors["manip.z.cls31.+0.3.sqrt64"]
    shifted = directions.shift(z, "31", 0.3)
    torch.testing.assert_close(shifted, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(shifted - z, expected - z, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(directions.logits(z), tensors["cls.logits"], rtol=1e-4, atol=1e-4)
    # The reference writes sqrt(512) whatever the width; here the same step is a scale sqrt(512/64) larger.
    for number in ("31", "20"):
        for sign in (-0.3, 0.3):
            expected = tensors[f"manip.z.cls{number}.{sign:+.1f}"]
            shifted = directions.shift(z, number, sign * math.sqrt(512 / 64))
            torch.testing.assert_close(shifted, expected, rtol=1e-5, atol=1e-5)
