"""rdm encode -o NAME.parquet: a table of codes, in files of its own, which a later run goes on with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdm_cli.jobs import encode_table

parquet = pytest.importorskip("pyarrow.parquet")
Rdm = Callable[..., Any]


def rows_of(table: Path) -> dict[str, dict[str, Any]]:
    """The rows of all files of a table, by name; each name once."""
    parts = [parquet.read_table(path).to_pylist() for path in sorted(table.glob("*.parquet"))]
    rows = [row for part in parts for row in part]
    found = {row["name"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_its_rows_are_those_of_a_table_of_codes(tiny: Rdm, rdm: Rdm, faces: Path, tmp_path: Path) -> None:
    table, codes = tmp_path / "z.parquet", tmp_path / "codes"
    made = tiny("encode", faces, "-o", table, "--no-x-t", "--json")
    assert made.code == 0, made.err
    (output,) = {line["output"] for line in made.objects}
    assert [line["input"] for line in made.objects] == [
        f"{faces}/{n}.png" for n in ("a", "b", "c", "d", "sub/e")
    ]
    assert output == str(next(table.iterdir()))
    assert tiny("encode", faces, "-o", codes, "--no-x-t").code == 0
    assert tiny("codes", "table", codes, "-o", tmp_path / "other.parquet").code == 0
    (other,) = [parquet.read_table(tmp_path / "other.parquet").to_pylist()]
    expected = {row["name"]: row for row in other}
    found = rows_of(table)
    for row in (*expected.values(), *found.values()):
        assert Path(row.pop("path")).suffix in (".png", ".safetensors")
    assert found == expected


def test_a_second_run_does_what_is_missing(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    table = tmp_path / "z.parquet"
    shutil.move(faces / "c.png", tmp_path / "c.png")
    (faces / "bad.png").write_bytes(b"no picture")
    command = ("encode", faces, "-o", table, "--no-x-t", "--batch-size", 8)
    first = tiny(*command)
    assert first.code == 3 and "encoded 4 images" in first.err and "1 failed" in first.err
    stamps = {path: path.stat().st_mtime_ns for path in table.iterdir()}
    again = tiny(*command)
    assert again.code == 3 and "encoded 0 images" in again.err and "4 already done" in again.err
    shutil.move(tmp_path / "c.png", faces / "c.png")
    third = tiny(*command)
    assert "encoded 1 image " in third.err and "4 already done" in third.err
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert set(rows_of(table)) == {"a", "b", "c", "d", "sub/e"}
    (faces / "bad.png").unlink()
    assert tiny(*command).code == 0
    whole = tmp_path / "whole.parquet"
    assert tiny("encode", faces, "-o", whole, "--no-x-t", "--batch-size", 8).code == 0
    assert rows_of(whole) == rows_of(table)


def test_rows_are_never_replaced(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    table = tmp_path / "z.parquet"
    command = ("encode", faces, "-o", table, "--no-x-t")
    assert tiny(*command).code == 0
    before = rows_of(table)
    shutil.copy(faces / "b.png", faces / "a.png")
    changed = tiny(*command)
    assert changed.code == 3 and f"{faces}/a.png: {table} has a row a of another image" in changed.err
    assert rows_of(table) == before
    other = tiny(*command, "--fit", "pad")
    assert other.code == 1 and "write another table" in other.err
    assert rows_of(table) == before


def test_parts_have_so_many_rows_and_are_one_table_when_merged(
    tiny: Rdm, rdm: Rdm, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = partial(encode_table.encode_table, rows_in_a_part=2)
    monkeypatch.setattr(encode_table, "encode_table", small)
    table, one = tmp_path / "z.parquet", tmp_path / "one.parquet"
    assert tiny("encode", faces, "-o", table, "--no-x-t").code == 0
    assert sorted(len(parquet.read_table(p)) for p in table.iterdir()) == [1, 2, 2]
    pandas = pytest.importorskip("pandas")
    assert sorted(pandas.read_parquet(table)["name"]) == ["a", "b", "c", "d", "sub/e"]  # the folder as it is
    merged = rdm("codes", "merge", table, "-o", one, "--json")
    assert merged.code == 0 and merged.objects[0]["rows"] == 5
    z = {row["name"]: row["z"] for row in parquet.read_table(one).to_pylist()}
    assert {name: row["z"] for name, row in rows_of(table).items()} == z
    assert np.isfinite(list(z.values())).all()


def test_what_a_table_has_no_use_for_is_refused(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    table = tmp_path / "z.parquet"
    for words, told in (
        ((), "holds z alone; add --no-x-t"),
        (("--no-x-t", "--tar"), "--tar: not for a table"),
        (("--no-x-t", "--force"), "--force: not for a table"),
    ):
        refused = tiny("encode", faces, "-o", table, *words)
        assert refused.code == 2 and told in refused.err
    assert not table.exists()
    table.mkdir()
    (table / "x.parquet").write_bytes(b"no table")
    refused = tiny("encode", faces, "-o", table, "--no-x-t")
    assert refused.code == 2 and f"{table}/x.parquet: not a Parquet file" in refused.err
