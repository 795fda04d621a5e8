"""JSON from files that anyone may have written: an object of finite numbers, of a bearable size, or an error.

Python's parser has answers of its own to what others may have written: RecursionError for deep nesting,
infinity for 1e999, NaN for a word that is no JSON, and all of a device that never ends.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

MAX_BYTES = 2**24


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """What ``text`` says; raises ValueError, with a reason of one line, for what is no JSON.

    Python and diffusers write ``Infinity``, ``-Infinity`` and ``NaN``, which are no JSON; ``finite`` False
    reads them too.
    """
    try:
        return json.loads(text, parse_constant=_refuse if finite else float, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_object(text: str | bytes, *, finite: bool = True) -> dict[str, Any]:
    """As :func:`parse_json`, where an object is wanted."""
    value = parse_json(text, finite=finite)
    if not isinstance(value, dict):
        raise ValueError(f"an object was expected, not a {type(value).__name__}")
    return value


def read_object(path: Path, *, finite: bool = True) -> dict[str, Any]:
    """The object in a file, as :func:`parse_json` has it; raises OSError, or ValueError as above."""
    if path.exists() and not path.is_file():
        raise ValueError("no regular file")
    with path.open("rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise ValueError(f"longer than {MAX_BYTES >> 20} MB")
    return parse_object(text, finite=finite)


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON's")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value
