"""Drawn faces with exact labels: DiceBear's rendering of Pablo Stanley's Avataaars.

Everything that an avatar shows is drawn here, from a generator keyed by (seed, index), and handed to
DiceBear as fixed options: so image ``i`` of a seed is the same whatever ``--n`` is, and on however
many cores. A label says what can be *seen*: hair columns are empty under a hat.

An avatar's *signature* is what no other part can hide (skin, background, mouth, top, accessories,
facial hair, position). Its hash chooses one of 64 buckets, and a seed draws only from bucket
``seed % 64``: sets of two seeds that differ there cannot share a picture.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rdm_cli.data.io.places import put
from rdm_cli.errors import OccupiedError, RdmError, UsageError

NUM_BUCKETS = 64
CHUNK = 16
"""Avatars that a worker draws before it asks for more."""

SMILES = ("smile", "twinkle", "default")
OTHER_MOUTHS = ("sad", "serious", "concerned", "disbelief", "screamOpen")
EYES = ("closed", "default", "happy", "side", "squint", "surprised", "wink")
EYEBROWS = (
    "angry", "angryNatural", "default", "defaultNatural", "flatNatural", "raisedExcited",
    "raisedExcitedNatural", "sadConcerned", "sadConcernedNatural", "unibrowNatural", "upDown",
    "upDownNatural",
)  # fmt: skip
GLASSES = ("prescription01", "prescription02", "round")
SUNGLASSES = ("kurt", "sunglasses", "wayfarers")
BEARDS = ("beardLight", "beardMajestic", "beardMedium")
MOUSTACHES = ("moustacheFancy", "moustacheMagnum")
HATS = ("hat", "winterHat02", "winterHat03", "winterHat04", "winterHat1")
HEADSCARVES = ("hijab", "turban")
LONG_HAIR = (
    "bigHair", "bob", "curly", "curvy", "dreads", "fro", "froBand", "longButNotTooLong",
    "miaWallace", "shavedSides", "straight01", "straight02", "straightAndStrand",
)  # fmt: skip
SHORT_HAIR = (
    "bun", "dreads01", "dreads02", "frida", "frizzle", "shaggy", "shaggyMullet", "shortCurly",
    "shortFlat", "shortRound", "shortWaved", "sides", "theCaesar", "theCaesarAndSidePart",
)  # fmt: skip
CLOTHES = (
    "blazerAndShirt", "blazerAndSweater", "collarAndSweater", "hoodie", "overall",
    "shirtCrewNeck", "shirtScoopNeck", "shirtVNeck",
)  # fmt: skip
HAIR_COLOURS = {
    "2c1b18": "black_hair",
    "4a312c": "brown_hair",
    "724133": "brown_hair",
    "a55728": "brown_hair",
    "b58143": "blond_hair",
    "d6b370": "blond_hair",
    "ecdcbf": "blond_hair",
    "e8e1e1": "grey_hair",
    "c93305": "red_hair",
    "f59797": "pink_hair",
}
SKIN_COLOURS = ("614335", "d08b5b", "ae5d29", "edb98a", "ffdbb4", "fd9841", "f8d25c")
CLOTH_COLOURS = (
    "262e33", "65c9ff", "5199e4", "25557c", "e6e6e6", "929598", "3c4f5c", "b1e2ff", "a7ffc4",
    "ffdeb5", "ffafb9", "ffffb1", "ff488e", "ff5c5c", "ffffff",
)  # fmt: skip
BACKGROUNDS = ("b6e3f4", "c0aede", "d1d4f9", "ffd5dc", "ffdfbf", "d9f2d0")

HAIR_COLUMNS = ("long_hair", "bald", *dict.fromkeys(HAIR_COLOURS.values()))
COLUMNS = (
    "smiling", "glasses", "sunglasses", "eyepatch", "beard", "moustache", "hat", "headscarf",
    *HAIR_COLUMNS,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Avatar:
    """One drawn face: DiceBear's options, and the crop's offset from its usual place in 64ths."""

    top: str | None
    hair_colour: str
    cloth_colour: str
    hat_colour: str
    accessory: str | None
    accessory_colour: str
    facial_hair: str | None
    facial_hair_colour: str
    mouth: str
    eyes: str
    eyebrows: str
    skin: str
    clothes: str
    background: str
    dx: int
    dy: int

    @property
    def hides_hair(self) -> bool:
        """Whether a hat or a headscarf covers all hair."""
        return self.top in HATS or self.top in HEADSCARVES

    def bucket(self) -> int:
        """Which of the 64 disjoint sets this face belongs to."""
        signature = (
            self.skin, self.background, self.mouth, self.top, self.accessory, self.facial_hair,
            self.dx, self.dy,
        )  # fmt: skip
        return hashlib.sha256(repr(signature).encode()).digest()[0] % NUM_BUCKETS

    def labels(self) -> dict[str, int | None]:
        """Visible attributes as 1 or 0; None where something hides the answer."""
        has_hair = self.top in LONG_HAIR or self.top in SHORT_HAIR
        row: dict[str, int | None] = {
            "smiling": int(self.mouth in SMILES),
            "glasses": int(self.accessory in GLASSES),
            "sunglasses": int(self.accessory in SUNGLASSES),
            "eyepatch": int(self.accessory == "eyepatch"),
            "beard": int(self.facial_hair in BEARDS),
            "moustache": int(self.facial_hair in MOUSTACHES),
            "hat": int(self.top in HATS),
            "headscarf": int(self.top in HEADSCARVES),
            "long_hair": int(self.top in LONG_HAIR),
            "bald": int(self.top is None),
        }
        for colour in HAIR_COLUMNS[2:]:
            row[colour] = int(has_hair and HAIR_COLOURS[self.hair_colour] == colour)
        if self.hides_hair:
            row.update(dict.fromkeys(HAIR_COLUMNS))
        return row

    def options(self) -> dict[str, Any]:
        """DiceBear's options that draw exactly this face."""
        chosen = {
            "top": self.top,
            "accessories": self.accessory,
            "facialHair": self.facial_hair,
        }
        options: dict[str, Any] = {"seed": "rdm"}
        for component, variant in chosen.items():
            options[f"{component}Probability"] = 0 if variant is None else 100
            if variant is not None:
                options[f"{component}Variant"] = [variant]
        fixed = {
            "mouthVariant": self.mouth,
            "eyesVariant": self.eyes,
            "eyebrowsVariant": self.eyebrows,
            "clothesVariant": self.clothes,
            "hairColor": self.hair_colour,
            "hatColor": self.hat_colour,
            "clothesColor": self.cloth_colour,
            "accessoriesColor": self.accessory_colour,
            "facialHairColor": self.facial_hair_colour,
            "skinColor": self.skin,
            "backgroundColor": self.background,
        }
        return options | {name: [value] for name, value in fixed.items()}


