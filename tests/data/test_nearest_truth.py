"""The nearest of all true pictures: found from two drawings of a kind, and the one that drawing all finds."""

from __future__ import annotations

import pytest
import torch

from rdm_cli.data.avatars import LONG_HAIR, SHORT_HAIR, draw_avatar
from rdm_cli.data.counterfactuals import ATTRIBUTES, counterfactuals
from rdm_cli.data.nearest_truth import Truths

SIZE = 32


def faces(name: str, num: int = 2) -> list[tuple[int, int]]:
    """Index and number of counterfactuals of the first faces that have some, on each side."""
    found: dict[int | None, list[tuple[int, int]]] = {0: [], 1: []}
    index = 0
    while min(map(len, found.values())) < num:
        avatar = draw_avatar(5, index)
        if others := counterfactuals(avatar, name):
            found[avatar.labels()[name]].append((index, len(others)))
        index += 1
    return [one for side in found.values() for one in side[:num]]


@pytest.mark.parametrize("name", ("smiling", "glasses", "beard", "hat", "bald", "brown_hair"))
def test_distances_are_those_of_every_picture_drawn(name: str) -> None:
    for index, num in faces(name, 1):
        others = counterfactuals(draw_avatar(5, index), name)
        truths = Truths(others, SIZE)
        generator = torch.Generator().manual_seed(index)
        picture = truths.picture(others[num // 2]).float()
        picture = (picture + 20 * torch.randn(picture.shape, generator=generator)).clamp(0, 255).byte()
        every = range(0, num, max(1, num // 12))
        drawn = torch.stack([truths.picture(others[k]) for k in every]).float()
        exact = (drawn - picture.float()).square().flatten(1).sum(dim=1)
        found = truths.distances(picture)
        assert found.shape == (num,)
        torch.testing.assert_close(found[list(every)], exact, rtol=0.005, atol=0)  # rounding of the drawing


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_true_picture_is_nearest_to_itself(name: str) -> None:
    for index, num in faces(name, 1):
        others = counterfactuals(draw_avatar(5, index), name)
        truths = Truths(others, SIZE)
        for k in {0, num // 2, num - 1}:
            picture = truths.picture(others[k])
            assert torch.equal(truths.picture(truths.nearest(picture)), picture)


def test_a_kind_is_drawn_twice_whatever_the_number_of_its_colours() -> None:
    (index, num) = next(one for one in faces("hat", 3) if one[1] > 100)  # a hat to be taken off
    truths = Truths(counterfactuals(draw_avatar(5, index), "hat"), SIZE)
    kinds = len(LONG_HAIR + SHORT_HAIR)
    assert num == 10 * kinds + 1 and len(truths._drawn) == 2 * kinds + 1


def test_without_a_true_picture_there_is_no_nearest() -> None:
    with pytest.raises(ValueError, match="no true pictures"):
        Truths((), SIZE)
