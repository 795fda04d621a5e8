"""What pictures, codes and bundles record, and what they look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from rdm_cli.bundles.places import names_bundle
from rdm_cli.data.images.kinds import HEAD_BYTES, kind_of
from rdm_cli.data.images.pixels import SUFFIXES, load_rgb
from rdm_cli.data.images.record import new_record, read_record
from rdm_cli.data.images.sheet import TILE, Tile, enlarged, lay_out
from rdm_cli.data.io.places import digest_of
from rdm_cli.data.sources.folders import CODE_SUFFIX, CODE_SUFFIXES, Item, PassedOver, find_inputs
from rdm_cli.errors import ImageError, RdmError, UsageError

FIRST = ("what", "command", "software", "source", "sources", "edits", "draw", "seed", "bundle")
"""What is told first of a picture's record."""

Decode = Callable[[Path], Image.Image]
"""Makes the picture of a code."""
Load = Callable[..., Image.Image]
"""Reads an image as :func:`~rdm_cli.data.images.pixels.load_rgb` does."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One file: its ``kind`` (picture, animation, code, bundle) and ``facts`` by what they are called.

    ``record`` is what rdm recorded in it, None where it recorded nothing; ``remark`` says why there is no
    ``image`` where one was to be expected.
    """

    kind: str
    facts: Mapping[str, Any]
    record: Mapping[str, Any] | None = None
    image: Image.Image | None = None
    remark: str | None = None


def look_at(name: str, decode: Decode | None = None, *, load: Load = load_rgb) -> Shown:
    """What the file, or the bundle, ``name`` records; ``decode`` makes a code's picture, ``load`` reads one.

    Without ``decode`` a code is shown by the picture beside it, where that is the code's own. Raises
    ImageError, CodeError, BundleError or UsageError for what is none of these.
    """
    path = Path(name)
    if not path.is_file() and (names_bundle(name) or path.is_dir()):
        from rdm_cli.pipeline.inspection import details

        return Shown(kind="bundle", facts=details(name))
    if path.suffix.lower() == CODE_SUFFIX:
        return _code(path, decode, load)
    return _picture(path, load)


def _picture(path: Path, load: Load) -> Shown:
    record = _in_order(read_record(path)) if path.is_file() else None
    pages: list[str] = []
    try:
        image = load(path, on_remark=lambda _, text: pages.append(text))
    except ImageError as error:
        if record is None:
            raise
        if path.suffix.lower() == ".mp4":  # nothing here decodes it
            return Shown(kind="animation", facts={}, record=record)
        return Shown(kind="picture", facts={}, record=record, remark=str(error))
    with path.open("rb") as file:
        kind = kind_of(file.read(HEAD_BYTES))
    facts = {"format": kind, "width": image.width, "height": image.height}
    moves = bool(pages) and kind in ("GIF", "WEBP")
    return Shown(kind="animation" if moves else "picture", facts=facts, record=record, image=image)