def draw_avatar(seed: int, index: int) -> Avatar:
    """Draw face ``index`` of ``seed``; a pure function of the two."""
    rng = np.random.default_rng([seed, index])
    while True:
        avatar = _draw(lambda options: options[int(rng.integers(len(options)))], rng.random)
        if avatar.bucket() == seed % NUM_BUCKETS:
            return avatar


def _draw(
    pick: Callable[[tuple[str, ...]], str],
    uniform: Callable[[], float],
) -> Avatar:
    kind = uniform()
    top: str | None
    if kind < 0.05:
        top = None
    elif kind < 0.25:
        top = pick(HATS)
    elif kind < 0.30:
        top = pick(HEADSCARVES)
    else:
        top = pick(LONG_HAIR + SHORT_HAIR)
    kind = uniform()
    accessory: str | None = None
    if kind < 0.20:
        accessory = pick(GLASSES)
    elif kind < 0.35:
        accessory = pick(SUNGLASSES)
    elif kind < 0.37:
        accessory = "eyepatch"
    kind = uniform()
    facial_hair = pick(BEARDS) if kind < 0.2 else pick(MOUSTACHES) if kind < 0.3 else None
    offsets = tuple(str(i) for i in range(-2, 3))
    return Avatar(
        top=top,
        hair_colour=pick(tuple(HAIR_COLOURS)),
        hat_colour=pick(CLOTH_COLOURS),
        cloth_colour=pick(CLOTH_COLOURS),
        accessory=accessory,
        accessory_colour=pick(CLOTH_COLOURS),
        facial_hair=facial_hair,
        facial_hair_colour=pick(tuple(HAIR_COLOURS)),
        mouth=pick(SMILES if uniform() < 0.5 else OTHER_MOUTHS),
        eyes=pick(EYES),
        eyebrows=pick(EYEBROWS),
        skin=pick(SKIN_COLOURS),
        clothes=pick(CLOTHES),
        background=pick(BACKGROUNDS),
        dx=int(pick(offsets)),
        dy=int(pick(offsets)),
    )


@cache
def _style() -> Any:
    from dicebear import Style

    source = files("dicebear_styles").joinpath("avataaars.json").read_text("utf-8")
    return Style(json.loads(source))


def refuse_seed(seed: int) -> None:
    """Raise UsageError for a seed that avatars are not drawn for."""
    if seed < 0:
        raise UsageError(f"--seed {seed}: avatars are drawn for seeds from 0 on")


