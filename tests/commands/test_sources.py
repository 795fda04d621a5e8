"""rdm encode and decode over archives and tables: the same codes as from files."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Rdm = Callable[..., Any]


def contents(folder: Path, suffix: str = ".safetensors") -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob(f"*{suffix}"))}


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as file:
        return {m.name: file.extractfile(m).read() for m in file}  # type: ignore[union-attr]


@pytest.fixture
def tars(faces: Path, tmp_path: Path) -> list[Path]:
    """``s-0.tar`` of three faces and a label, and ``s-1.tar`` of two."""
    paths = [tmp_path / "s-0.tar", tmp_path / "s-1.tar"]
    for path, names in zip(paths, ("abc", "de"), strict=True):
        with tarfile.open(path, "w") as file:
            for name in names:
                file.add(faces / ("sub" if name == "e" else "") / f"{name}.png", f"{name}.png")
    return paths


@pytest.fixture
def expected(tiny: Rdm, faces: Path, tmp_path: Path) -> dict[str, bytes]:
    """The codes of the faces, by their names alone."""
    assert tiny("encode", faces, "-o", tmp_path / "expected", "--steps", 1, "--batch-size", 8).code == 0
    return {Path(name).name: data for name, data in contents(tmp_path / "expected").items()}


def test_archives_give_the_codes_that_files_give(
    tiny: Rdm, rdm: Rdm, tars: list[Path], expected: dict[str, bytes], tmp_path: Path
) -> None:
    pattern, out, packed = tmp_path / "s-{0..1}.tar", tmp_path / "out", tmp_path / "packed"
    assert tiny("encode", pattern, "-o", out, "--steps", 1).code == 0
    assert {Path(name).name: data for name, data in contents(out).items()} == expected
    assert set(contents(out)) == {f"s-0/{n}.safetensors" for n in "abc"} | {
        f"s-1/{n}.safetensors" for n in "de"
    }
    command = ("encode", pattern, "-o", packed, "--tar", "--steps", 1)
    assert tiny(*command).code == 0
    assert members(packed / "s-0.tar") | members(packed / "s-1.tar") == expected
    stamps = {p: p.stat().st_mtime_ns for p in packed.iterdir()}
    again = tiny(*command)
    assert "5 already done" in again.err
    assert {p: p.stat().st_mtime_ns for p in packed.iterdir()} == stamps
    # shards divide archives whole, and are the whole together
    for i in (1, 2):
        assert tiny(
            *("encode", pattern, "-o", tmp_path / "parts", "--tar", "--steps", 1, "--shard", f"{i}/2")
        )
    for path in packed.iterdir():
        assert (tmp_path / "parts" / path.name).read_bytes() == path.read_bytes()
    assert rdm("codes", "verify", packed / "s-{0..1}.tar", "--json").code == 0
    assert tiny("decode", packed / "s-0.tar", "-o", tmp_path / "pictures", "--steps", 1).code == 0
    assert set(contents(tmp_path / "pictures", ".png")) == {f"s-0/{n}.png" for n in "abc"}


def test_files_into_an_archive(tiny: Rdm, faces: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    for options in (("--shard", "1/2"), ("--shard", "2/2"), ()):
        command = ("encode", faces, "-o", tmp_path / "o", "--tar", "--steps", 1, "--batch-size", 8)
        assert tiny(*command, *options).code == 0
    one, two = (members(tmp_path / "o" / f"encode-0000{i}-of-00002.tar") for i in (1, 2))
    whole = members(tmp_path / "o" / "encode-00001-of-00001.tar")
    assert one | two == whole and not one.keys() & two.keys()
    assert {Path(name).name: data for name, data in whole.items()} == expected


def test_one_bad_member_does_not_stop_the_rest(tiny: Rdm, tars: list[Path], tmp_path: Path) -> None:
    info = tarfile.TarInfo("../../evil.png")
    with tarfile.open(tars[0], "a") as file:
        file.addfile(info)
    result = tiny("encode", tars[0], "-o", tmp_path / "o", "--tar", "--no-x-t")
    assert result.code == 3 and len(result.lines) == 3
    assert f"rdm: {tars[0]}/../../evil.png: its name climbs out" in result.err
    assert set(members(tmp_path / "o" / "s-0.tar")) == {f"{n}.safetensors" for n in "abc"}


def test_what_has_no_place_is_refused(tiny: Rdm, tars: list[Path], faces: Path, tmp_path: Path) -> None:
    for words, why in (
        ((tars[0],), "no place beside it"),
        ((faces, "--tar"), "--tar needs a folder"),
        ((f"pipe:cat {tars[0]}", "-o", tmp_path / "o"), "runs a command"),
    ):
        result = tiny("encode", *words)
        assert result.code == 2 and why in result.err and len(result.err.splitlines()) == 1


def test_names_with_dots_go_into_archives_and_come_out_again(
    tiny: Rdm, rdm: Rdm, faces: Path, tmp_path: Path
) -> None:
    names = ["img.v1", "img.v2", "2024.01.05 a.b"]
    source, packed = tmp_path / "given.v3.tar", tmp_path / "packed"
    with tarfile.open(source, "w") as file:
        for name, face in zip(names, "abc", strict=True):
            file.add(faces / f"{face}.png", f"{name}.png")
    assert tiny("encode", source, "-o", packed, "--tar", "--no-x-t").code == 0
    made = packed / "given.v3.tar"
    assert list(members(made)) == [f"{name}.safetensors" for name in names]
    verified = rdm("codes", "verify", made)
    assert verified.code == 0 and "verified 3 codes" in verified.err
    assert tiny("decode", made, "-o", tmp_path / "pictures", "--steps", 1).code == 0
    assert set(contents(tmp_path / "pictures", ".png")) == {f"given.v3/{name}.png" for name in names}


def test_verify_knows_the_members_of_an_archive_that_a_manifest_records(
    tiny: Rdm, rdm: Rdm, faces: Path, tars: list[Path], tmp_path: Path
) -> None:
    for given, made in ((faces, "encode-00001-of-00001.tar"), (tars[0], "s-0.tar")):
        output, manifest = tmp_path / f"o-{made}", tmp_path / f"{made}.jsonl"
        command = ("encode", given, "-o", output, "--tar", "--no-x-t", "--manifest", manifest)
        assert tiny(*command).code == 0
        result = rdm("codes", "verify", output / made, "--manifest", manifest, "--json")
        assert result.code == 0, result.err
        assert all(one["recorded"] for one in result.objects) and len(result.objects) in (3, 5)


def test_an_input_that_gives_nothing_is_no_success(
    tiny: Rdm, rdm: Rdm, tars: list[Path], tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "text.tar", "w") as file:
        file.addfile(tarfile.TarInfo("a.txt"))
    alone = tiny("encode", tmp_path / "text.tar", "-o", tmp_path / "o", "--no-x-t")
    assert alone.code == 1 and f"rdm: {tmp_path}/text.tar: nothing to read among its 1 members" in alone.err
    both = tiny("encode", tmp_path / "text.tar", tars[0], "-o", tmp_path / "o", "--no-x-t")
    assert both.code == 3 and len(both.lines) == 3
    assert rdm("codes", "verify", tars[0]).code == 1


def test_a_vanished_path_and_a_shared_name_stop_nothing_else(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    (faces / "a.bmp").write_bytes((faces / "b.png").read_bytes())
    (empty := tmp_path / "empty").mkdir()
    listed = [faces / "gone.png", faces, empty, tmp_path / "gone.tar"]
    (tmp_path / "list").write_text("".join(f"{path}\n" for path in listed))
    command = ("encode", "--files-from", tmp_path / "list", "-o", tmp_path / "o", "--no-x-t")
    result = tiny(*command, "--failures", tmp_path / "failures", "--manifest", tmp_path / "m.jsonl")
    assert result.code == 3
    assert sorted(Path(line).name for line in result.lines) == [f"{n}.safetensors" for n in "bcde"]
    both = f"{faces}/a.bmp and {faces}/a.png would both be written to {tmp_path}/o/a.safetensors"
    expected = {
        f"rdm: {faces}/gone.png: no such file or folder",
        f"rdm: {empty}/: no images found; ",
        f"rdm: {tmp_path}/gone.tar: no such file or folder",
        f"rdm: {faces}/a.bmp: {both}; ",
        f"rdm: {faces}/a.png: {both}; ",
    }
    *lines, summary = result.err.splitlines()
    assert len(lines) == len(expected) and all(any(line.startswith(e) for line in lines) for e in expected)
    assert "5 failed" in summary and len((tmp_path / "failures").read_text().splitlines()) == 5
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 1 + 9
    # into an archive, whose other members go in
    assert tiny(*command, "--tar").code == 3
    assert sorted(members(tmp_path / "o" / "encode-00001-of-00001.tar")) == [
        "b.safetensors", "c.safetensors", "d.safetensors", "sub/e.safetensors"
    ]  # fmt: skip
    # beside the inputs
    beside = tiny("encode", "--files-from", tmp_path / "list", "--no-x-t")
    assert beside.code == 3 and len(beside.lines) == 4
    # each shard names what falls to it, and together they name all
    told = [tiny(*command, "--shard", f"{i}/2").err for i in (1, 2)]
    assert all(sum(line in one for one in told) == 1 for line in lines)


def test_several_bad_members_cost_no_archive_its_good_ones(
    tiny: Rdm, tars: list[Path], tmp_path: Path
) -> None:
    with tarfile.open(tars[0], "a") as file:
        for name in ("../1.png", "../2.png", "../3.png"):
            file.addfile(tarfile.TarInfo(name))
    result = tiny("encode", tars[0], "-o", tmp_path / "o", "--tar", "--no-x-t", "--batch-size", 8)
    assert result.code == 3 and "3 failed" in result.err
    assert set(members(tmp_path / "o" / "s-0.tar")) == {f"{n}.safetensors" for n in "abc"}


@pytest.fixture
def table(faces: Path, tmp_path: Path) -> Path:
    """A Parquet file as datasets writes it: five faces in row groups of two, and a row without bytes."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": p.read_bytes(), "path": p.name} for p in sorted(faces.rglob("*.png"))]
    images.append({"bytes": None, "path": "elsewhere.png"})
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    columns = {"label": list(range(6)), "image": arrow.array(images, type=kind)}
    parquet.write_table(arrow.table(columns), tmp_path / "train.parquet", row_group_size=2)
    return tmp_path / "train.parquet"


