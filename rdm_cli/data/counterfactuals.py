"""True counterfactuals: the same drawn face with one attribute changed, and nothing else.

The renderer knows what a face would look like if it smiled, or wore no hat. Where a thing is added there are
many true answers, one for each pair of glasses; where one is taken away there is one or, below a hat, one for
each hair.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rdm_cli.data.avatars import (
    BEARDS,
    CLOTH_COLOURS,
    ELSEWHERE,
    GLASSES,
    HAIR_COLOURS,
    HAIR_COLUMNS,
    HATS,
    HEADSCARVES,
    LONG_HAIR,
    MOUSTACHES,
    OTHER_MOUTHS,
    SHORT_HAIR,
    SMILES,
    SUNGLASSES,
    Avatar,
    draw_avatar,
    refuse_seed,
    require_generator,
    shared_out,
    write_picture,
)
from rdm_cli.data.io.places import put
from rdm_cli.errors import OccupiedError, UsageError
from rdm_cli.registry import nearest

_ACCESSORIES = {"glasses": GLASSES, "sunglasses": SUNGLASSES, "eyepatch": ("eyepatch",)}
_FACIAL_HAIR = {"beard": BEARDS, "moustache": MOUSTACHES}
_COVERS = {"hat": HATS, "headscarf": HEADSCARVES}
ATTRIBUTES = ("smiling", *_ACCESSORIES, *_FACIAL_HAIR, *_COVERS, *HAIR_COLUMNS)


def counterfactuals(avatar: Avatar, name: str) -> tuple[Avatar, ...]:
    """Every face that differs from ``avatar`` by the attribute ``name`` alone; none where there is no such.

    What is hidden before or after may be anything: below a hat that is taken off may be any hair. A face that
    has another thing of the kind, sunglasses where glasses are asked for, has no such counterfactual. Raises
    UsageError for an unknown attribute.
    """
    if name not in ATTRIBUTES:
        raise UsageError(f"avatars have no attribute {name!r}", hint=nearest(name, ATTRIBUTES))
    has = avatar.labels()[name]
    if has is None:
        return ()
    if name == "smiling":
        return tuple(replace(avatar, mouth=mouth) for mouth in (OTHER_MOUTHS if has else SMILES))
    if name in _ACCESSORIES:
        if has:
            return (replace(avatar, accessory=None),)
        kinds = _ACCESSORIES[name] if avatar.accessory is None else ()
        return _each(avatar, "accessory", kinds, "accessory_colour", CLOTH_COLOURS)
    if name in _FACIAL_HAIR:
        if has:
            return (replace(avatar, facial_hair=None),)
        kinds = _FACIAL_HAIR[name] if avatar.facial_hair is None else ()
        return _each(avatar, "facial_hair", kinds, "facial_hair_colour", tuple(HAIR_COLOURS))
    if name in _COVERS:
        if has:
            return _every_hair(avatar)
        kinds = () if avatar.hides_hair else _COVERS[name]
        return _each(avatar, "top", kinds, "hat_colour", CLOTH_COLOURS)
    if name == "bald":
        return _every_hair(avatar)[1:] if has else (replace(avatar, top=None),)
    if avatar.top is None:
        return ()
    if name == "long_hair":
        return tuple(replace(avatar, top=top) for top in (SHORT_HAIR if has else LONG_HAIR))
    colours = tuple(c for c, called in HAIR_COLOURS.items() if (called == name) != bool(has))
    return tuple(replace(avatar, hair_colour=colour) for colour in colours)


def _each(
    avatar: Avatar, part: str, kinds: tuple[str, ...], colour: str, colours: tuple[str, ...]
) -> tuple[Avatar, ...]:
    changes: list[dict[str, Any]] = [{part: kind, colour: one} for kind in kinds for one in colours]
    return tuple(replace(avatar, **change) for change in changes)


def _every_hair(avatar: Avatar) -> tuple[Avatar, ...]:
    """The face without a cover: bald first, then with each hair in each colour."""
    bald = replace(avatar, top=None)
    hairs = LONG_HAIR + SHORT_HAIR
    return (bald, *_each(avatar, "top", hairs, "hair_colour", tuple(HAIR_COLOURS)))


COLUMNS = ("file_name", "counterfactual_of", "attribute", "value")


def write_counterfactuals(
    folder: Path,
    *,
    attribute: str,
    num_images: int,
    size: int,
    seed: int,
    workers: int | None = None,
    force: bool = False,
) -> Iterator[Path]:
    """Write the first ``num_images`` faces that have counterfactuals, and these; yields each path, in order.

    Face i is ``<i>.png``, its counterfactuals ``<i>/<attribute>-<k>.png``; last comes ``counterfactuals.csv``
    with :data:`COLUMNS`: of each picture, which face it is of (empty: it is one), and whether it shows the
    attribute. ``workers`` None means all cores. Raises UsageError for an attribute that avatars do not have
    and for a seed below 0, RdmError where the packages that draw are missing, and OccupiedError for whatever
    else stands in their places, unless ``force`` is given.
    """
    refuse_seed(seed)
    counterfactuals(draw_avatar(seed, 0), attribute)  # an unknown one is told before any work
    require_generator()
    pictures, content = _planned(folder, attribute, num_images, seed)
    table = folder / "counterfactuals.csv"
    if not force and table.is_file() and table.read_bytes() != content:
        raise OccupiedError(f"{table}: is there already, with other pictures", hint=ELSEWHERE)
    with shared_out(len(pictures), workers) as each:
        yield from each(partial(write_picture, size=size, force=force), pictures)
    put(table, content)
    yield table


def _planned(
    folder: Path, attribute: str, num_images: int, seed: int
) -> tuple[list[tuple[Path, Avatar]], bytes]:
    """What is to be drawn into which file, and the table of it."""
    pictures: list[tuple[Path, Avatar]] = []
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    index, num_faces = 0, 0
    while num_faces < num_images:
        avatar = draw_avatar(seed, index)
        face, has = f"{index:06d}.png", int(bool(avatar.labels()[attribute]))
        index += 1
        others = counterfactuals(avatar, attribute)
        if not others:
            continue
        num_faces += 1
        for name, of, drawn, value in (
            (face, "", avatar, has),
            *(
                (f"{Path(face).stem}/{attribute}-{k:03d}.png", face, other, 1 - has)
                for k, other in enumerate(others)
            ),
        ):
            pictures.append((folder / name, drawn))
            table.writerow((name, of, attribute, value))
    return pictures, text.getvalue().encode()
