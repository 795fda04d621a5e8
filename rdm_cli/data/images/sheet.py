"""Sheets: several pictures as one, to look at and to pass on.

Pictures are enlarged by whole numbers, so that each of their pixels stays a square of one colour, and lie
on a quiet ground with a caption below each. What is too long for its place is shortened in the middle.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from rdm_cli.data.images.pixels import grid
from rdm_cli.escapes import printable

TILE = 256  # pixels that a picture of a sheet has at least, in its width
GROUND, INK, FAINT = "#f4f6f8", "#1f2328", "#57606a"  # those of rdm's HTML pages
SMALLEST_TEXT, LARGEST_TEXT = 11, 18
LINE = 1.35  # the height of a line, in heights of its text
MOST_COLUMNS = 12  # of a strip: a longer one goes on in the next row


@dataclass(frozen=True)
class Tile:
    """A picture of a sheet, with a ``caption`` and, fainter, a ``note`` below it."""

    image: Image.Image
    caption: str = ""
    note: str = ""


def sheet(
    tiles: Sequence[Tile], columns: int | None = None, *, tile: int = TILE, title: str = ""
) -> Image.Image:
    """Lay ``tiles`` out in rows of ``columns`` (None: one row, or several equal ones of a long strip).

    Each picture is at least ``tile`` pixels wide; 0 leaves all pixels as they are, without captions.
    """
    if columns is None:
        columns = -(-len(tiles) // -(-len(tiles) // MOST_COLUMNS))
    if tile == 0:
        return grid([one.image for one in tiles], columns)
    shown = [Tile(enlarged(one.image, tile), one.caption, one.note) for one in tiles]
    return lay_out([shown[i : i + columns] for i in range(0, len(shown), columns)], title=title)


def enlarged(image: Image.Image, width: int) -> Image.Image:
    """``image`` by the whole number of times that makes it at least ``width`` wide; a wider one as it is."""
    factor = -(-width // image.width)
    if factor < 2:
        return image
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def lay_out(
    rows: Sequence[Sequence[Tile]],
    *,
    title: str = "",
    names: Sequence[str] = (),
    heads: Sequence[str] = (),
    gap: int | None = None,
) -> Image.Image:
    """Draw ``rows`` of tiles as they are, with a ``title``, a name before each row, a head above each column.

    Pictures stand in the middle of cells as wide as the widest of them. ``gap`` pixels lie between cells, and
    around the whole where there is a word on it; None: as fits the cells. Raises ValueError for no tile.
    """
    pictures = [one.image for row in rows for one in row]
    if not pictures:
        raise ValueError("there are no pictures to lay out")
    width = max(picture.width for picture in pictures)
    font = _font(min(LARGEST_TEXT, max(SMALLEST_TEXT, width // 16)))
    line = round(LINE * font.size)
    if gap is None:
        gap = max(6, width // 16)
    left = _left_of(names, font, gap)
    if heads:
        width = max(width, *(round(font.getlength(_drawable(head))) for head in heads))
    num_lines = [max(2 if one.note else 1 if one.caption else 0 for one in row) for row in rows]
    below = [num * line + (gap // 3 if num else 0) for num in num_lines]
    heights = [max(one.image.height for one in row) for row in rows]
    margin = gap if title or names or heads or any(num_lines) else 0
    top = margin + (2 * line if title else 0) + (line + gap // 3 if heads else 0)
    num_columns = max(map(len, rows))
    size = (
        2 * margin + left + num_columns * (width + gap) - gap,
        top + sum(heights) + sum(below) + (len(rows) - 1) * gap + margin,
    )
    paper = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(paper)

    def write(x: int, y: int, text: str, room: int, ink: str = INK, middle: bool = False) -> None:
        draw.text((x, y), shortened(text, font, room), fill=ink, font=font, anchor="lm" if middle else "la")

    write(margin, margin, title, size[0] - 2 * margin)
    for column, head in enumerate(heads):
        write(margin + left + column * (width + gap), top - line - gap // 3, head, width)
    y = top
    for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
        if names:
            write(margin, y + height // 2, names[number], left - gap, FAINT, middle=True)
        for column, one in enumerate(row):
            x = margin + left + column * (width + gap)
            inset = (width - one.image.width) // 2 if not heads else 0
            paper.paste(one.image, (x + inset, y + height - one.image.height))
            write(x, y + height + gap // 3, one.caption, width)
            write(x, y + height + gap // 3 + line, one.note, width, FAINT)
        y += height + below[number] + gap
    return paper


def shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> str:
    """``text`` as it can be drawn, without its middle where it is wider than ``room`` pixels."""
    text = _drawable(text)
    if font.getlength(text) <= room:
        return text
    for kept in range(min(len(text), room), 1, -1):  # no letter is narrower than a pixel
        short = f"{text[: -(-kept // 2)]}...{text[-(kept // 2) :]}"
        if font.getlength(short) <= room:
            return short
    return ""


def _left_of(names: Sequence[str], font: ImageFont.FreeTypeFont, gap: int) -> int:
    """The pixels that the names of rows take on the left: the longest one's, within reason."""
    longest = max((font.getlength(_drawable(name)) for name in names), default=0)
    return min(round(longest), 24 * round(font.size)) + gap if longest else 0


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels have FreeType
    return font


def _drawable(text: str) -> str:
    """``text`` on one line, in letters that Pillow's font has where there are such: u for ü."""
    text = printable(text)
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
