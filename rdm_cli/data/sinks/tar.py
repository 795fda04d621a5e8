"""Results as tar archives: one for each archive of inputs, or one for all that come from files.

An archive is written beside its place and takes it when the last result is in, so that it is there whole or
not at all. Members stand in the order of their inputs, with nothing of the day or the user about them: equal
results are equal archives. What an archive in that place holds already is taken over, and where that is all,
it stays. Members that are no results of this run (of inputs that failed, or that were not named) are kept,
behind the others. An archive that rdm did not write (its members have dates, owners or links, or it is
compressed) stays, and the run is refused.

Two threads use a sink. The one that reads inputs places and expects results, and looks at what is there
already, by its position in the file. The one that settles results alone writes and ends archives.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections import deque
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import IO, Any, NoReturn, Self

from rdm_cli.data.io.atomic import atomic_path, naming
from rdm_cli.data.io.places import Named, Place
from rdm_cli.data.sinks.outputs import Sink, mirrored
from rdm_cli.data.sources.folders import Item
from rdm_cli.data.sources.remote import RemoteFile, place_of
from rdm_cli.data.sources.tars import forget_members, strict_headers
from rdm_cli.errors import OccupiedError, SourceError

_OWN = (0, 0, 0, 0o644)  # date, owner, group and mode of each member that rdm writes


class Tars(Sink):
    """A sink: archives in a folder.

    ``folder`` is a path or a URL. ``name`` is the archive of whatever comes from files; None: each input
    comes from an archive or a table, whose results go to an archive of the same name with ``label``, which is
    that of a shard where it does a part of them.
    """

    def __init__(self, folder: str, name: str | None, label: str = "") -> None:
        self.folder, self.archive_name, self.label = folder, name, label
        self._open: dict[str, TarOfResults] = {}
        self._lock = Lock()  # of the archives that are open
        self._latest: TarOfResults | None = None

    def place(self, item: Item[Any], ending: str) -> Place:
        """See :class:`~rdm_cli.data.sinks.outputs.Sink`."""
        stem, member = self.archive_name, mirrored(item, ending)
        if stem is None:
            stem, _, member = member.partition("/")
        with self._lock:
            if stem not in self._open:
                self._open[stem] = TarOfResults(place_of(f"{self.folder}/{stem}{self.label}.tar"))
            return TarPlace(self._open[stem], member)

    def expect(self, place: Place) -> None:
        """See :class:`~rdm_cli.data.sinks.outputs.Sink`."""
        assert isinstance(place, TarPlace)
        if self._latest is not None and self._latest is not place.archive:
            self._latest.is_last = True
        self._latest = place.archive
        place.archive.expected.append(place)

    def settle(self, place: Place, *, kept: bool) -> None:
        """See :class:`~rdm_cli.data.sinks.outputs.Sink`."""
        assert isinstance(place, TarPlace)
        place.archive.settle(place, kept=kept)
        with self._lock:
            ended = {stem: archive for stem, archive in self._open.items() if archive.is_done}
        for stem, archive in ended.items():
            archive.finish()  # one that cannot take its place stays open: its results count as lost
            with self._lock:
                del self._open[stem]

    def close(self, *, complete: bool) -> None:
        """See :class:`~rdm_cli.data.sinks.outputs.Sink`."""
        with self._lock:
            left = list(self._open.values())
        for archive in left:
            if complete and not archive.expected:
                archive.finish()
            else:
                archive.abandon()

    @property
    def num_unfinished(self) -> int:
        """See :class:`~rdm_cli.data.sinks.outputs.Sink`."""
        with self._lock:
            return sum(archive.num_new for archive in self._open.values())


class TarPlace(Named):
    """A :class:`~rdm_cli.data.io.places.Place`: a member that an archive has from before, or will have."""

    def __init__(self, archive: TarOfResults, member: str) -> None:
        super().__init__(member)
        self.archive = archive
        self.written: bytes | None = None
        self.is_settled = self.is_kept = False

    def __str__(self) -> str:
        return f"{self.archive.path}/{self.path}"

    def with_name(self, name: str, /) -> Self:
        """See :class:`~rdm_cli.data.io.places.Place`."""
        return type(self)(self.archive, PurePosixPath(self.path).with_name(name).as_posix())

    def is_file(self) -> bool:
        """See :class:`~rdm_cli.data.io.places.Place`."""
        return self.path in self.archive.before

    def read_bytes(self) -> bytes:
        """See :class:`~rdm_cli.data.io.places.Readable`."""
        return self.archive.read_before(self.path)

    def write_bytes(self, data: bytes, /) -> int:
        """See :class:`~rdm_cli.data.io.places.Place`."""
        self.written = data
        return len(data)


class TarOfResults:
    """One archive: results come in any order, and go in as their inputs stood.

    ``before`` has, of every member of the archive that stood in the place before, where its bytes begin and
    how many they are. ``is_last`` is set when nothing more will be expected.
    """

    def __init__(self, path: Path | RemoteFile) -> None:
        self.path = path
        self.before: dict[str, tuple[int, int]] = {}
        self.expected: deque[TarPlace] = deque()
        self.is_last = False
        self._files = ExitStack()
        self._old: IO[bytes] | None = None
        self._new: tarfile.TarFile | None = None
        self._is_damaged = False  # what stands there is no archive, or not a whole one
        self.num_new = 0  # results that are in no archive yet that stands in its place
        self._open_before()
        self._order = list(self.before)
        self._num_same = 0  # so many of its members stand as they stood before
        self._taken: set[str] = set()

    def _open_before(self) -> None:
        path: Path | None = (
            self._files.enter_context(self.path.local_copy())
            if isinstance(self.path, RemoteFile)
            else self.path
        )
        if path is None or not path.is_file():
            return
        self._old = self._files.enter_context(path.open("rb"))
        size = os.fstat(self._old.fileno()).st_size
        try:
            with tarfile.open(path, "r:", tarinfo=strict_headers()) as archive:
                for member in archive:
                    forget_members(archive)
                    start = member.offset_data
                    is_own = member.isreg() and not member.issparse() and member.name not in self.before
                    if not is_own or (member.mtime, member.uid, member.gid, member.mode) != _OWN:
                        self._refuse("rdm did not write it")
                    if start + member.size <= size:
                        self.before[member.name] = start, member.size
        except (tarfile.TarError, EOFError, OSError, ValueError):
            if size and not self.before:
                self._refuse("is no archive that can be taken over")
            self._is_damaged = True

    def _refuse(self, reason: str) -> NoReturn:
        self._files.close()
        raise OccupiedError(
            f"{self.path}: is there already, and {reason}",
            hint="choose another place with -o, or move it away",
        )

    def read_before(self, name: str) -> bytes:
        """A member of the archive that stood in the place before; any thread may ask."""
        if self._old is None or name not in self.before:
            raise SourceError(f"{self.path}/{name}: not there")
        start, size = self.before[name]
        data = os.pread(self._old.fileno(), size, start)
        if len(data) != size:
            raise SourceError(f"{self.path}/{name}: cut short while it was read")
        return data

    @property
    def is_done(self) -> bool:
        """Whether all of its results are in."""
        return self.is_last and not self.expected  # in this order: what is expected is so before it is last

    def settle(self, place: TarPlace, *, kept: bool) -> None:
        """What was expected is written; or is to be ``kept`` as it was; or, if neither, there is none."""
        place.is_settled, place.is_kept = True, kept
        self.num_new += place.written is not None
        with naming(self.path):
            while self.expected and self.expected[0].is_settled:
                first = self.expected.popleft()
                if first.written is not None:
                    self._append(first.path, first.written)
                elif first.is_kept:
                    self._keep(first.path)

    def finish(self) -> None:
        """Take the place, with whatever stood there before and is no result of this run."""
        if self._new is not None or (self._is_damaged and self._taken):
            for name in self._order:
                if name not in self._taken:
                    self._append(name, self.read_before(name))
        with naming(self.path):
            self._files.close()
        self.num_new = 0

    def abandon(self) -> None:
        """Leave the place as it was."""
        error = _AbandonedError()
        self._files.__exit__(type(error), error, None)

    def _keep(self, name: str) -> None:
        if self._new is None and self._order[self._num_same : self._num_same + 1] == [name]:
            self._num_same += 1
            self._taken.add(name)
        else:
            self._append(name, self.read_before(name))

    def _append(self, name: str, data: bytes) -> None:
        self._taken.add(name)
        archive = self._begun()
        member = tarfile.TarInfo(name)
        member.size = len(data)
        member.mtime, member.uid, member.gid, member.mode = _OWN
        archive.addfile(member, io.BytesIO(data))
        forget_members(archive)

    def _begun(self) -> tarfile.TarFile:
        if self._new is None:
            whole = self.path.replacement() if isinstance(self.path, RemoteFile) else atomic_path(self.path)
            temporary = self._files.enter_context(whole)
            self._new = self._files.enter_context(tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT))
            for name in self._order[: self._num_same]:
                self._append(name, self.read_before(name))
        return self._new


class _AbandonedError(Exception):
    """Makes what is half-written go."""
