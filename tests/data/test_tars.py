"""Tar archives as sources and sinks: keys, hostile members, damage, and archives that are equal again."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from rdm_cli.data.folders import Item
from rdm_cli.data.images import SUFFIXES
from rdm_cli.data.places import put
from rdm_cli.data.source_names import sources_of
from rdm_cli.data.tar_sink import Tars
from rdm_cli.data.tars import TarShard, split_key
from rdm_cli.errors import SourceError, UsageError


def archive(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            file.addfile(info, io.BytesIO(member[1]))
    return path


def read(path: Path) -> dict[str, bytes | str]:
    """Of every item its content, or why it cannot be read."""
    found: dict[str, bytes | str] = {}
    for item in TarShard(str(path), suffixes=SUFFIXES).items():
        try:
            found[str(item.source)] = item.source.read_bytes()
        except SourceError as error:
            found[str(item.source)] = error.message
    return found


@pytest.mark.parametrize(
    ("name", "key", "kind"),
    [
        ("0001.jpg", "0001", ".jpg"),
        ("a.b/0001.seg.png", "a.b/0001", ".seg.png"),
        ("./x/0001", "x/0001", ""),
    ],
)
def test_keys_are_webdatasets(name: str, key: str, kind: str) -> None:
    assert split_key(name) == (key, kind)


def test_one_image_of_each_sample(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "s-0.tar",
        ("cats/1.JPG", b"one"), ("cats/1.cls", b"3"), ("cats/1.seg.png", b"mask"), ("cats/2.json", b"{}"),
        ("cats/2.png", b"two"),
    )  # fmt: skip
    assert read(path) == {f"{path}/cats/1.JPG": b"one", f"{path}/cats/2.png": b"two"}
    items = list(TarShard(str(path), suffixes=SUFFIXES).items())
    assert [item.relative.as_posix() for item in items] == ["s-0/cats/1.JPG", "s-0/cats/2.png"]
    packed = tmp_path / "s-0.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert list(read(packed).values()) == [b"one", b"two"]


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


HOSTILE = {
    "climbs": ("../../out.png", b"x"),
    "climbs out": ("a/../../out.png", b"x"),
    "climbs out ": ("..\\out.png", b"x"),
    "absolute": ("/etc/out.png", b"x"),
    "absolute name": ("C:\\out.png", b"x"),
    "a link": link("s.png", "/etc/passwd", tarfile.SYMTYPE),
    "a link ": link("h.png", "good.png", tarfile.LNKTYPE),
    "neither a file": link("fifo.png", "", tarfile.FIFOTYPE),
}


def test_hostile_members_are_refused_by_name_and_the_rest_is_read(tmp_path: Path) -> None:
    path = archive(tmp_path / "bad.tar", ("good.png", b"1"), *HOSTILE.values(), ("last.png", b"2"))
    found = read(path)
    assert found.pop(f"{path}/good.png") == b"1" and found.pop(f"{path}/last.png") == b"2"
    assert len(found) == len(HOSTILE)
    for why, (name, told) in zip(HOSTILE, found.items(), strict=True):
        assert isinstance(told, str) and why.strip() in told and name in told
    # and none of their names is where a result goes
    relatives = {item.relative.as_posix() for item in TarShard(str(path), suffixes=SUFFIXES).items()}
    assert relatives == {"bad/good.png", "bad/last.png", "bad/refused"}


def test_a_key_that_comes_twice_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", ("1.png", b"1"), ("2.png", b"2"), ("1.jpg", b"3"))
    assert "same key" in str(read(path)[f"{path}/1.jpg"])


def test_a_damaged_archive_fails_from_there_on(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", ("1.png", b"1" * 600), ("2.png", b"2" * 5000))
    path.write_bytes(path.read_bytes()[:3000])
    found = read(path)
    assert found[f"{path}/1.png"] == b"1" * 600
    assert "cut short" in str(found[f"{path}/2.png"])
    path.write_bytes(b"no archive at all")
    assert "damaged or cut short at its beginning" in str(read(path)[f"{path}/(rest)"])
    zipped = tmp_path / "b.tar.gz"
    zipped.write_bytes(gzip.compress(bytes(20000))[:30] + b"damage")
    assert len(read(zipped)) <= 1  # and no exception


def test_names_of_archives(tmp_path: Path) -> None:
    names = [tmp_path / f"s-{i:03d}.tar" for i in range(3)]
    for name in names:
        archive(name, ("1.png", b"1"))
    found = sources_of([str(tmp_path / "s-{000..002}.tar")], suffixes=SUFFIXES)
    assert [source.stem for source in found if isinstance(source, TarShard)] == ["s-000", "s-001", "s-002"]
    (tmp_path / "faces").mkdir()
    for wrong, why in (
        ([f"pipe:cat {names[0]}"], "runs a command"),
        ([str(names[0]), str(tmp_path / "faces")], "do not go with"),
        ([str(names[0]), str(names[0])], "would both be written to s-000/"),
        ([str(tmp_path / "s-{000..009}.tar")], r"s-003\.tar: no such file"),
    ):
        with pytest.raises(UsageError, match=why):
            sources_of(wrong, suffixes=SUFFIXES)
    (tmp_path / "list").write_text(f"{names[0]}\n")
    (listed,) = sources_of([], list_file=tmp_path / "list", suffixes=SUFFIXES)
    with pytest.raises(UsageError, match="in a list of files"):
        list(listed.items())


def items_of(*names: str) -> list[Item[Path]]:
    return [Item(source=Path(name), relative=Path("s") / name) for name in names]


def write(folder: Path, contents: dict[str, bytes | None], order: str) -> None:
    """A sink of one archive, whose results come in another order; None keeps what is there."""
    sink = Tars(str(folder), None)
    places = {
        item.relative.stem: sink.place(item, ".x") for item in items_of(*(f"{n}.png" for n in contents))
    }
    for place in places.values():
        sink.expect(place)
    for name in order:
        data = contents[name]
        if data is not None:
            put(places[name], data)
        else:
            assert places[name].is_file()
        sink.settle(places[name], kept=data is None)
    sink.close(complete=True)


def members(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as file:
        return [(m.name, file.extractfile(m).read()) for m in file]  # type: ignore[union-attr]


def test_members_stand_in_the_inputs_order_whenever_they_came(tmp_path: Path) -> None:
    contents: dict[str, bytes | None] = {"a": b"1", "b": b"2", "c": b"3"}
    write(tmp_path / "one", contents, "abc")
    write(tmp_path / "two", contents, "cba")
    assert members(tmp_path / "one" / "s.tar") == [("a.x", b"1"), ("b.x", b"2"), ("c.x", b"3")]
    assert (tmp_path / "one" / "s.tar").read_bytes() == (tmp_path / "two" / "s.tar").read_bytes()


def test_what_is_there_is_taken_over_and_an_unchanged_archive_stays(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    write(tmp_path, {"a": b"1", "b": b"2", "c": b"3"}, "abc")
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    write(tmp_path, {"a": None, "b": None, "c": None}, "cab")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, stamp)
    write(tmp_path, {"a": None, "b": b"new", "c": None}, "acb")
    assert members(path) == [("a.x", b"1"), ("b.x", b"new"), ("c.x", b"3")]
    write(tmp_path, {"a": None, "c": None}, "ac")
    assert members(path) == [("a.x", b"1"), ("c.x", b"3")]
    path.write_bytes(b"no archive")
    write(tmp_path, {"a": b"1"}, "a")
    assert members(path) == [("a.x", b"1")]
    assert [p.name for p in tmp_path.iterdir()] == ["s.tar"]


def test_an_interrupted_archive_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, {"a": b"1"}, "a")
    sink = Tars(str(tmp_path), None)
    first, second = (sink.place(item, ".x") for item in items_of("a.png", "b.png"))
    for place in (first, second):
        sink.expect(place)
    put(first, b"other")
    sink.settle(first, kept=False)
    sink.close(complete=False)
    assert [p.name for p in tmp_path.iterdir()] == ["s.tar"] and members(tmp_path / "s.tar") == [
        ("a.x", b"1")
    ]
