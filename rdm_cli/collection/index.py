r"""An index of a collection: the nearest of a million codes without reading them all.

    INDEX/index.json             what it is of, the space, and which files are its parts, in order
    INDEX/000012.graph           usearch's HNSW graph over int8 directions of up to 262,144 codes
    INDEX/000012.z.npy           the same codes' norm(z) as float16 (n, d)
    INDEX/000012.rows.arrow      their names, paths and fingerprints

The graph (Malkov & Yashunin 2016, arXiv 1603.09320) proposes candidates by rounded cosines; their cosines
are then computed from float16, so rounding to int8 costs no hit that was proposed. All files are
memory-mapped on search.

Building writes the part that grows every 65,536 codes, under new names, and then ``index.json``, each whole
or not at all: a kill loses the codes since then, and the next build goes on from there. A code is known by
its fingerprint, of name and z. The next build adds what is new; a part with codes that have changed, or are
gone, is built anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rdm_cli.collection.nearest import Hit
from rdm_cli.collection.rows import Collection, Rows, require_bundle
from rdm_cli.collection.space import Space, unit
from rdm_cli.data.io.atomic import atomic_path, write_whole
from rdm_cli.data.io.json_text import read_object
from rdm_cli.data.io.optional import optional_module
from rdm_cli.data.io.places import digest_of
from rdm_cli.errors import CodeError, OccupiedError

CONTENTS = "index.json"
FORMAT_VERSION = 1
PART_ROWS = 2**18
CHECKPOINT_ROWS = 2**16
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 16, 64, 240
NUM_CANDIDATES = 4  # of each part, for each hit that is asked for
LEAST_CANDIDATES = 40
FULL_SCALE = 4.0  # standard deviations of a direction's component that int8 reaches
LARGEST_Z = 6e4  # of norm(z), in float16
SUFFIXES = (".graph", ".z.npy", ".rows.arrow")


@dataclass(frozen=True, kw_only=True)
class File:
    """A file as it was written: its size, SHA-256, and the time by which a later change is noticed."""

    size: int
    digest: str
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """``num_rows`` codes in three files, by their suffixes; ``number`` begins their names."""

    number: int
    num_rows: int
    files: dict[str, File]

    def path(self, folder: Path, suffix: str) -> Path:
        """One of its files."""
        return folder / f"{self.number:06d}{suffix}"


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What ``index.json`` in the folder ``place`` says. ``complete``: the last build came to its end."""

    place: Path
    source: str
    bundle: str | None
    bundle_digest: str | None
    space: Space
    parts: tuple[Part, ...] = ()
    complete: bool = False

    @property
    def num_rows(self) -> int:
        """How many codes there are."""
        return sum(part.num_rows for part in self.parts)

    @property
    def width(self) -> int:
        """d, the number of values in z."""
        return len(self.space.z_mean)


@dataclass(kw_only=True)
class Built:
    """What a build found: codes that were there, that are new, and that have changed or are gone."""

    num_known: int = 0
    num_added: int = 0
    num_stale: int = 0


def is_index(place: Path) -> bool:
    """Whether ``place`` is the folder of an index, whole or not."""
    return (place / CONTENTS).is_file()


def build_index(
    collection: Collection,
    folder: Path,
    space: Callable[[], Space],
    *,
    threads: int = 0,
    advance: Callable[[float], None] = lambda amount: None,
) -> Built:
    """Make the index of ``collection`` in ``folder``, or bring the one that is there up to date.

    ``space`` is asked where there is none yet; ``threads`` 0: all cores. Raises CodeError where the index is
    damaged or of another bundle, OccupiedError for a folder of other things, UsageError without usearch.
    """
    usearch_index()
    if is_index(folder):
        contents = read_contents(folder)
        require_bundle(contents, str(collection.bundle), str(collection.bundle_digest))
        if contents.width != collection.width:
            raise CodeError(f"{folder}: its codes have {contents.width} values, and not {collection.width}")
        for part in contents.parts:
            _check_files(folder, part)
    else:
        _refuse_other(folder)
        contents = Contents(
            place=folder,
            source=str(collection.place.absolute()),
            bundle=collection.bundle,
            bundle_digest=collection.bundle_digest,
            space=space(),
        )
    contents = replace(contents, source=str(collection.place.absolute()), complete=False)
    _write_contents(folder, contents)
    built = Built()
    stale = _add(contents, collection, folder, built, threads, advance)
    if stale:
        kept = tuple(part for i, part in enumerate(read_contents(folder).parts) if i not in stale)
        contents = replace(contents, parts=kept)
        _write_contents(folder, contents)
        _add(contents, collection, folder, Built(), threads, lambda amount: None)
    _write_contents(folder, replace(read_contents(folder), complete=True))
    _remove_others(folder)
    return built


