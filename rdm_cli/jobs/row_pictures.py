"""The pictures of a collection's codes: the images that they were made of, or what they decode to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath

from PIL import Image

from rdm_cli.codes.code import Codes
from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.data.images.sheet import Tile, sheet
from rdm_cli.errors import RdmError
from rdm_cli.jobs.search import Opened

SHEET_COLUMNS = 6
Load = Callable[[Path], Image.Image]


def original_of(name: str, folder: Path) -> Path | None:
    """The image below ``folder`` that the code ``name`` is called after; None where there is none.

    A name that leads out of the folder has none: names come from tables that others wrote.
    """
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts or "\0" in name:
        return None
    for suffix in sorted(SUFFIXES):
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return path
    return None


def pictures_of(
    codes: Sequence[tuple[str, str]],
    *,
    originals: Path | None,
    load: Load,
    opened: Opened | None,
    on_error: Callable[[str, RdmError], None],
    on_decoded: Callable[[], None] = lambda: None,
) -> Iterator[Image.Image | None]:
    """A picture for each (name, path) of ``codes``, in their order; None where there is none.

    It is the image of that name below ``originals`` or, with ``opened``, what the code at its path decodes
    to, before which ``on_decoded`` is called. ``on_error`` is told of each that cannot be read.
    """
    for name, path in codes:
        try:
            original = None if originals is None else original_of(name, originals)
            if original is not None:
                yield load(original)
            elif opened is not None:
                on_decoded()
                yield opened().decode(Codes.load(Path(path)), output="pil", keys=[name])[0]
            else:
                yield None
        except RdmError as error:
            on_error(path, error)
            yield None


def sheet_of(shown: Sequence[tuple[str, str, Image.Image | None]]) -> Image.Image | None:
    """Pictures with a caption and a note each as one, without those that are None; None where all are."""
    tiles = [Tile(image, caption, note) for caption, note, image in shown if image is not None]
    return sheet(tiles, min(SHEET_COLUMNS, len(tiles))) if tiles else None
