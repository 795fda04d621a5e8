"""The index: what it finds, what a kill leaves, and what it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdm_cli.collection import index as index_module
from rdm_cli.collection.index import Built, Index, build_index, read_contents
from rdm_cli.collection.nearest import best_of, cosine_score, mean_direction
from rdm_cli.collection.rows import Collection, Rows, open_collection
from rdm_cli.collection.space import Space, space_of_rows
from rdm_cli.errors import CodeError, OccupiedError

pytest.importorskip("usearch", reason="usearch is not installed")
MakeTable = Callable[..., Path]


def codes(num: int, seed: int = 0) -> np.ndarray:
    """Codes of 32 numbers, most of whose variation lies in few directions, as that of real ones does."""
    rng = np.random.default_rng(seed)
    mixed = np.random.default_rng(99).standard_normal((32, 32)) * 0.85 ** np.arange(32)[:, None]
    return (rng.standard_normal((num, 32)) @ mixed).astype(np.float32)


def build(table: Path, folder: Path) -> Built:
    collection = open_collection(table)
    return build_index(collection, folder, lambda: space_of_rows(collection), threads=1)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 1,000 codes, written every 300."""
    monkeypatch.setattr(index_module, "PART_ROWS", 1000)
    monkeypatch.setattr(index_module, "CHECKPOINT_ROWS", 300)


def names(folder: Path, z: np.ndarray, num: int = 10) -> list[str]:
    opened = Index(folder)
    return [hit.name for hit in opened.search(mean_direction(opened.contents.space, z), num)]


def test_an_index_finds_what_exact_search_finds(
    make_table: MakeTable, tmp_path: Path, small_parts: None
) -> None:
    z = codes(3500)
    planted = [10, 999, 1000, 3499]
    z[planted] = z[0] + 0.001
    table = make_table(z)
    assert build(table, tmp_path / "i") == Built(num_known=0, num_added=3500)
    opened, collection = Index(tmp_path / "i"), open_collection(table)
    assert [part.num_rows for part in opened.contents.parts] == [1000, 1000, 1000, 500]
    found = opened.search(mean_direction(opened.contents.space, z[:1]), 5)
    assert {hit.name for hit in found} == {f"{i:06d}" for i in [0, *planted]}
    assert found[0].score == pytest.approx(1, abs=1e-3) and found[0].path.startswith("codes/")
    shared = 0
    for query in codes(40, seed=1):
        exact = best_of(collection, 10, cosine_score(opened.contents.space, query[None]))
        shared += len({hit.name for hit in exact.hits} & set(names(tmp_path / "i", query[None])))
    assert shared >= 0.98 * 400


def test_new_codes_are_added_and_changed_ones_replaced(
    make_table: MakeTable, tmp_path: Path, small_parts: None
) -> None:
    z, folder = codes(2600), tmp_path / "i"
    build(make_table(z[:2200]), folder)
    first = read_contents(folder).parts[0]
    assert build(make_table(z), folder) == Built(num_known=2200, num_added=400)
    assert read_contents(folder).parts[0] == first  # what is full stays as it is
    assert names(folder, z[2500:2501], 1) == ["002500"]
    z[1500] = -z[1500]
    called = [f"{i:06d}" for i in range(2600)]
    del called[5]
    assert build(make_table(np.delete(z, 5, axis=0), called), folder) == Built(
        num_known=2598, num_added=1, num_stale=2
    )
    assert names(folder, z[1500:1501], 1) == ["001500"] and names(folder, -z[1500:1501], 1) != ["001500"]
    assert "000005" not in names(folder, z[5:6], 5)
    assert sum(part.num_rows for part in Index(folder).contents.parts) == 2599
    kept = {f"{part.number:06d}" for part in read_contents(folder).parts}
    assert {path.name[:6] for path in folder.iterdir() if path.name != "index.json"} == kept
    assert build(make_table(np.delete(z, 5, axis=0), called), folder).num_added == 0


KILLED = """
import sys
from pathlib import Path
from rdm_cli.collection import index
index.PART_ROWS, index.CHECKPOINT_ROWS = 1500, 500
from rdm_cli.collection.rows import open_collection
from rdm_cli.collection.space import Space, space_of_rows
import rdm_cli.collection.rows as rows
rows.ROWS_AT_ONCE = 100
write = index._write_contents
def slowly(folder, contents):
    write(folder, contents)
    print(contents.num_rows, flush=True)
    sys.stdin.readline()
index._write_contents = slowly
collection = open_collection(Path(sys.argv[1]))
index.build_index(collection, Path(sys.argv[2]), lambda: space_of_rows(collection), threads=1)
"""