def _refuse_other(folder: Path) -> None:
    """Make ``folder``; raises OccupiedError where it holds other things than a killed build's beginning."""
    if folder.exists() and not folder.is_dir():
        raise OccupiedError(f"{folder}: is there already, and is no index", hint="name another with -o")
    folder.mkdir(parents=True, exist_ok=True)
    if any(not name.startswith(".rdm-") for name in os.listdir(folder)):
        raise OccupiedError(f"{folder}: holds other things than an index", hint="name another with -o")


def _add(
    contents: Contents,
    collection: Collection,
    folder: Path,
    built: Built,
    threads: int,
    advance: Callable[[float], None],
) -> set[int]:
    """Add the codes that are not there yet; returns the numbers of the parts that hold others than those."""
    known = [_rows(folder, part)["fingerprint"].to_numpy() for part in contents.parts]
    owner = np.repeat(np.arange(len(known)), [len(prints) for prints in known])
    prints = np.concatenate([*known, np.empty(0, dtype=np.uint64)])
    order = np.argsort(prints, kind="stable")
    prints, owner = prints[order], owner[order]
    seen = np.zeros(len(prints), dtype=bool)
    growing = _Growing(folder, contents, threads)
    for rows in collection.rows():
        found = fingerprints(rows)
        at = np.minimum(np.searchsorted(prints, found), max(0, len(prints) - 1))
        is_known = prints[at] == found if len(prints) else np.zeros(len(found), dtype=bool)
        seen[at[is_known]] = True
        growing.add(rows, found, np.flatnonzero(~is_known))
        built.num_known += int(is_known.sum())
        built.num_added += int((~is_known).sum())
        advance(len(found))
    growing.save()
    seen = seen[np.searchsorted(prints, prints)]  # of equal ones, the first was marked
    built.num_stale += int((~seen).sum())
    return set(owner[~seen].tolist())


def fingerprints(rows: Rows) -> np.ndarray:
    """64 bits (N,) uint64 for each row's name and z."""
    z = np.ascontiguousarray(rows.z, dtype=np.float32)
    digests = (
        hashlib.blake2b(values.data, digest_size=8, key=hashlib.sha256(_as_bytes(name)).digest()).digest()
        for name, values in zip(rows.names, z, strict=True)
    )
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


class _Growing:
    """The last part of an index, which is in memory and takes codes until it is full."""

    def __init__(self, folder: Path, contents: Contents, threads: int) -> None:
        self._folder = folder
        self._contents = contents
        self._threads = threads
        self._unsaved = 0
        self._next = max((part.number for part in contents.parts), default=-1) + 1
        self._graph = self._new_graph()
        self._names: list[str] = []
        self._paths: list[str] = []
        self._prints: list[int] = []
        self._z: list[np.ndarray] = []
        if contents.parts and contents.parts[-1].num_rows < PART_ROWS:
            self._go_on()

    def _new_graph(self) -> Any:
        return usearch_index()(
            ndim=self._contents.width,
            metric="cos",
            dtype="i8",
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD,
            expansion_search=EXPANSION_SEARCH,
        )

    def _go_on(self) -> None:
        """Take the last part up again."""
        *others, last = self._contents.parts
        self._contents = replace(self._contents, parts=tuple(others))
        rows = _rows(self._folder, last)
        self._names, self._paths = ([*map(_as_text, rows[c].to_pylist())] for c in ("name", "path"))
        self._prints = rows["fingerprint"].to_pylist()
        self._z = [np.load(last.path(self._folder, ".z.npy"))]
        self._graph.load(str(last.path(self._folder, ".graph")))

    def add(self, rows: Rows, prints: np.ndarray, chosen: np.ndarray) -> None:
        """Take in the ``chosen`` of some rows, and write what there is every so often."""
        while len(chosen):
            some, chosen = np.split(chosen, [PART_ROWS - len(self._names)])
            z = self._contents.space.standardised(rows.z[some])
            keys = np.arange(len(self._names), len(self._names) + len(some), dtype=np.uint64)
            with _interrupted():
                self._graph.add(keys, _as_int8(unit(z)), threads=self._threads)
            self._names += [rows.names[i] for i in some]
            self._paths += [rows.paths[i] for i in some]
            self._prints += prints[some].tolist()
            self._z.append(z.clip(-LARGEST_Z, LARGEST_Z).astype(np.float16))
            self._unsaved += len(some)
            if self._unsaved >= CHECKPOINT_ROWS or len(self._names) == PART_ROWS:
                self.save()

    def save(self) -> None:
        """Write the part, and then that it is there."""
        if not self._unsaved:
            return
        self._z = [np.concatenate(self._z)]
        parts = (*self._contents.parts, self._write(self._next))
        self._next += 1
        _write_contents(self._folder, replace(self._contents, parts=parts))
        _remove_others(self._folder)
        self._unsaved = 0
        if len(self._names) == PART_ROWS:  # the next codes begin another
            self._contents = replace(self._contents, parts=parts)
            self._graph = self._new_graph()
            for held in (self._names, self._paths, self._prints, self._z):
                held.clear()

    def _write(self, number: int) -> Part:
        arrow, ipc = _arrow()
        part = Part(number=number, num_rows=len(self._names), files={})
        with atomic_path(part.path(self._folder, ".graph")) as temporary:
            self._graph.save(str(temporary))
        with atomic_path(part.path(self._folder, ".z.npy")) as temporary, temporary.open("wb") as file:
            np.save(file, self._z[0])
        table = arrow.table(
            {
                "name": arrow.array(map(_as_bytes, self._names), type=arrow.binary()),
                "path": arrow.array(map(_as_bytes, self._paths), type=arrow.binary()),
                "fingerprint": arrow.array(self._prints, type=arrow.uint64()),
            }
        )
        with atomic_path(part.path(self._folder, ".rows.arrow")) as temporary:
            with arrow.OSFile(str(temporary), "wb") as file, ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
        return replace(
            part, files={suffix: _as_written(part.path(self._folder, suffix)) for suffix in SUFFIXES}
        )


