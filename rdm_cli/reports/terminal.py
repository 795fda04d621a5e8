"""Pictures in a terminal: by the protocols of kitty, iTerm2 and sixel, or as blocks of two colours a cell.

What a terminal can do is told by environment variables: asking it would wait for an answer that few give.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Literal

import numpy as np
from PIL import Image

from rdm_cli.data.images.sheet import enlarged
from rdm_cli.reports.html_page import png_bytes

Graphics = Literal["kitty", "iterm2", "sixel", "blocks"]
"""How a terminal is given a picture."""

WIDTH = 256  # pixels that a small picture is enlarged to
CELL = 8  # pixels that a terminal's cell has in its width, or more
CHUNK = 4096  # bytes of an escape sequence of kitty's
_KITTY = ("kitty", "ghostty")
_ITERM2 = ("iterm.app", "wezterm", "mintty")
_SIXEL = ("sixel", "foot", "mlterm", "contour")


def graphics_of(environment: Mapping[str, str], *, is_terminal: bool, encoding: str) -> Graphics | None:
    """How pictures are shown where stdout leads; None: not at all.

    Within tmux and screen, which pass no picture on, by blocks. These need Unicode, and that ``NO_COLOR`` is
    not set.
    """
    term = environment.get("TERM", "").lower()
    if not is_terminal or term in ("", "dumb", "unknown"):
        return None
    program = environment.get("TERM_PROGRAM", environment.get("LC_TERMINAL", "")).lower()
    if not ("TMUX" in environment or "STY" in environment or term.startswith(("tmux", "screen"))):
        if "KITTY_WINDOW_ID" in environment or any(name in (term, program, term[6:]) for name in _KITTY):
            return "kitty"
        if program in _ITERM2 or environment.get("LC_TERMINAL") == "iTerm2":
            return "iterm2"
        if any(name in term for name in _SIXEL):
            return "sixel"
    has_unicode = encoding.lower().replace("-", "") in ("utf8", "utf16", "gb18030")
    return "blocks" if has_unicode and not environment.get("NO_COLOR") else None


def in_terminal(image: Image.Image, graphics: Graphics, *, columns: int) -> bytes:
    """What shows ``image``, not wider than ``columns`` cells, and ends its line."""
    image = image.convert("RGB")
    if graphics == "blocks":
        return _blocks(_at_most(image, columns)).encode()
    shown = _at_most(enlarged(image, WIDTH), columns * CELL)
    drawn = {"kitty": _kitty, "iterm2": _iterm2, "sixel": _sixel}[graphics](shown)
    return drawn + b"\n"


def _at_most(image: Image.Image, width: int) -> Image.Image:
    """``image``, reduced where it is wider than ``width`` pixels."""
    if image.width <= width:
        return image
    height = max(1, round(image.height * width / image.width))
    return image.resize((max(1, width), height), Image.Resampling.LANCZOS)


def _kitty(image: Image.Image) -> bytes:
    """sw.kovidgoyal.net/kitty/graphics-protocol: a PNG in pieces, shown at once, without an answer."""
    content = base64.b64encode(png_bytes(image))
    pieces = [content[i : i + CHUNK] for i in range(0, len(content), CHUNK)]
    sequences = []
    for i, piece in enumerate(pieces):
        first = b"a=T,f=100,q=2," if i == 0 else b""
        sequences.append(b"\x1b_G%sm=%d;%s\x1b\\" % (first, i < len(pieces) - 1, piece))
    return b"".join(sequences)


def _iterm2(image: Image.Image) -> bytes:
    """iterm2.com/documentation-images.html: a whole file, shown within the text."""
    content = png_bytes(image)
    head = b"inline=1;size=%d;width=%dpx;preserveAspectRatio=1" % (len(content), image.width)
    return b"\x1b]1337;File=%s:%s\x07" % (head, base64.b64encode(content))


def _sixel(image: Image.Image) -> bytes:
    """DEC's sixels: bands of six rows; in each, the pixels of one colour after the other."""
    paletted = image.quantize(256)
    palette = np.asarray(paletted.getpalette(), dtype=int).reshape(-1, 3)
    numbers = np.asarray(paletted)
    parts = [f'\x1bPq"1;1;{image.width};{image.height}']
    for number in np.unique(numbers):
        red, green, blue = (round(level * 100 / 255) for level in palette[number])
        parts.append(f"#{number};2;{red};{green};{blue}")
    for top in range(0, image.height, 6):
        band = numbers[top : top + 6]
        weights = 1 << np.arange(len(band))
        for number in np.unique(band):
            letters = 63 + weights @ (band == number)
            parts.append(f"#{number}{_repeated(letters)}$")
        parts.append("-")
    return "".join([*parts, "\x1b\\"]).encode("ascii")


def _repeated(letters: np.ndarray) -> str:
    """Letters by their codes, with their number before what is repeated."""
    starts = np.flatnonzero(np.diff(letters, prepend=-1))
    counts = np.diff(starts, append=len(letters))
    runs = zip(letters[starts], counts, strict=True)
    return "".join(f"!{count}{chr(code)}" if count > 3 else chr(code) * count for code, count in runs)


def _blocks(image: Image.Image) -> str:
    """Two pixels a cell, one above the other: the upper half of a block on a ground of another colour."""
    pixels = np.asarray(image)
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, pixels[-1:]])
    lines = []
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        cells = []
        for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
            front, back = (";".join(map(str, colour)) for colour in (above, below))
            cells.append(f"\x1b[38;2;{front};48;2;{back}m\u2580")
        lines.append("".join(cells) + "\x1b[0m\n")
    return "".join(lines)