def test_what_a_kill_interrupts_goes_on(make_table: MakeTable, tmp_path: Path) -> None:
    z, folder = codes(4000), tmp_path / "i"
    table = make_table(z)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(table), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    told = 0
    while told < 2000:
        told = int(process.stdout.readline())
        if told < 2000:
            process.stdin.write("\n")
            process.stdin.flush()
    process.stdin.write("\n")
    process.stdin.flush()
    time.sleep(0.02)  # it is somewhere in the next 500
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = read_contents(folder).num_rows
    assert kept >= 2000
    opened = Index(folder)
    assert opened.remark is not None and "go on with: rdm codes index" in opened.remark
    assert names(folder, z[1234:1235], 1) == ["001234"]
    assert build(table, folder) == Built(num_known=kept, num_added=4000 - kept)
    assert Index(folder).remark is None and Index(folder).contents.num_rows == 4000
    assert all(names(folder, z[i : i + 1], 1) == [f"{i:06d}"] for i in range(0, 4000, 333))
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".rdm-")]


def test_an_index_of_another_bundle_is_not_mixed_with_this_one_s_codes(
    make_table: MakeTable, tmp_path: Path
) -> None:
    build(make_table(codes(100)), tmp_path / "i")
    before = (tmp_path / "i" / "index.json").read_bytes()
    with pytest.raises(CodeError, match="its codes were made with bundle made-up"):
        build(make_table(codes(100), path="b.parquet", bundle_digest="cd" * 32), tmp_path / "i")
    assert (tmp_path / "i" / "index.json").read_bytes() == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(OccupiedError):
        build(make_table(codes(100)), tmp_path / "notes")
    assert os.listdir(tmp_path / "notes") == ["mine.txt"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "cut graph": lambda i: (i / "000000.graph").write_bytes((i / "000000.graph").read_bytes()[:-100]),
    "flipped graph": lambda i: flip(i / "000000.graph"),
    "flipped z": lambda i: flip(i / "000000.z.npy"),
    "no rows": lambda i: (i / "000000.rows.arrow").unlink(),
    "no json": lambda i: (i / "index.json").write_text('{"format_version": 1, "parts": ['),
    "other json": lambda i: (i / "index.json").write_text('{"format_version": 1, "parts": 7, "space": []}'),
    "deep json": lambda i: (i / "index.json").write_text("[" * 100_000),
    "later format": lambda i: (i / "index.json").write_text('{"format_version": 99}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_one_error_and_no_search(
    make_table: MakeTable, tmp_path: Path, damage: str
) -> None:
    folder, table = tmp_path / "i", make_table(codes(300))
    build(table, folder)
    DAMAGES[damage](folder)
    for use in (lambda: Index(folder), lambda: build(table, folder)):
        with pytest.raises(CodeError) as error:
            use()
        assert str(folder) in error.value.message and "rdm codes index" in str(error.value.hint)


def test_names_that_are_no_utf_8_and_codes_of_huge_values_are_found(tmp_path: Path) -> None:
    z = codes(50)
    z[7] *= 1e6
    called = [os.fsdecode(b"caf\xe9-%d" % i) for i in range(50)]
    whole = Rows(names=called, paths=called, z=z, recorded={"bundle_digest": ["d"] * 50})

    class Listed(Collection):
        def rows(self, recorded: Any = ()) -> Any:
            yield whole

    listed = Listed(place=tmp_path, bundle="b", bundle_digest="d", width=32)
    space = Space(z_mean=np.zeros(32, np.float32), z_std=np.ones(32, np.float32), origin="nobody")
    build_index(listed, tmp_path / "i", lambda: space, threads=1)
    assert names(tmp_path / "i", z[7:8], 1) == [called[7]] and names(tmp_path / "i", z[3:4], 1) == [called[3]]


def test_a_build_that_was_killed_at_its_beginning_goes_on(make_table: MakeTable, tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / ".rdm-index-0123abcd.json").write_text("{")
    assert build(make_table(codes(40)), tmp_path / "i").num_added == 40


def test_rows_that_are_twice_in_a_table_are_not_taken_for_changed(
    make_table: MakeTable, tmp_path: Path
) -> None:
    z = codes(40)
    table = make_table(np.concatenate([z, z[:3]]), [f"{i}" for i in range(40)] + ["0", "1", "2"])
    build(table, tmp_path / "i")
    assert build(table, tmp_path / "i") == Built(num_known=43)


def test_a_copied_index_is_checked_by_its_digests_and_opens(make_table: MakeTable, tmp_path: Path) -> None:
    z = codes(300)
    build(make_table(z), tmp_path / "i")
    (tmp_path / "copy").mkdir()
    for path in (tmp_path / "i").iterdir():
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    assert names(tmp_path / "copy", z[7:8], 1) == ["000007"]
