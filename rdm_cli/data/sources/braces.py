"""Many names in one: ``faces-{0000..0127}.tar``, ``{train,val}.tar``, as shells and webdataset have them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

from rdm_cli.errors import UsageError

MAX_NAMES = 1_000_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)", flags=re.ASCII)


def expand_braces(name: str) -> Iterator[str]:
    """The names that ``name`` stands for, in order; itself, where it has no braces with commas or a range.

    A range runs from its first number to its last, both included, each with as many digits as the wider of
    the two is written with if one begins with a zero. Raises UsageError for more than a million names.
    """
    fixed, choices, end = list[str](), list[list[str]](), 0
    for match in _BRACES.finditer(name):
        found = _choices(match[1])
        if found is not None:
            fixed.append(name[end : match.start()])
            choices.append(found)
            end = match.end()
    total = 1
    for found in choices:
        total *= len(found)
    if total > MAX_NAMES:
        raise UsageError(f"{name}: stands for {total:,} names, more than {MAX_NAMES:,}")
    for chosen in product(*choices):
        yield "".join(f"{before}{choice}" for before, choice in zip(fixed, chosen, strict=True)) + name[end:]


def _choices(inside: str) -> list[str] | None:
    match = _RANGE.fullmatch(inside)
    if match is None:
        return inside.split(",") if "," in inside else None
    first, last = int(match[1]), int(match[2])
    if abs(last - first) >= MAX_NAMES:
        raise UsageError(f"{{{inside}}}: more than {MAX_NAMES:,} names")
    padded = any(text.startswith("0") and len(text) > 1 for text in match.groups())
    width = max(map(len, match.groups())) if padded else 0
    step = 1 if last >= first else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]
