"""Words over attributes: what they mean, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdm_cli.collection.words import Attribute, Both, Either, Not, Words, logit, names_in, parse_words
from rdm_cli.errors import UsageError

A, B, C = map(Attribute, "abc")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a", A),
        ("a and not b", Both(A, Not(B))),
        ("a or b and c", Either(A, Both(B, C))),
        ("(a or b) and c", Both(Either(A, B), C)),
        ("not a and b", Both(Not(A), B)),
        ("not (a and b)", Not(Both(A, B))),
        ("not not a", Not(Not(A))),
        ("a AND b Or c", Either(Both(A, B), C)),
        ("((a))", A),
        ("'red hair' and \"and\"", Both(Attribute("red hair"), Attribute("and"))),
        ("5_o_clock_shadow", Attribute("5_o_clock_shadow")),
    ],
)
def test_words_are_read_by_the_usual_precedence(text: str, words: Words) -> None:
    assert parse_words(text) == words


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "an attribute is missing at the end"),
        ("a and", "an attribute is missing at the end"),
        ("a b", "'and' or 'or' was expected at character 3, not 'b'"),
        ("(a or b", "')' is missing at the end"),
        ("a)", "'and' or 'or' was expected at character 2, not ')'"),
        ("or a", "an attribute was expected at character 1, not 'or'"),
        ("a and 'b", "the ' at character 7 is not closed"),
        ("''", "an attribute was expected at character 2, not ''"),
    ],
)
def test_what_is_no_words_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_words(text)
    assert told in error.value.message and "glasses and not hat" in str(error.value.hint)


@pytest.mark.parametrize("text", ["(" * 900 + "a", "not " * 200 + "a", "a and " * 5000 + "a"])
def test_hostile_words_are_refused_before_they_fill_the_stack(text: str) -> None:
    with pytest.raises(UsageError):
        parse_words(text)


@given(st.text(max_size=60))
def test_any_text_is_words_or_one_error(text: str) -> None:
    try:
        parse_words(text)
    except UsageError as error:
        assert error.hint is not None


@pytest.mark.parametrize("text", ["a and not b", "a or b and c", "not (a or b) or not c", "(a or c) and b"])
def test_words_hold_where_the_verdicts_put_together_are_true(text: str) -> None:
    words = parse_words(text)
    cases = list(itertools.product((-1.5, 2.5), repeat=3))
    logits = {name: np.array([case[i] for case in cases]) for i, name in enumerate("abc")}
    truth = [eval(text, {name: case[i] > 0 for i, name in enumerate("abc")}) for case in cases]
    assert (logit(words, logits) >= 0).tolist() == truth
    assert set(names_in(words)) <= set("abc")
