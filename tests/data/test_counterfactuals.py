"""The same face with one attribute changed: labels that differ by that one alone."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from rdm_cli.data.avatars import HAIR_COLUMNS, Avatar, draw_avatar, render
from rdm_cli.data.counterfactuals import ATTRIBUTES, counterfactuals, write_counterfactuals
from rdm_cli.errors import UsageError

COLOURS = HAIR_COLUMNS[2:]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_labels_differ_by_that_attribute_alone(name: str) -> None:
    num_faces = {0: 0, 1: 0}
    for index in range(300):
        avatar = draw_avatar(5, index)
        before, others = avatar.labels(), counterfactuals(avatar, name)
        for other in others:
            after = other.labels()
            assert before[name] is not None and after[name] == 1 - before[name]
            # what a cover hides is not known, hair has one colour, and hair that comes has a length
            free = {name}
            if name in ("hat", "headscarf", "bald"):
                free |= set(HAIR_COLUMNS)
            if name in COLOURS:
                free |= set(COLOURS)
            assert {k for k in before if before[k] != after[k]} <= free
            same = (avatar.eyes, avatar.eyebrows, avatar.skin, avatar.clothes, avatar.cloth_colour)
            assert same == (other.eyes, other.eyebrows, other.skin, other.clothes, other.cloth_colour)
            assert (avatar.background, avatar.dx, avatar.dy) == (other.background, other.dx, other.dy)
        if others:
            num_faces[int(before[name] or 0)] += 1
    assert min(num_faces.values()) > 0


def seen(avatar: Avatar) -> Avatar:
    """The avatar with one colour for whatever cannot be seen."""
    hidden = {
        "hair_colour": avatar.top is None or avatar.hides_hair,
        "hat_colour": not avatar.hides_hair,
        "accessory_colour": avatar.accessory is None,
        "facial_hair_colour": avatar.facial_hair is None,
    }
    return replace(avatar, **{name: "none" for name, is_hidden in hidden.items() if is_hidden})


def test_there_and_back_is_the_same_face() -> None:
    """What was removed can be put on again: a counterfactual has the face itself as one of its own."""
    for name in ("smiling", "glasses", "beard", "hat", "bald", "long_hair", "red_hair"):
        for index in range(40):
            avatar = draw_avatar(5, index)
            for other in counterfactuals(avatar, name)[:3]:
                assert seen(avatar) in map(seen, counterfactuals(other, name))


def test_what_excludes_the_attribute_has_no_counterfactual() -> None:
    for index in range(200):
        avatar = draw_avatar(5, index)
        if avatar.labels()["sunglasses"]:
            assert not counterfactuals(avatar, "glasses")
        if avatar.hides_hair:
            assert not counterfactuals(avatar, "long_hair")
    with pytest.raises(UsageError, match="did you mean 'smiling'"):
        counterfactuals(draw_avatar(5, 0), "smilng")


def test_pictures_differ_where_the_attribute_is() -> None:
    for index in range(30):
        avatar = draw_avatar(5, index)
        for other in counterfactuals(avatar, "smiling")[:1]:
            left, upper, right, lower = (
                ImageChops.difference(render(avatar, 64), render(other, 64)).getbbox() or (0,) * 4
            )
            assert upper > 24 and lower - upper < 30 and right - left < 40  # the mouth, and only that


def test_the_table_says_of_whom_each_picture_is(tmp_path: Path) -> None:
    paths = list(
        write_counterfactuals(tmp_path, attribute="glasses", num_images=3, size=32, seed=5, workers=1)
    )
    with (tmp_path / "counterfactuals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [str(path.relative_to(tmp_path)) for path in paths[:-1]] == [row["file_name"] for row in rows]
    faces = [row for row in rows if not row["counterfactual_of"]]
    assert len(faces) == 3
    for row in rows:
        if row["counterfactual_of"]:
            (face,) = (f for f in faces if f["file_name"] == row["counterfactual_of"])
            assert int(row["value"]) == 1 - int(face["value"])
        with Image.open(tmp_path / row["file_name"]) as picture:
            assert picture.size == (32, 32)
