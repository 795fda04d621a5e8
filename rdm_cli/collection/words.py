r"""Words over attributes, such as ``glasses and not (hat or beard)``.

    words = term {"or" term},    term = factor {"and" factor},    factor = "not" factor | "(" words ")" | NAME

NAME is an attribute of the bundle; one with spaces, or called ``and``, stands in quotation marks. Whether a
code has an attribute is what the bundle's linear classifier on z says, as a logit. ``not`` turns its sign,
``and`` is the least and ``or`` the greatest of two: words hold (logit >= 0, probability >= 0.5) exactly
where the classifiers' verdicts, put together so, are true, and their probability is that of their weakest
part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from rdm_cli.errors import UsageError

LONGEST, DEEPEST = 1000, 32  # characters; levels of "not" and parentheses
GRAMMAR = "write attributes with and, or, not and parentheses, such as 'glasses and not hat'"
_TOKEN = re.compile(r"""\s*(?:([()])|"([^"]*)"|'([^']*)'|([^\s()"']+))""")


@dataclass(frozen=True)
class Attribute:
    """The codes that have it."""

    name: str


@dataclass(frozen=True)
class Not:
    """The codes for which ``part`` does not hold."""

    part: Words


@dataclass(frozen=True)
class Both:
    """The codes for which both parts hold."""

    first: Words
    second: Words


@dataclass(frozen=True)
class Either:
    """The codes for which one part holds, or both."""

    first: Words
    second: Words


Words: TypeAlias = Attribute | Not | Both | Either


def names_in(words: Words) -> Iterator[str]:
    """The attributes that ``words`` speak of, in their order; one that is named twice comes twice."""
    if isinstance(words, Attribute):
        yield words.name
    elif isinstance(words, Not):
        yield from names_in(words.part)
    else:
        yield from names_in(words.first)
        yield from names_in(words.second)


def logit(words: Words, logits: Mapping[str, np.ndarray]) -> np.ndarray:
    """How clearly ``words`` hold of N codes, (N,); ``logits`` (N,) of each attribute, by name."""
    if isinstance(words, Attribute):
        return logits[words.name]
    if isinstance(words, Not):
        return -logit(words.part, logits)
    found = np.minimum if isinstance(words, Both) else np.maximum
    both: np.ndarray = found(logit(words.first, logits), logit(words.second, logits))
    return both


def parse_words(text: str) -> Words:
    """``text`` as words over attributes; raises UsageError with the place of what does not fit."""
    if len(text) > LONGEST:
        raise UsageError(f"words of {len(text)} characters: at most {LONGEST} are read")
    parser = _Parser(text)
    found = parser.either(0)
    if parser.token is not None:
        raise parser.unexpected("'and' or 'or'")
    return found


class _Parser:
    """Reads a text by the grammar above, a token ahead: (its kind, what it says, where it stands)."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._end = 0
        self.token: tuple[str, str, int] | None = None
        self._advance()

    def _advance(self) -> None:
        rest = self._text[self._end :]
        if not rest.strip():
            self.token = None
            return
        found = _TOKEN.match(rest)
        if found is None:  # a quotation mark without its other
            at = self._end + len(rest) - len(rest.lstrip())
            raise self._error(f"the {self._text[at]} at character {at + 1} is not closed")
        at = self._end + found.start(found.lastindex or 0)
        self._end += found.end()
        word = found[found.lastindex or 0]
        kind = "name"
        if found.lastindex == 1:
            kind = word
        elif found.lastindex == 4 and word.lower() in ("and", "or", "not"):
            kind = word.lower()
        self.token = kind, word, at

    def _took(self, kind: str) -> bool:
        if self.token is None or self.token[0] != kind:
            return False
        self._advance()
        return True

    def either(self, depth: int) -> Words:
        found = self._both(depth)
        while self._took("or"):
            found = Either(found, self._both(depth))
        return found

    def _both(self, depth: int) -> Words:
        found = self._factor(depth)
        while self._took("and"):
            found = Both(found, self._factor(depth))
        return found

    def _factor(self, depth: int) -> Words:
        if depth > DEEPEST:
            raise self._error(f"more than {DEEPEST} of not and ( within one another")
        if self._took("not"):
            return Not(self._factor(depth + 1))
        if self._took("("):
            found = self.either(depth + 1)
            if not self._took(")"):
                raise self.unexpected("')'")
            return found
        if self.token is None or self.token[0] != "name" or not self.token[1]:
            raise self.unexpected("an attribute")
        name = self.token[1]
        self._advance()
        return Attribute(name)

    def unexpected(self, wanted: str) -> UsageError:
        """The error of another token than one that would go on."""
        if self.token is None:
            return self._error(f"{wanted} is missing at the end")
        return self._error(f"{wanted} was expected at character {self.token[2] + 1}, not {self.token[1]!r}")

    def _error(self, what: str) -> UsageError:
        return UsageError(f"{self._text!r}: {what}", hint=GRAMMAR)
