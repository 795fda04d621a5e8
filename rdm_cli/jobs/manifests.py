"""What a batch job did, item by item: a JSONL file a shard, appended to as items are done.

A line is a :class:`Part`, with which each run begins (and ends, where only the end tells how many items there
were), or a :class:`Record`. An input's latest record counts. A process that is killed leaves at most its last
line cut short; the next run goes on below it, and readers pass it over.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from rdm_cli.data.io.atomic import naming
from rdm_cli.data.io.json_text import parse_object
from rdm_cli.data.io.places import digest_of
from rdm_cli.data.sources.remote import RemoteFile, is_url, local_name, names_below, place_of
from rdm_cli.data.sources.shards import Shard, fingerprint, parse_shard
from rdm_cli.errors import UsageError
from rdm_cli.jobs.batch import Outcome, Task
from rdm_cli.jobs.results import Result

SUFFIX = ".manifest.jsonl"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A run: the command's ``verb``, its shard, and how many items fall to it (None: not known yet)."""

    verb: str
    shard: Shard
    num_items: int | None

    @property
    def file_name(self) -> str:
        """What its manifest is called: ``encode-00001-of-00004.manifest.jsonl``."""
        return f"{self.verb}-{self.shard.label}{SUFFIX}"

    def as_line(self) -> str:
        """As one line of JSON."""
        return json.dumps({"verb": self.verb, "shard": str(self.shard), "items": self.num_items}) + "\n"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What became of one input.

    ``output`` is the result's path below the output folder (whole where there was no such folder), ``digest``
    the SHA-256 of the result's bytes, ``error`` one line, or None where there was none. The digest is None
    where nothing was written.
    """

    input: str
    output: str
    digest: str | None
    seconds: float
    error: str | None

    def as_line(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self)) + "\n"


class Manifest:
    """A manifest that a run appends to: each line in one write, at the file's end.

    Messages call it ``name``. Raises UsageError for that of another verb or shard.
    """

    def __init__(self, path: Path, part: Part, name: str) -> None:
        self.path = path
        self.part = part
        self._num_items = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._done = np.zeros(0, np.uint64)
        if path.exists():
            _refuse_other(path, part, name)
            self._done = _done_before(path)
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        if _ends_midline(self._file):
            os.write(self._file, b"\n")
        self._append(part)

    def add(self, outcome: Outcome[Task, Result]) -> None:
        """Record one outcome; what was done by an earlier run, and recorded then, is not recorded again."""
        self._num_items += 1
        task, result = outcome.item, outcome.result
        digest = None
        if result is not None:
            if result.skipped and place_among(self._done, fingerprint(task.name)) is not None:
                return
            digest = result.digest or digest_of(task.target)
        record = Record(
            input=task.name,
            output=task.result or str(task.target),
            digest=digest,
            seconds=round(outcome.seconds, 4),
            error=outcome.error,
        )
        self._append(record)

    def close(self, *, complete: bool) -> None:
        """Close the file; ``complete`` where the run came to its end."""
        if complete and self.part.num_items is None:
            self._append(replace(self.part, num_items=self._num_items))
        os.close(self._file)

    def _append(self, line: Part | Record) -> None:
        # one write of a whole line: what another process appends cannot come between
        data = line.as_line().encode()
        with naming(self.path):
            if os.write(self._file, data) < len(data):  # the disk had room for a part of it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def open_manifest(name: str | None, part: Part) -> Iterator[Manifest | None]:
    """The manifest of this name, open for this run; None where none is wanted.

    One elsewhere, by URL, is fetched first and put back at the end, for stores know no appending.
    """
    if name is None:
        yield None
        return
    with ExitStack() as stack:
        place = place_of(name)
        path = place if isinstance(place, Path) else stack.enter_context(_brought(place))
        manifest = Manifest(path, part, name)
        complete = False
        try:
            yield manifest
            complete = True
        finally:
            manifest.close(complete=complete)


@contextmanager
def _brought(place: RemoteFile) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rdm-") as folder:
        path = Path(folder) / place.name
        if place.is_file():
            path.write_bytes(place.read_bytes())
        try:
            yield path
        finally:
            place.write_bytes(path.read_bytes())  # whatever happened: it tells what was done until then


def read_manifest(path: Path) -> Iterator[Part | Record | None]:
    """The lines of a manifest, in order; None for one cut short. Raises UsageError for another file."""
    known = False
    with path.open("rb") as file:
        for line in file:
            read = _read(line)
            known = known or read is not None
            yield read
    if not known and path.stat().st_size:
        raise UsageError(f"{path}: not a manifest of rdm's")


def latest(paths: Sequence[Path]) -> Iterator[Record]:
    """Of every input its last record, in order of ``paths``; takes 8 bytes of memory a record."""
    prints = np.array(array("Q", (fingerprint(r.input) for r in records(paths))), dtype=np.uint64)
    last = np.zeros(len(prints), bool)
    if len(prints):
        last[len(prints) - 1 - np.unique(prints[::-1], return_index=True)[1]] = True
    yield from (record for record, kept in zip(records(paths), last, strict=False) if kept)


def records(paths: Iterable[Path]) -> Iterator[Record]:
    """All records of some manifests."""
    for path in paths:
        yield from (line for line in read_manifest(path) if isinstance(line, Record))


@contextmanager
def found_manifests(names: Sequence[str], *, required: bool = True) -> Iterator[dict[Path, str]]:
    """The manifests that ``names`` stand for, and what each is called; within the block they can be read.

    A name is a folder, whose manifests are taken from the oldest to the latest, or a manifest; here, or by
    URL, whose manifests are fetched. Raises UsageError for what is not there and, where they are
    ``required``, for none at all; otherwise names that are neither folders nor manifests are passed over.
    """
    found: dict[Path, str] = {}
    with tempfile.TemporaryDirectory(prefix="rdm-") as scratch:
        for i, name in enumerate(names):
            if is_url(name):
                found |= _fetched(name, Path(scratch) / str(i))
                continue
            path = Path(local_name(name))
            if path.is_dir():
                here = sorted((p for p in path.iterdir() if p.name.endswith(SUFFIX)), key=age)
                found |= {p: str(p) for p in here}
            elif required and not path.exists():
                raise UsageError(f"{name}: no such file or folder")
            elif required or path.name.endswith(SUFFIX):
                found[path] = name
        if required and not found:
            named = ", ".join(f"{name.rstrip('/')}/" for name in names)
            hint = "runs with --shard or --manifest write them"
            raise UsageError(f"{named}: no manifests there (*{SUFFIX})", hint=hint)
        yield found


def _fetched(url: str, folder: Path) -> dict[Path, str]:
    folder.mkdir()
    urls = [url] if url.endswith(SUFFIX) else names_below(url, SUFFIX)
    fetched = {folder / one.rpartition("/")[2]: one for one in urls}
    for path, one in fetched.items():
        place = RemoteFile.at(one)
        path.write_bytes(place.read_bytes())
        if (modified := place.modified()) is not None:
            os.utime(path, (modified, modified))
    return {path: fetched[path] for path in sorted(fetched, key=age)}


def age(path: Path) -> tuple[int, str]:
    """What sorts manifests from the oldest to the latest that was written to."""
    return path.stat().st_mtime_ns, path.name


def _refuse_other(path: Path, part: Part, name: str) -> None:
    for line in read_manifest(path):
        if isinstance(line, Part) and (line.verb, line.shard) != (part.verb, part.shard):
            raise UsageError(
                f"{name}: the manifest of {line.verb}, shard {line.shard}, and this is {part.verb}, shard "
                f"{part.shard}",
                hint="each has a manifest of its own; name another with --manifest",
            )


def _done_before(path: Path) -> np.ndarray:
    """Sorted fingerprints of the inputs that a manifest says are done."""
    return np.sort(np.array([fingerprint(r.input) for r in latest([path]) if r.error is None], np.uint64))


def place_among(prints: np.ndarray, value: int) -> int | None:
    """Where the fingerprint ``value`` stands in sorted ``prints``, uint64 (N,); None where it does not."""
    place = int(np.searchsorted(prints, np.uint64(value)))
    return place if place < len(prints) and int(prints[place]) == value else None


def _ends_midline(file: int) -> bool:
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"


def _read(line: bytes) -> Part | Record | None:
    try:
        values = parse_object(line)
        if "verb" in values:
            shard = parse_shard(values["shard"])
            return Part(verb=str(values["verb"]), shard=shard, num_items=values["items"])
        return Record(**values)
    except (ValueError, TypeError, KeyError, UsageError):
        return None
