"""What is left behind of an edit besides its picture: its record as a JSON file, and a page of all edits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from rdm_cli.data.images.record import HINT, SOFTWARE, refuse_other_settings, with_command
from rdm_cli.data.images.sheet import TILE, enlarged
from rdm_cli.data.io.json_text import parse_object
from rdm_cli.data.io.places import Place, put
from rdm_cli.errors import OccupiedError
from rdm_cli.reports.html_page import Card, HtmlPage, Shown, png_bytes, refuse_other_page

COLUMNS = ("attribute", "before", "after", "verdict")
GAIN = 4  # of the difference map
LEAD = (
    "Each picture was decoded from its edited code, encoded again and read by the bundle's classifiers. "
    f"Before is what the unedited code decodes to; the difference is {GAIN} times that of the two. "
    "The distance in z is in what --scale counts."
)


def receipt_of(picture: Place) -> Place:
    """Where the record of an edit goes: beside its picture."""
    return picture.with_name(f"{picture.stem}.json")


def write_receipt(picture: Place, record: Mapping[str, Any]) -> Place:
    """Write the ``record`` of an edited picture beside it, with the command of it; gives the place."""
    place = receipt_of(picture)
    put(place, f"{json.dumps(with_command(record), indent=2)}\n".encode())
    return place


def refuse_other_receipt(picture: Place, record: Mapping[str, Any]) -> None:
    """Raise OccupiedError unless the place beside ``picture`` is free, or has the receipt of such an edit."""
    place = receipt_of(picture)
    if not place.is_file():
        return
    try:
        known = parse_object(place.read_bytes())
    except ValueError:
        known = {}
    if not str(known.get("software", "")).startswith(f"{SOFTWARE} "):
        raise OccupiedError(f"{place}: is there already, and rdm did not make it", hint=HINT)
    refuse_other_settings(place, known, record)


def verdicts(record: Mapping[str, Any]) -> list[list[str]]:
    """Of each attribute its name, the probabilities before and after an edit, and what became of it."""
    (wanted,), receipt = record["edits"], record["receipt"]
    rows = []
    for name, (before, after) in receipt["probabilities"].items():
        if name in wanted:
            word = "as wanted" if (after > 0.5) == wanted[name] else "NOT as wanted"
        elif name in receipt["not_watched"]:
            word = "not watched"
        else:
            word = "CHANGED" if name in receipt["changed"] else "kept"
        rows.append([name, f"{before:.4f}", f"{after:.4f}", word])
    return rows


def told(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """What a receipt says besides the verdicts, by what people call it."""
    return {
        "holds": "yes" if receipt["holds"] else "no",
        "what was watched stayed": "yes" if receipt["kept"] else "no",
        "distance in z": receipt["z_distance"],
        "share of the way": receipt["amount"],
        "pictures decoded": receipt["num_decodes"],
    }


class ReceiptPage:
    """One HTML page of edits, in the order in which they are added.

    ``place`` is the file, or a folder that it goes into. Raises OccupiedError where another file is there.
    """

    def __init__(self, place: Path) -> None:
        self.path = place if place.suffix.lower() in (".html", ".htm") else place / "manipulate.html"
        refuse_other_page(self.path)
        self._page = HtmlPage("Edits", LEAD)

    def add(self, name: str, before: Image.Image, after: Image.Image, record: Mapping[str, Any]) -> None:
        """Add the edit whose result is called ``name``: pictures ``before`` and ``after``, and its record."""
        difference = ImageChops.difference(before, after).point(lambda level: GAIN * level)
        pictures = {"before": before, "after": after, "difference": difference}
        shown = [
            Shown(picture=png_bytes(enlarged(image, TILE)), alt=f"{name}: {called}", caption=called)
            for called, image in pictures.items()
        ]
        self._page.section(name)
        self._page.cards([Card(shown=shown, columns=len(shown))], width=24)
        recorded = with_command(record)
        self._page.facts({**told(record["receipt"]), **{key: record[key] for key in ("editor", "source")}})
        self._page.table("What the classifiers read, as probabilities.", COLUMNS, verdicts(record))
        if "command" in recorded:
            self._page.command(recorded["command"])

    def save(self) -> Path:
        """Write the page, whole or not at all; gives its path."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._page.save(self.path)
        return self.path
