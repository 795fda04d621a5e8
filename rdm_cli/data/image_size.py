"""How large an image file is, without decoding it."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageFile

from rdm_cli.data.images import DECODER_ERRORS, FORMATS
from rdm_cli.data.places import Readable

_ORIENTATION = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)  # EXIF's orientations that change width and height places


def upright_size(source: Readable) -> tuple[int, int] | None:
    """Width and height in pixels as the image is shown, EXIF orientation applied; None where it has none.

    Only the header is read, by Pillow's readers themselves: ``Image.open`` would apply its own limit on
    pixels, which is one for the whole process.
    """
    Image.init()
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source.read_bytes()) as file:
        prefix = file.read(16)
        for name in FORMATS:
            reader, accepts = Image.OPEN.get(name, (None, None))
            if reader is None or (accepts is not None and accepts(prefix) is not True):
                continue
            file.seek(0)
            try:
                image: ImageFile.ImageFile = reader(file, "")
                width, height = image.size
                on_its_side = image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
            except DECODER_ERRORS:
                continue
            return (height, width) if on_its_side else (width, height)
    return None