def test_image_sets_in_parquet(tiny: Rdm, table: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    def encoded(output: Path, *options: object) -> dict[str, Any]:
        from rdm_cli.codes.code import Codes

        result = tiny("encode", table, "-o", output, "--steps", 1, *options)
        assert result.code in (0, 3) and ("elsewhere.png" in result.err) == (result.code == 3)
        return {p.name: Codes.load(p) for p in sorted(output.rglob("*.safetensors"))}

    import torch

    whole = encoded(tmp_path / "whole")
    assert list(whole) == [f"{i:08d}.safetensors" for i in range(5)]
    for code, name in zip(whole.values(), sorted(expected), strict=True):
        (tmp_path / "one.safetensors").write_bytes(expected[name])
        from rdm_cli.codes.code import Codes

        other = Codes.load(tmp_path / "one.safetensors")
        assert torch.equal(code.z, other.z) and torch.equal(code.x_T, other.x_T)
        assert code.infos[0].source_digest == other.infos[0].source_digest
    for i in (1, 2):
        encoded(tmp_path / "parts", "--shard", f"{i}/2")
        encoded(tmp_path / "tars", "--tar", "--shard", f"{i}/2")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    packed = [members(p) for p in (tmp_path / "tars").glob("*.tar")]
    assert {f"train/{n}": d for part in packed for n, d in part.items()} == contents(tmp_path / "whole")


def test_the_column_of_a_table_is_chosen(tiny: Rdm, table: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    images = parquet.read_table(table).column("image")
    labels = {"left": images.slice(0, 2), "right": images.slice(2, 2)}
    import pyarrow as arrow

    parquet.write_table(arrow.table(labels), tmp_path / "two.parquet")
    command = ("encode", tmp_path / "two.parquet", "-o", tmp_path / "o", "--no-x-t")
    refused = tiny(*command)
    assert (
        refused.code == 1
        and "2 columns may hold images (left, right); choose one with --column" in refused.err
    )
    assert tiny(*command, "--column", "right").code == 0
    wrong = tiny("encode", table.parent / "faces", "-o", tmp_path / "o", "--column", "right")
    assert wrong.code == 2 and "none of the inputs is a .parquet file" in wrong.err


def test_tables_without_images_are_named(tiny: Rdm, table: Path, tmp_path: Path, monkeypatch: Any) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.table({"label": [1]}), tmp_path / "labels.parquet")
    (tmp_path / "broken.parquet").write_text("PAR1 no table")
    result = tiny("encode", tmp_path / "{labels,broken}.parquet", "-o", tmp_path / "o")
    assert result.code == 1
    labels, broken = result.err.splitlines()[:2]
    assert "none of its columns holds images (label)" in labels and "broken.parquet: damaged" in broken
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    result = tiny("encode", table, "-o", tmp_path / "o")
    assert (result.code, result.err) == (
        2, "rdm: reading Parquet files needs pyarrow; pip install 'rdm-cli[sources]'\n"
    )  # fmt: skip


def test_lmdbs_of_the_papers(tiny: Rdm, faces: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    path = tmp_path / "ffhq.lmdb"
    with lmdb.open(str(path), map_size=2**24) as env, env.begin(write=True) as writing:
        writing.put(b"length", b"5")
        for i, image in enumerate(sorted(faces.rglob("*.png"))):
            writing.put(f"8-{i:05d}".encode(), b"smaller")
            writing.put(f"16-{i:05d}".encode(), image.read_bytes())
    for i in (1, 2, 3):
        result = tiny("encode", path, "-o", tmp_path / "o", "--steps", 1, "--shard", f"{i}/3")
        assert result.code == 0 and "of 5 items" in result.err
    digests = {name: hashlib.sha256(data).digest() for name, data in expected.items()}
    found = contents(tmp_path / "o")
    assert list(found) == [f"16-{i:05d}.safetensors" for i in range(5)] and len(digests) == 5
    refused = tiny("encode", path)
    assert refused.code == 2 and "no place beside it" in refused.err
    (tmp_path / "bad.lmdb").write_bytes(b"nothing")
    broken = tiny("encode", tmp_path / "bad.lmdb", "-o", tmp_path / "o")
    assert broken.code == 1 and "not an LMDB that can be read" in broken.err