def require_generator() -> None:
    """Raise RdmError where the optional packages that draw avatars are missing."""
    try:
        import dicebear  # noqa: F401
        import dicebear_styles  # noqa: F401
        import resvg_py  # noqa: F401
    except ImportError as error:
        raise RdmError(
            f"drawing avatars needs the package {error.name}, which is not installed",
            hint="pip install 'rdm-cli[demo]'",
        ) from error


def render(avatar: Avatar, size: int) -> Image.Image:
    """Rasterise the face alone, ``size`` x ``size`` pixels, RGB: about 55 % of the drawing's side."""
    import dicebear
    import resvg_py

    side = round(size * 116 / 64)
    svg = dicebear.Avatar(_style(), avatar.options()).to_json()["svg"]
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, skip_system_fonts=True))
    left = round((26 + avatar.dx) * size / 64)
    upper = round((14 + avatar.dy) * size / 64)
    with Image.open(io.BytesIO(png)) as drawing:
        return drawing.convert("RGB").crop((left, upper, left + size, upper + size))


ELSEWHERE = "name another folder, or replace it with --force"


def _name(index: int) -> str:
    return f"{index:06d}.png"


def _write_one(index: int, *, folder: Path, seed: int, size: int, force: bool) -> tuple[Path, str]:
    """Draw face ``index`` into its file; gives the file's path and the face's line of metadata.csv."""
    avatar = draw_avatar(seed, index)
    path = write_picture((folder / _name(index), avatar), size=size, force=force)
    return path, _line([path.name, *avatar.labels().values()])


def write_picture(drawn: tuple[Path, Avatar], *, size: int, force: bool) -> Path:
    """Draw a face into its file, and give its path; raises OccupiedError where another picture is there."""
    (path, avatar), content = drawn, io.BytesIO()
    render(avatar, size).save(content, format="PNG")
    if not force and path.is_file() and path.read_bytes() != content.getvalue():
        raise OccupiedError(f"{path}: is there already, and is another picture", hint=ELSEWHERE)
    put(path, content.getvalue())
    return path


def _labels_line(index: int, *, seed: int) -> str:
    return _line([_name(index), *draw_avatar(seed, index).labels().values()])


def _line(cells: Iterable[object]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


_HEADER = _line(["file_name", *COLUMNS])
"""Of metadata.csv: after it a line an avatar, so that the file of more avatars begins with that of fewer."""


def write_avatars(
    folder: Path,
    *,
    num_images: int,
    size: int,
    seed: int,
    workers: int | None = None,
    force: bool = False,
) -> Iterator[Path]:
    """Write ``num_images`` PNGs and ``metadata.csv``; yields each image's path, in order.

    ``metadata.csv`` follows the Hugging Face imagefolder convention (``file_name`` first), one
    column an attribute, 1 or 0, empty where the attribute cannot be seen. ``workers`` None means
    all cores. The same avatars may be drawn again, and more of them. Raises UsageError for a seed below 0,
    RdmError where the packages that draw are missing, and OccupiedError for whatever else stands in their
    places, unless ``force`` is given.
    """
    refuse_seed(seed)
    require_generator()
    metadata = folder / "metadata.csv"
    known = b"" if force or not metadata.is_file() else metadata.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    labels = partial(_labels_line, seed=seed)
    write = partial(_write_one, folder=folder, seed=seed, size=size, force=force)
    # what a face looks like is a fifth of the work: workers find that out as well, and this process waits
    with shared_out(num_images, workers) as each:
        if known:
            _refuse_other_labels(metadata, known, each(labels, range(num_images)))
        lines = [_HEADER]
        for path, line in each(write, range(num_images)):
            lines.append(line)
            yield path
    put(metadata, max("".join(lines).encode(), known, key=len))
    yield metadata


@contextmanager
def shared_out(num: int, workers: int | None) -> Iterator[Callable[..., Iterator[Any]]]:
    """``map`` of ``num`` avatars over ``workers``; in this process where one worker would draw them all.

    A process takes as long to start as it takes to draw twenty.
    """
    workers = min(math.ceil(num / CHUNK), workers or os.cpu_count() or 1)
    if workers <= 1:
        yield map
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield partial(pool.imap, chunksize=CHUNK)


def _refuse_other_labels(metadata: Path, known: bytes, lines: Iterable[str]) -> None:
    """Raise OccupiedError where what ``metadata`` holds and the table of ``lines`` do not begin alike."""
    place = 0
    for line in chain([_HEADER], lines):
        expected = line.encode()
        found = known[place : place + len(expected)]
        if not expected.startswith(found):
            raise OccupiedError(f"{metadata}: is there already, with other labels", hint=ELSEWHERE)
        if len(found) < len(expected):
            return
        place += len(expected)
