"""What is printed of names is shown, and never obeyed."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdm_cli.escapes import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("faces/a b.png", "faces/a b.png"),
        ("a\nb", r"a\nb"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\r\x08\x7f", r"a\r\x08\x7f"),
        ("gpj.\u202egnp", r"gpj.\u202egnp"),
        ("line\u2028break", r"line\u2028break"),
        ("caf\udce9", r"caf\xe9"),
        ("\ud800", r"\ud800"),
        ("日本\u3000é 👩\u200d💻 می\u200cخواهم", "日本\u3000é 👩\u200d💻 می\u200cخواهم"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_some_can_be_kept() -> None:
    assert printable("a\tb\nc\x1b", keep="\t\n") == "a\tb\nc\\x1b"


@given(st.text(st.characters(categories=None)))
def test_nothing_is_left_that_moves_the_cursor(text: str) -> None:
    shown = printable(text)
    assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") for c in shown)
    assert printable(shown) == shown
    shown.encode("utf-8")