def _in_order(record: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """``record`` with what a reader asks for first at its beginning."""
    if record is None:
        return None
    return {name: record[name] for name in dict.fromkeys((*FIRST, *record)) if name in record}


def _code(path: Path, decode: Decode | None, load: Load) -> Shown:
    from rdm_cli.codes.code import read_held

    info, names = read_held(path)
    digest = digest_of(path)
    facts: dict[str, Any] = {"holds": sorted(names), "digest": digest}
    image, remark = None, None
    if decode is not None:
        image = decode(path)
    elif (beside := _own_picture(path, digest, info.source_digest)) is not None:
        facts["picture"] = beside.name
        try:
            image = load(beside, on_remark=lambda *_: None)
        except ImageError as error:
            remark = str(error)
    return Shown(kind="code", facts=facts, record=asdict(info), image=image, remark=remark)


def _own_picture(code: Path, digest: str, source_digest: str | None) -> Path | None:
    """The picture beside a code that was made with it or of it, or that it was made of, if there is one."""
    for path in (code.with_suffix(suffix) for suffix in sorted(SUFFIXES)):
        if not path.is_file():
            continue
        record = read_record(path) or {}
        if digest in (record.get("code_digest"), record.get("source_digest")):
            return path
        if source_digest is not None and digest_of(path) == source_digest:
            return path
    return None


@dataclass(kw_only=True)
class ContactSheet:
    """A folder's pictures and codes as one ``sheet``; None where none could be shown.

    ``num_found`` are all that there are, of which ``num_shown`` are on it; ``without`` are codes that have no
    picture; ``errors`` say of others why they are not, by their names.
    """

    sheet: Image.Image | None = None
    num_found: int = 0
    num_shown: int = 0
    without: int = 0
    record: Mapping[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    passed_over: PassedOver = field(default_factory=PassedOver)


def contact_sheet(
    folder: Path,
    *,
    columns: int | None = None,
    tile: int = TILE,
    limit: int = 100,
    page: int = 1,
    decode: Decode | None = None,
    load: Load = load_rgb,
) -> ContactSheet:
    """The pictures and codes below ``folder``, ``limit`` of them: those of a ``page``, from 1.

    A code whose picture is there too is not shown twice. Raises UsageError for a folder without such files,
    and for a page that it does not have.
    """
    found = ContactSheet()
    items = _once(
        find_inputs([folder], suffixes=SUFFIXES | CODE_SUFFIXES, passed_over=found.passed_over, own_too=True)
    )
    found.num_found = len(items)
    chosen = items[(page - 1) * limit : page * limit]
    if not chosen:
        raise UsageError(f"{folder}: has {-(-len(items) // limit)} pages of {limit} pictures, and no {page}")
    tiles: list[Tile] = []
    for item in chosen:
        try:
            one = look_at(str(item.source), decode, load=load)
        except RdmError as error:
            found.errors[str(item.source)] = str(error)
            continue
        if one.image is None:
            found.without += 1
            continue
        tiles.append(Tile(_fitted(one.image, tile), item.relative.as_posix(), _in_short(one)))
    found.num_shown = len(tiles)
    found.record = new_record(
        "contact sheet", folder=folder.resolve().name, page=page, num_pictures=len(tiles)
    )
    if tiles:
        columns = columns or _usual_columns(len(tiles))
        rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
        pages = -(-len(items) // limit)
        more = f", page {page} of {pages}" if pages > 1 else ""
        found.sheet = lay_out(rows, title=f"{folder.resolve().name}: {len(items)} pictures{more}")
    return found


def _once(items: Sequence[Item[Path]]) -> list[Item[Path]]:
    """``items`` without the codes that lie beside a picture of their name."""
    pictures = {one.source.with_suffix("") for one in items if one.source.suffix.lower() != CODE_SUFFIX}
    return [
        one
        for one in items
        if one.source.suffix.lower() != CODE_SUFFIX or one.source.with_suffix("") not in pictures
    ]


def _fitted(image: Image.Image, tile: int) -> Image.Image:
    """``image`` as large as a tile: photographs are reduced, small pictures enlarged; 0: as it is."""
    if tile == 0:
        return image
    if max(image.size) > tile:
        image = image.copy()
        image.thumbnail((tile, tile), Image.Resampling.LANCZOS)
        return image
    return enlarged(image, tile)


def _usual_columns(num: int) -> int:
    """A sheet somewhat wider than it is high, of at most eight columns."""
    return next((n for n in range(1, 8) if n * n * 0.75 >= num), 8)


def _in_short(one: Shown) -> str:
    """What the record says, in a few words."""
    record = one.record or {}
    if one.kind == "code":
        edits = record.get("edits") or ()
        return ", ".join(["code", *map(str, edits)])
    edits = record.get("edits")
    if isinstance(edits, list) and len(edits) == 1 and isinstance(edits[0], dict):
        return ", ".join(f"{name} {scale}" for name, scale in edits[0].items())
    return str(record.get("what", ""))