@contextmanager
def _interrupted() -> Iterator[None]:
    """Within the block, Ctrl-C is what it is elsewhere: usearch makes another error of it."""
    try:
        yield
    except RuntimeError as error:
        if "terminated" in str(error):
            raise KeyboardInterrupt from error
        raise


def _as_bytes(name: str) -> bytes:
    """A name as it is stored: names of files need not be UTF-8."""
    return name.encode("utf-8", "surrogateescape")


def _as_text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _as_int8(directions: np.ndarray) -> np.ndarray:
    """Directions (N, d) of length 1 as int8: a component of 4 standard deviations is 127."""
    scale = 127 / FULL_SCALE * np.sqrt(directions.shape[1])
    found: np.ndarray = np.clip(np.rint(directions * scale), -127, 127).astype(np.int8)
    return found


class Index:
    """An index that is open to be searched; its files are memory-mapped.

    Raises CodeError where it is damaged, of another format, or holds nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.contents = read_contents(folder)
        self.place, self.width = folder, self.contents.width
        self.bundle, self.bundle_digest = self.contents.bundle, self.contents.bundle_digest
        if not self.contents.num_rows:
            raise CodeError(f"{folder}: an index of no codes", hint=_go_on(self.contents))
        self._parts = [_OpenPart(folder, part, self.width) for part in self.contents.parts]

    @property
    def remark(self) -> str | None:
        """What a person should know before trusting it."""
        if self.contents.complete:
            return None
        return f"holds the first {self.contents.num_rows} codes: {_go_on(self.contents)}"

    def search(self, direction: np.ndarray, num: int) -> list[Hit]:
        """The ``num`` codes of the greatest cosine with ``direction`` (d,), which has length 1."""
        wanted = max(LEAST_CANDIDATES, NUM_CANDIDATES * num)
        found: list[tuple[float, int, int]] = []
        for number, part in enumerate(self._parts):
            keys, cosines = part.nearest(direction, wanted)
            best = np.argsort(-cosines, kind="stable")[:num]
            found += [(float(cosines[i]), number, int(keys[i])) for i in best]
        found.sort(key=lambda one: (-one[0], *one[1:]))
        return [self._parts[number].hit(key, cosine) for cosine, number, key in found[:num]]


class _OpenPart:
    def __init__(self, folder: Path, part: Part, width: int) -> None:
        _check_files(folder, part)
        try:
            self._graph = usearch_index().restore(str(part.path(folder, ".graph")), view=True)
            self._z = np.load(part.path(folder, ".z.npy"), mmap_mode="r")
            self._rows = _rows(folder, part)
            sizes = {len(self._graph), len(self._z), len(self._rows), part.num_rows}
            if len(sizes) > 1 or self._graph.ndim != width or self._z.shape[1:] != (width,):
                raise ValueError("its files do not belong together")
        except (ValueError, RuntimeError, OSError, AttributeError, TypeError) as error:
            raise _damaged(folder, f"part {part.number} ({error})") from error
        self._graph.expansion_search = EXPANSION_SEARCH

    def nearest(self, direction: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and cosines of the candidates of the graph."""
        num = min(num, len(self._z))
        keys = self._graph.search(_as_int8(direction[None])[0], num, threads=1).keys
        return keys, unit(self._z[keys].astype(np.float32)) @ direction

    def hit(self, key: int, cosine: float) -> Hit:
        name, path = (_as_text(self._rows[column][key].as_py()) for column in ("name", "path"))
        return Hit(name=name, path=path, score=cosine)


