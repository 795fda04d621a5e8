"""Who judges, on what, and what counts as background."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rdm_cli.data.sources.folders import Item
from rdm_cli.evaluation.judging import border_change, court, judged_labels
from rdm_cli.evaluation.material import Labels, Material


def material(num: int) -> Material:
    items = tuple(Item(source=Path(f"{i}.png"), relative=Path(f"{i}.png")) for i in range(num))
    values = torch.stack([torch.arange(num) % 2, torch.zeros(num)], dim=1)
    return Material(
        folder=Path("f"), items=items, labels=Labels(names=("a", "b"), values=values, table=Path("t"))
    )


def test_nothing_that_is_edited_was_learned_from() -> None:
    sides = court(material(40), None, seed=0)
    edited = {item.source for item in sides.edited.items}
    learned = {item.source for item in sides.learned.items}
    assert not edited & learned and len(edited) == 10 and len(learned) == 30
    for part in (sides.edited, sides.learned):  # labels go with their images
        numbers = torch.tensor([int(item.source.stem) for item in part.items])
        assert torch.equal(part.known().values[:, 0], numbers % 2)
    other = court(material(40), material(12), seed=0)
    assert len(other.edited) == 40 and len(other.learned) == 12


def test_what_has_one_answer_alone_cannot_be_learned() -> None:
    assert judged_labels(material(40).known()).names == ("a",)


@pytest.mark.parametrize("size", [16, 64])
def test_the_border_is_the_outer_eighth(size: int) -> None:
    x = torch.zeros(2, 3, size, size)
    inside, all_over = x.clone(), x + 2 / 255
    inside[:, :, size // 8 : -size // 8, size // 8 : -size // 8] = 1.0
    assert border_change(x, inside).tolist() == [0, 0]
    torch.testing.assert_close(border_change(x, all_over), torch.ones(2))  # one level of 255
    one_row = x.clone()
    one_row[:, :, 0] = 2 / 255
    share = size / (size**2 - (size - 2 * (size // 8)) ** 2)
    torch.testing.assert_close(border_change(x, one_row), torch.full((2,), share))
