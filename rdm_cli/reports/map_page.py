"""The map of a collection as one HTML file: points that are panned, zoomed and asked, without a request.

Coordinates are 16 bits each and probabilities 8, as base64; pictures are small WebP files. Names stand in
JSON in which no ``<`` is left, and the page's script writes them as text: what looks like HTML in a name
stays what it is.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template

import numpy as np
from PIL import Image

from rdm_cli.reports.html_page import whole_page

THUMBNAIL_PX = 96
QUALITY = 82


@dataclass(frozen=True, kw_only=True)
class Points:
    """What a map shows: N ``names``, where they lie, ``xy`` (N, 2), and (N,) ``probabilities`` by attribute.

    ``pictures`` are WebP files by the number of their point.
    """

    names: Sequence[str]
    xy: np.ndarray
    probabilities: Mapping[str, np.ndarray]
    pictures: Mapping[int, bytes]


def map_page(title: str, facts: str, points: Points) -> str:
    """The whole file, under a ``title`` and a line of ``facts``, both plain text."""
    x, y = quantised(points.xy).T
    data = {
        "names": list(points.names),
        "x": _base64(np.ascontiguousarray(x)),
        "y": _base64(np.ascontiguousarray(y)),
        "attributes": [
            {"name": name, "values": _base64(np.rint(255 * np.clip(p, 0, 1)).astype(np.uint8))}
            for name, p in points.probabilities.items()
        ],
        "pictured": _base64(np.array(list(points.pictures), dtype="<u4")),
        "pictures": [base64.b64encode(picture).decode("ascii") for picture in points.pictures.values()],
    }
    room = files("rdm_cli.reports")
    body, style, script = (
        room.joinpath(f"map_page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    body = Template(body).substitute(
        title=escape(title),
        facts=escape(facts),
        label=escape(f"map of {len(points.names)} codes"),
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    )
    return whole_page(title, body, style=style, script=script)


def quantised(xy: np.ndarray) -> np.ndarray:
    """``xy`` (N, 2) as uint16 (N, 2): in the middle of 0 to 65,535, with its proportions kept."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    side = float((high - low).max()) or 1.0
    found: np.ndarray = np.rint(65535 * ((xy - (low + high) / 2) / side + 0.5)).clip(0, 65535).astype("<u2")
    return found


def thumbnail(image: Image.Image) -> bytes:
    """``image`` as a WebP file of at most 96 pixels a side; a smaller one keeps its size."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    small.save(content, format="webp", quality=QUALITY, method=4)
    return content.getvalue()


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")
