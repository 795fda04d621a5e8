"""JSON that anyone may have written is an object of finite numbers, or a ValueError of one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdm_cli.data.io import json_text
from rdm_cli.data.io.json_text import parse_json, parse_object, read_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_json_can_say_is_read(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ('{"a": 1e999}', "1e999 is too large"),
        ('{"a": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ("[]", "an object was expected, not a list"),
        ("null", "an object was expected"),
        ("", "Expecting value"),
        (b'{"a": "\xff"}', "can't decode byte"),
    ],
)
def test_what_it_cannot_is_a_value_error(text: str | bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        parse_object(text)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_a_value_error(data: bytes) -> None:
    try:
        assert isinstance(parse_object(data), dict)
    except ValueError:
        pass


def test_devices_and_huge_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="no regular file"):
        read_object(tmp_path / "zero.json")
    monkeypatch.setattr(json_text, "MAX_BYTES", 2**20)
    (tmp_path / "long.json").write_text('{"a": "' + "x" * 2**20 + '"}')
    with pytest.raises(ValueError, match="longer than 1 MB"):
        read_object(tmp_path / "long.json")
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "none.json")