def read_contents(folder: Path) -> Contents:
    """What an index says of itself; raises CodeError where that cannot be read."""
    path = folder / CONTENTS
    try:
        values = read_object(path)
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise CodeError(
                f"{folder}: an index of format {version}, this rdm reads {FORMAT_VERSION}",
                hint="build it again: rdm codes index",
            )
        space, parts = values["space"], values["parts"]
        z_mean, z_std = (np.array(space[name], dtype=np.float32) for name in ("z_mean", "z_std"))
        if z_mean.ndim != 1 or z_mean.shape != z_std.shape or not (z_std > 0).all() or not len(z_mean):
            raise ValueError("its space is none")
        return Contents(
            place=folder,
            source=str(values["source"]),
            bundle=values["bundle"],
            bundle_digest=values["bundle_digest"],
            space=Space(z_mean=z_mean, z_std=z_std, origin=str(space["origin"])),
            parts=tuple(_part_of(part) for part in parts),
            complete=values["complete"] is True,
        )
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise _damaged(folder, f"{CONTENTS} ({error})") from error


def _part_of(values: dict[str, Any]) -> Part:
    files = {suffix: File(**values["files"][suffix]) for suffix in SUFFIXES}
    number, num_rows = values["number"], values["num_rows"]
    if not all(isinstance(value, int) and value >= 0 for value in (number, num_rows)):
        raise ValueError("a part without its numbers")
    return Part(number=number, num_rows=num_rows, files=files)


def _write_contents(folder: Path, contents: Contents) -> None:
    space = contents.space
    values = {
        "format_version": FORMAT_VERSION,
        "source": contents.source,
        "bundle": contents.bundle,
        "bundle_digest": contents.bundle_digest,
        "complete": contents.complete,
        "parts": [asdict(part) for part in contents.parts],
        "space": {
            "origin": space.origin,
            "z_mean": space.z_mean.tolist(),
            "z_std": space.z_std.tolist(),
        },
    }
    write_whole(folder / CONTENTS, json.dumps(values, indent=1).encode() + b"\n")


def _as_written(path: Path) -> File:
    told = path.stat()
    return File(size=told.st_size, digest=digest_of(path), mtime_ns=told.st_mtime_ns)


def _check_files(folder: Path, part: Part) -> None:
    """Raise CodeError where a file is not what was written.

    A file of the time and size that were recorded is taken to be; any other is read whole, once, for its
    digest. A graph that is damaged must not be searched: usearch follows what stands in it.
    """
    for suffix, file in part.files.items():
        path = part.path(folder, suffix)
        try:
            told = path.stat()
        except OSError as error:
            raise _damaged(folder, f"{path.name} ({error.strerror})") from error
        if told.st_size != file.size:
            raise _damaged(folder, f"{path.name} has {told.st_size} bytes, and not {file.size}")
        if told.st_mtime_ns != file.mtime_ns and digest_of(path) != file.digest:
            raise _damaged(folder, f"{path.name} is not what was written")


def _damaged(folder: Path, what: str) -> CodeError:
    return CodeError(
        f"{folder}: a damaged index: {what}", hint="remove the folder, and build it again: rdm codes index"
    )


def _go_on(contents: Contents) -> str:
    return f"its building was ended; go on with: rdm codes index {contents.source} -o {contents.place}"


def _remove_others(folder: Path) -> None:
    """Remove files of parts that the contents do not name: of older checkpoints, or of a killed build."""
    named = {part.number for part in read_contents(folder).parts}
    for path in _part_files(folder):
        if int(path.name[:6]) not in named:
            path.unlink(missing_ok=True)


def _part_files(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        if entry.name[:6].isdigit() and entry.name[6:] in SUFFIXES:
            yield Path(entry.path)


def _rows(folder: Path, part: Part) -> Any:
    arrow, ipc = _arrow()
    try:
        return ipc.open_file(arrow.memory_map(str(part.path(folder, ".rows.arrow")))).read_all()
    except (arrow.ArrowInvalid, OSError) as error:
        raise _damaged(folder, f"part {part.number} ({error})") from error


def _arrow() -> tuple[Any, Any]:
    purpose = "an index of codes"
    return (
        optional_module("pyarrow", package="pyarrow", purpose=purpose, extra="search"),
        optional_module("pyarrow.ipc", package="pyarrow", purpose=purpose, extra="search"),
    )


def usearch_index() -> Any:
    """usearch's class of an index; UsageError with the remedy where it is absent."""
    module = optional_module("usearch.index", package="usearch", purpose="an index of codes", extra="search")
    return module.Index
