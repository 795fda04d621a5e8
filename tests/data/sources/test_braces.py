"""Names in braces: as bash expands them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdm_cli.data.sources.braces import expand_braces
from rdm_cli.errors import UsageError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("s-{000..002}.tar", ["s-000.tar", "s-001.tar", "s-002.tar"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{train,val}-{0..1}.tar", ["train-0.tar", "train-1.tar", "val-0.tar", "val-1.tar"]),
        ("{a,}x", ["ax", "x"]),
        ("{id}/{0..1}", ["{id}/0", "{id}/1"]),
        ("{}{a..c}{", ["{}{a..c}{"]),
    ],
)
def test_expansion(name: str, expected: list[str]) -> None:
    assert list(expand_braces(name)) == expected


@given(st.text(st.characters(exclude_characters="{}")))
def test_a_name_without_braces_is_itself(name: str) -> None:
    assert list(expand_braces(name)) == [name]


@pytest.mark.parametrize("name", ["{0..99999999999}", "{0..9999}{0..9999}"])
def test_no_endless_lists(name: str) -> None:
    with pytest.raises(UsageError, match="names"):
        list(expand_braces(name))
