"""What a picture says of how rdm made it: one canonical JSON object in its metadata, under the key ``rdm``.

A PNG holds it as text, a GIF as its comment. So rdm knows its own pictures again: they are no inputs, and one
that was made otherwise is not written over unasked.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from rdm_cli.data.images import DECODER_ERRORS
from rdm_cli.data.json_text import parse_object
from rdm_cli.data.places import Readable

KEY = "rdm"
_FORMATS = ("PNG", "GIF")


def as_text(record: Mapping[str, Any]) -> str:
    """``record`` as canonical JSON: equal records are equal text."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def saving_options(record: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Arguments of Pillow's ``save`` that put ``record`` into a picture of ``kind``; {} for other kinds."""
    text = as_text(record)
    if kind == "PNG":
        info = PngInfo()
        info.add_text(KEY, text)
        return {"pnginfo": info}
    return {"comment": f"{KEY} {text}".encode()} if kind == "GIF" else {}


def read_record(source: Readable) -> dict[str, Any] | None:
    """The record of a picture, read without decoding it; None where rdm did not make it."""
    try:
        opened = source if isinstance(source, Path) else io.BytesIO(source.read_bytes())
        with Image.open(opened, formats=_FORMATS) as image:
            text = image.info.get(KEY) if image.format == "PNG" else _comment(image)
        return parse_object(text) if isinstance(text, str) else None
    except DECODER_ERRORS:
        return None


def is_own_picture(path: Path) -> bool:
    """Whether rdm made the picture in this file: it carries a record, whatever it is called."""
    record = read_record(path) if path.is_file() else None
    return record is not None and str(record.get("software", "")).startswith("rdm ")


def _comment(image: Image.Image) -> str | None:
    comment = image.info.get("comment", b"")
    text = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)
    return text.removeprefix(f"{KEY} ") if text.startswith(f"{KEY} ") else None
