"""Tar archives as sources and sinks: keys, hostile members, damage, and archives that are equal again."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.data.io.places import put
from rdm_cli.data.sinks.tar import Tars
from rdm_cli.data.sources.folders import Item
from rdm_cli.data.sources.opening import sources_of
from rdm_cli.data.sources.tars import TarShard, split_key, tar_stem
from rdm_cli.errors import OccupiedError, SourceError, UsageError
from rdm_cli.jobs.batch import Outcome, Task, run_batches
from rdm_cli.jobs.results import Result


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
        ("a.b/img.v1.png", "a.b/img.v1", ".png"),
        ("./x/0001", "x/0001", ""),
    ],
)
def test_keys_are_names_without_their_last_suffix(name: str, key: str, kind: str) -> None:
    assert split_key(name) == (key, kind)


def test_every_image_is_an_item_with_dots_in_its_name_too(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "s-0.tar",
        ("cats/1.JPG", b"one"), ("cats/1.cls", b"3"), ("cats/1.v2.png", b"dots"), ("cats/2.json", b"{}"),
        ("cats/2.png", b"two"), ("cats/._2.png", b"hidden"), ("./.thumbs/2.png", b"hidden"),
    )  # fmt: skip
    assert read(path) == {
        f"{path}/cats/1.JPG": b"one", f"{path}/cats/1.v2.png": b"dots", f"{path}/cats/2.png": b"two"
    }  # fmt: skip
    shard = TarShard(str(path), suffixes=SUFFIXES)
    names = [item.relative.as_posix() for item in shard.items()]
    assert str(shard.passed_over) == "passed over 1 file of kind .cls, 1 file of kind .json"
    assert names == ["s-0/cats/1.JPG", "s-0/cats/1.v2.png", "s-0/cats/2.png"]
    packed = tmp_path / "s-0.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert list(read(packed).values()) == [b"one", b"dots", b"two"]


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
    found = read(path)
    assert found.pop(f"{path}/1.jpg") == (
        f"{path}/1.jpg: {path}/1.png came before it, and both have the name 1"
    )
    assert list(found.values()) == [b"1", b"2"]


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


def claiming(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


def header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["huge.png", "huge.bin"])
def test_a_member_that_claims_more_than_its_archive_has_does_not_hang(
    tmp_path: Path, name: str, packed: bool
) -> None:
    path = archive(tmp_path / "a.tar", ("1.png", b"1"))
    data = path.read_bytes()[:1024] + header(claiming(name, 2**60))
    path.write_bytes(gzip.compress(data) if packed else data)
    found = read(path)
    assert found.pop(f"{path}/1.png") == b"1"
    assert f"{2**60:,} bytes, more than" in str(found.pop(f"{path}/{name}"))
    ((rest, told),) = found.items()
    assert rest == f"{path}/(rest)" and "longer than its archive" in str(told)


SPARSE = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
ATTACKS = {
    "no end": b"",
    "garbage": b"\7" * 512 + bytes(1024),
    "a cut header": b"\7" * 100,
    "a negative size": header(claiming("n.png", -512)) + bytes(1024),
    "a negative size of attributes": header(claiming("n", -512, tarfile.XHDTYPE)) + bytes(1024),
    "a long name": header(claiming("n", 2**40, tarfile.GNUTYPE_LONGNAME)),
    "attributes": header(claiming("n", 2**40, tarfile.XHDTYPE)),
    "holes without end": header(claiming("n", len(SPARSE), tarfile.XHDTYPE))
    + SPARSE.ljust(512, b"\0")
    + header(claiming("n.png", 512))
    + b"9999999999999999\n".ljust(512, b"1"),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_never_taken_for_the_end_of_an_archive(tmp_path: Path, attack: str, packed: bool) -> None:
    path = archive(tmp_path / "a.tar", ("1.png", b"1"))
    data = path.read_bytes()[:1024] + ATTACKS[attack]
    path.write_bytes(gzip.compress(data) if packed else data)
    found = read(path)
    assert found.pop(f"{path}/1.png") == b"1"
    assert "damaged or cut short after" in str(found[f"{path}/(rest)"])


def test_archives_that_were_joined_are_read_to_their_end(tmp_path: Path) -> None:
    parts = [archive(tmp_path / f"{i}.tar", (f"{i}.png", b"%d" % i)).read_bytes() for i in range(3)]
    (path := tmp_path / "all.tar").write_bytes(b"".join(parts))
    assert list(read(path).values()) == [b"0", b"1", b"2"]
    path.write_bytes(b"".join(map(gzip.compress, parts)))
    assert list(read(path).values()) == [b"0", b"1", b"2"]
    damaged = bytearray(gzip.compress(parts[0]))
    damaged[-8] ^= 1  # the checksum: what was unpacked is not what was packed
    path.write_bytes(damaged)
    assert "CRC" in str(read(path)[f"{path}/(rest)"])


def test_an_archive_without_images_is_named(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", ("1.txt", b"1"), ("2.cls", b"2"))
    ((name, told),) = read(path).items()
    assert name == str(path) and told == f"{path}: nothing to read among its 2 members"
    with tarfile.open(path, "w"):
        pass
    assert "among its 0 members" in str(read(path)[str(path)])


@pytest.mark.parametrize("compression", ["bz2", "xz"])
def test_other_compressions_are_refused_by_name(tmp_path: Path, compression: str) -> None:
    with tarfile.open(tmp_path / "a.tar", f"w:{compression}") as file:  # type: ignore[call-overload]
        file.addfile(tarfile.TarInfo("1.png"))
    ((_, told),) = read(tmp_path / "a.tar").items()
    assert f"compressed with {compression.replace('2', 'ip2')}" in str(told)
    named = archive(tmp_path / "b.tar", ("BZhang.png", b"1"))
    assert list(read(named).values()) == [b"1"]


@pytest.mark.parametrize(
    ("name", "stem"),
    [("x/s.v1.tar", "s.v1"), ("a.targets.tar", "a.targets"), ("B.TAR", "B"), ("c.tar.gz", "c")],
)
def test_an_archive_is_called_as_its_file_without_the_last_suffix(name: str, stem: str) -> None:
    assert tar_stem(name) == stem


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
    # what is no result of this run is kept, as in a folder
    stamp = path.stat().st_mtime_ns
    write(tmp_path, {"a": None, "b": None}, "ab")
    assert path.stat().st_mtime_ns == stamp
    write(tmp_path, {"c": b"third", "d": b"4"}, "cd")
    assert members(path) == [("c.x", b"third"), ("d.x", b"4"), ("a.x", b"1"), ("b.x", b"new")]
    assert [p.name for p in tmp_path.iterdir()] == ["s.tar"]


def test_a_result_that_could_not_be_made_again_leaves_the_earlier_one(tmp_path: Path) -> None:
    write(tmp_path, {"a": b"1", "b": b"2"}, "ab")
    sink = Tars(str(tmp_path), None)
    first, second = (sink.place(item, ".x") for item in items_of("a.png", "b.png"))
    for place in (first, second):
        sink.expect(place)
    sink.settle(first, kept=False)  # and nothing was written
    put(second, b"new")
    sink.settle(second, kept=False)
    sink.close(complete=True)
    assert members(tmp_path / "s.tar") == [("b.x", b"new"), ("a.x", b"1")]


def test_members_that_fail_keep_no_archive_from_its_place(tmp_path: Path) -> None:
    """Several have the same name, and are settled before what stands before them."""
    sink = Tars(str(tmp_path), None)
    good, *bad = (sink.place(item, ".x") for item in items_of("a.png", "refused", "refused", "refused"))
    for place in (good, *bad):
        sink.expect(place)
    for place in bad:
        sink.settle(place, kept=False)
    put(good, b"1")
    sink.settle(good, kept=False)
    sink.close(complete=True)
    assert members(tmp_path / "s.tar") == [("a.x", b"1")]


def test_what_is_whole_in_a_damaged_archive_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    write(tmp_path, {"a": b"1", "b": bytes(5000), "c": b"3"}, "abc")
    path.write_bytes(path.read_bytes()[:3000])
    write(tmp_path, {"a": None, "b": b"2", "c": b"3"}, "abc")
    assert members(path) == [("a.x", b"1"), ("b.x", b"2"), ("c.x", b"3")]


@pytest.mark.parametrize("kind", ["dated", "link", "folder", "gzip", "text"])
def test_an_archive_that_rdm_did_not_write_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s.tar"
    if kind == "text":
        path.write_bytes(b"no archive")
    else:
        with tarfile.open(path, "w:gz" if kind == "gzip" else "w") as file:
            member = tarfile.TarInfo("notes.txt")
            member.mtime = 1_700_000_000 if kind == "dated" else 0
            member.type = {"link": tarfile.SYMTYPE, "folder": tarfile.DIRTYPE}.get(kind, tarfile.REGTYPE)
            file.addfile(member)
    before = path.read_bytes()
    with pytest.raises(OccupiedError, match="is there already"):
        write(tmp_path, {"a": b"1"}, "a")
    assert path.read_bytes() == before


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


def test_resuming_among_many_kept_members_leaves_each_as_it_was(tmp_path: Path) -> None:
    """The loader's thread reads what is kept while the main thread writes: no byte of any member changes.

    Archives follow one another, so that one ends while the next is being read.
    """
    rng = random.Random(0)
    expected = {
        f"{stem}/{i:04d}.x": rng.randbytes(rng.randrange(3000, 20000)) for stem in "st" for i in range(754)
    }
    new = {name for name in expected if name.endswith(("100.x", "300.x", "500.x", "700.x"))}
    items = [Item(source=Path(name), relative=Path(name).with_suffix(".png")) for name in expected]

    def job(names: set[str]) -> None:
        sink = Tars(str(tmp_path), None)

        def tasks() -> Iterator[Task]:
            for item in items:
                if str(item.source) in names:
                    place = sink.place(item, ".x")
                    sink.expect(place)
                    yield Task(source=item.source, target=place, name=str(item.source))

        def load(task: Task) -> bytes | Outcome[Task, Result]:
            if not task.target.is_file():
                return expected[task.name]
            assert task.target.read_bytes() == expected[task.name]
            return Outcome(item=task, result=Result(output=task.name, skipped=True))

        def process(batch: Sequence[Task], loaded: Sequence[bytes]) -> list[Result]:
            digests = [put(task.target, data) for task, data in zip(batch, loaded, strict=True)]
            return [Result(output=t.name, digest=d) for t, d in zip(batch, digests, strict=True)]

        for outcome in run_batches(tasks(), load=load, process=process, batch_size=2):
            assert outcome.result is not None
            sink.settle(outcome.item.target, kept=outcome.result.skipped)
        sink.close(complete=True)

    for names in (set(expected) - new, set(expected)):
        job(names)
        found = {f"{a}/{name}": data for a in "st" for name, data in members(tmp_path / f"{a}.tar")}
        assert list(found) == [name for name in expected if name in names]
        assert [name for name, data in found.items() if data != expected[name]] == []
