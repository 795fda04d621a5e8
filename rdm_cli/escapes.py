r"""What a file is called, or says, as text that a terminal shows and does not obey.

Names may hold line breaks, escape sequences that recolour, retitle or rewrite the screen, and marks that
turn the direction of writing. Each such character is shown as its escape, ``\n`` or ``\x1b``.
"""

from __future__ import annotations

import re
import unicodedata

_HIDDEN = frozenset(("Cc", "Zl", "Zp", "Cs"))  # controls, line breaks, bytes of no encoding
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str, keep: str = "") -> str:
    """``text`` with each character that a terminal may obey, but those of ``keep``, as its escape."""
    if text.isprintable():
        return text
    return "".join(_escaped(c) if c not in keep and _is_hidden(c) else c for c in text)


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN or character in _TURNING


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte of a file name that is no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def file_name(name: str) -> str:
    """``name`` as part of a file's name: an attribute may be called anything, and a file may not."""
    return re.sub(r"[^\w.]+", "_", name)
