"""rdm codes: status, verify, merge and table over what shards have left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rdm_cli.codes.code import Codes

Rdm = Callable[..., Any]


@pytest.fixture
def shards(tiny: Rdm, faces: Path, tmp_path: Path) -> Path:
    """The codes of five faces and a bad file, encoded in three shards."""
    (faces / "bad.png").write_text("no picture")
    for i in range(1, 4):
        tiny("encode", faces, "-o", tmp_path / "codes", "--steps", 1, "--shard", f"{i}/3")
    return tmp_path / "codes"


def test_status_tells_each_shard(rdm: Rdm, shards: Path) -> None:
    result = rdm("codes", "status", shards, "--json")
    assert result.code == 3
    parts = result.objects
    assert [p["shard"] for p in parts] == ["1/3", "2/3", "3/3"]
    assert sum(p["done"] for p in parts) == 5 and sum(p["failed"] for p in parts) == 1
    assert all(p["items"] == p["done"] + p["failed"] and p["left"] == 0 for p in parts)
    assert rdm("codes", "status", shards, "--failed").lines == [str(shards.parent / "faces" / "bad.png")]


def test_status_knows_what_was_not_begun_and_what_was_cut_short(rdm: Rdm, shards: Path) -> None:
    first, _, last = sorted(shards.glob("*.jsonl"))
    last.unlink()
    text = first.read_text()
    first.write_text(text[:-10])
    done = len(text.splitlines()) - 2
    one, _, three = rdm("codes", "status", shards, "--json").objects
    assert (one["torn"], one["done"] + one["failed"], one["left"]) == (1, done, 1)
    assert (three["manifest"], three["left"], three["done"]) == (None, None, 0)
    assert "not begun" in rdm("codes", "status", shards).out
    nothing = rdm("codes", "status", shards.parent / "faces")
    assert nothing.code == 2 and "--shard" in nothing.err


def test_done_again_and_done_better(tiny: Rdm, rdm: Rdm, shards: Path, faces: Path) -> None:
    """The last record of an input counts: what failed once and was mended is done."""
    (faces / "bad.png").write_bytes((faces / "a.png").read_bytes())
    for i in range(1, 4):
        assert tiny("encode", faces, "-o", shards, "--steps", 1, "--shard", f"{i}/3").code == 0
    assert rdm("codes", "status", shards).code == 0
    assert rdm("codes", "verify", shards).code == 0


def test_merged_manifests_are_one(rdm: Rdm, shards: Path, tmp_path: Path) -> None:
    merged = tmp_path / "all.manifest.jsonl"
    result = rdm("codes", "merge", shards, "-o", merged, "--json")
    assert result.objects == [{"output": str(merged), "done": 5, "failed": 1}]
    head, *records = [json.loads(line) for line in merged.read_text().splitlines()]
    assert head == {"verb": "encode", "shard": "1/1", "items": 6}
    assert len({r["input"] for r in records}) == len(records) == 6
    assert rdm("codes", "merge", merged, shards, "-o", merged).code == 0
    assert len(merged.read_text().splitlines()) == 7
    assert rdm("codes", "verify", shards, "--manifest", merged).code == 0
    part = rdm("codes", "merge", sorted(shards.glob("*.jsonl"))[0], "-o", tmp_path / "part.jsonl")
    assert part.code == 0  # of three shards one: how many items there are is not known
    assert json.loads((tmp_path / "part.jsonl").read_text().splitlines()[0])["items"] is None


def test_verify_names_what_is_damaged_missing_or_another(rdm: Rdm, shards: Path) -> None:
    good = rdm("codes", "verify", shards, "--json")
    assert good.code == 0 and len(good.objects) == 5 and all(o["recorded"] for o in good.objects)
    a, b, c = (shards / f"{name}.safetensors" for name in "abc")
    codes = Codes.load(a)
    codes.replace(z=codes.z + 1).save([a])  # readable, but other bytes
    b.write_bytes(b.read_bytes()[:-8])
    c.unlink()
    (d := shards / "d.safetensors").rename(shards / "new.safetensors")
    result = rdm("codes", "verify", shards)
    assert result.code == 3
    assert result.lines == [str(shards / "new.safetensors"), str(shards / "sub" / "e.safetensors")]
    told = dict(line.removeprefix("rdm: ").split(": ", 1) for line in result.err.splitlines()[:-1])
    assert "not the bytes that its manifest records" in told[str(a)]
    assert "not a readable" in told[str(b)]
    assert all("not there" in told[name] for name in (c.name, d.name))
    assert "verified 2 codes" in result.err and "4 failed" in result.err


def test_a_table_holds_z_and_what_codes_record(rdm: Rdm, shards: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import numpy as np

    (shards / "bad.safetensors").write_text("no code")
    result = rdm("codes", "table", shards, "-o", tmp_path / "z.parquet", "--json")
    assert result.code == 3 and result.objects[-1] == {"output": str(tmp_path / "z.parquet"), "rows": 5}
    table = parquet.read_table(tmp_path / "z.parquet")
    assert table.column("name").to_pylist() == ["a", "b", "c", "d", "sub/e"]
    assert str(table.schema.field("z").type).startswith("fixed_size_list<") and table.num_rows == 5
    assert json.loads(table.schema.metadata[b"z_shape"]) == [8]
    for row in table.to_pylist():
        code = Codes.load(Path(row["path"]))
        assert np.array_equal(np.array(row["z"], np.float32), code.z[0].numpy())
        info = code.infos[0]
        assert (row["source"], row["bundle_digest"]) == (info.source, info.bundle_digest)


def test_a_table_reads_no_x_t(rdm: Rdm, shards: Path, tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("pyarrow")
    from rdm_cli.data.io import tensor_files

    read: list[str] = []
    real = tensor_files.safe_open

    class Watched:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.file = real(*arguments, **options)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def get_tensor(self, name: str) -> Any:
            read.append(name)
            return self.file.get_tensor(name)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    monkeypatch.setattr(tensor_files, "safe_open", Watched)
    assert rdm("codes", "table", shards, "-o", tmp_path / "z.parquet").code == 0
    assert read == ["z"] * 5


def test_tables_of_shards_are_joined(rdm: Rdm, shards: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    parts = [tmp_path / f"{i}.parquet" for i in (1, 2)]
    for i, part in enumerate(parts, 1):
        assert rdm("codes", "table", shards, "-o", part, "--shard", f"{i}/2").code == 0
    whole = tmp_path / "whole.parquet"
    assert rdm("codes", "merge", *parts, "-o", whole).code == 0
    names = parquet.read_table(whole).column("name").to_pylist()
    assert sorted(names) == ["a", "b", "c", "d", "sub/e"]
    twice = rdm("codes", "merge", *parts, parts[0], "-o", whole)
    assert twice.code == 2 and "have this name" in twice.err
    assert parquet.read_table(whole).num_rows == 5  # as it was
    (tmp_path / "no.parquet").write_text("no table")
    assert "no.parquet" in rdm("codes", "merge", tmp_path / "no.parquet", "-o", whole).err


def test_without_pyarrow_one_line_names_the_extra(
    rdm: Rdm, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    result = rdm("codes", "table", shards, "-o", tmp_path / "z.parquet")
    assert result.code == 2
    assert result.err.splitlines()[0] == "rdm: a table of codes needs pyarrow; pip install 'rdm-cli[sources]'"


def test_what_is_merged_or_tabled_takes_no_other_files_place(rdm: Rdm, shards: Path, tmp_path: Path) -> None:
    first = min(shards.glob("*.jsonl"))
    notes, own = tmp_path / "notes.csv", tmp_path / "own.parquet"
    notes.write_text("a.png,1\n")
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"name": ["a"], "z": [1.0]}), own)
    before = [path.read_bytes() for path in (first, notes, own)]
    for result in (
        rdm("codes", "merge", shards, "-o", first),
        rdm("codes", "merge", shards, "-o", notes),
        rdm("codes", "table", shards, "-o", own),
    ):
        assert result.code in (1, 2) and str(tmp_path) in result.err
    assert [path.read_bytes() for path in (first, notes, own)] == before
    table = tmp_path / "z.parquet"
    assert (
        rdm("codes", "table", shards, "-o", table).code
        == rdm("codes", "table", shards, "-o", table).code
        == 0
    )
    made = table.read_bytes()
    assert rdm("codes", "merge", table, "-o", table).code == 1 and table.read_bytes() == made
