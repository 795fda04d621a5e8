"""The sheet of the codes that a command has found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdm_cli import options as o
from rdm_cli.commands.codes_opening import tell_once
from rdm_cli.console import Console
from rdm_cli.data.sources.folders import CODE_SUFFIX
from rdm_cli.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from rdm_cli.pipeline.pipeline import Pipeline

MOST_PICTURES = 240


def check_sheet(pictures: o.CodePictures) -> None:
    """Raise UsageError for a sheet that could not be written, before any work."""
    sheet = pictures.sheet
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise UsageError(
            f"--sheet {sheet}: sheets are PNG files", hint=f"use --sheet {sheet.with_suffix('.png')}"
        )


def write_sheet(
    console: Console,
    pictures: o.CodePictures,
    images: o.Images,
    rows: Sequence[tuple[str, str, str]],
    *,
    place: Path,
    opened: Callable[[], Pipeline],
    record: dict[str, Any],
    asked: Sequence[Path] = (),
) -> None:
    """Write the pictures of codes, (name, path, note) each, behind those that were ``asked`` for.

    Where no sheet is wanted, or there are no codes, nothing is done. ``place`` is where the codes came from.
    """
    if pictures.sheet is None or not rows:
        return
    from rdm_cli.data.images.pixels import load_rgb
    from rdm_cli.data.images.record import new_record, refuse_other, save_image
    from rdm_cli.jobs.row_pictures import pictures_of, sheet_of

    told = new_record(place=place.resolve().name, **record)
    if not pictures.force:
        refuse_other(pictures.sheet, told)
    if len(rows) > MOST_PICTURES:
        console.note(f"rdm: {pictures.sheet}: the first {MOST_PICTURES} of {len(rows)}")
        rows = rows[:MOST_PICTURES]
    load = partial(load_rgb, max_pixels=images.max_pixels, value_range=images.value_range)
    found_by = partial(pictures_of, load=load, opened=opened, on_error=tell_once(console))
    shown: list[tuple[str, str, Image | None]] = []
    for path in asked:
        if path.suffix.lower() == CODE_SUFFIX:
            (image,) = found_by([(path.stem, str(path))], originals=None)
        else:
            image = load(path)
        shown.append((path.name, "asked for", image))
    folder = pictures.originals or (place if place.is_dir() else None)
    found = found_by([(name, path) for name, path, _ in rows], originals=folder)
    shown += [(name, note, image) for (name, _, note), image in zip(rows, found, strict=True)]
    drawn = sheet_of(shown)
    if drawn is None:
        raise UsageError(f"--sheet {pictures.sheet}: none of the codes has a picture")
    save_image(drawn, pictures.sheet, told)
    console.note(f"rdm: {pictures.sheet}: the pictures")
