"""Results as tar archives: one for each archive of inputs, or one for all that come from files.

An archive is written beside its place and takes it when the last result is in, so that it is there whole or
not at all. Members stand in the order of their inputs, with nothing of the day or the user about them: equal
results are equal archives. What an archive in that place holds already is taken over, and where that is all,
it stays.
"""

from __future__ import annotations

import io
import tarfile
from collections import deque
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any, Self

from rdm_cli.data.atomic import atomic_path, naming
from rdm_cli.data.folders import Item
from rdm_cli.data.outputs import Sink, mirrored
from rdm_cli.data.places import Named, Place
from rdm_cli.data.remote import RemoteFile, place_of
from rdm_cli.data.tars import forget_members
from rdm_cli.errors import SourceError


class Tars(Sink):
    """A sink: archives in a folder.

    ``folder`` is a path or a URL. ``name`` is the archive of whatever comes from files; None: each input
    comes from an archive or a table, whose results go to an archive of the same name with ``label``, which is
    that of a shard where it does a part of them.
    """

    def __init__(self, folder: str, name: str | None, label: str = "") -> None:
        self.folder, self.archive_name, self.label = folder, name, label
        self._open: dict[str, TarOfResults] = {}
        self._latest: TarOfResults | None = None

    def place(self, item: Item[Any], ending: str) -> Place:
        """See :class:`~rdm_cli.data.outputs.Sink`."""
        stem, member = self.archive_name, mirrored(item, ending)
        if stem is None:
            stem, _, member = member.partition("/")
        if stem not in self._open:
            self._open[stem] = TarOfResults(place_of(f"{self.folder}/{stem}{self.label}.tar"))
        return TarPlace(self._open[stem], member)

    def expect(self, place: Place) -> None:
        """See :class:`~rdm_cli.data.outputs.Sink`."""
        assert isinstance(place, TarPlace)
        if self._latest is not None and self._latest is not place.archive:
            self._end(self._latest)
        self._latest = place.archive
        place.archive.expected.append(place.path)

    def settle(self, place: Place, *, kept: bool) -> None:
        """See :class:`~rdm_cli.data.outputs.Sink`."""
        assert isinstance(place, TarPlace)
        place.archive.settle(place.path, kept=kept)

    def close(self, *, complete: bool) -> None:
        """See :class:`~rdm_cli.data.outputs.Sink`."""
        if complete and self._latest is not None:
            self._end(self._latest)
        for archive in self._open.values():
            archive.abandon()

    @property
    def num_unfinished(self) -> int:
        """See :class:`~rdm_cli.data.outputs.Sink`."""
        return sum(archive.num_new for archive in self._open.values())

    def _end(self, archive: TarOfResults) -> None:
        archive.end()
        self._open = {stem: other for stem, other in self._open.items() if other is not archive}


class TarPlace(Named):
    """A :class:`~rdm_cli.data.places.Place`: a member that an archive has from before, or will have."""

    def __init__(self, archive: TarOfResults, member: str) -> None:
        super().__init__(member)
        self.archive = archive

    def __str__(self) -> str:
        return f"{self.archive.path}/{self.path}"

    def with_name(self, name: str, /) -> Self:
        """See :class:`~rdm_cli.data.places.Place`."""
        return type(self)(self.archive, PurePosixPath(self.path).with_name(name).as_posix())

    def is_file(self) -> bool:
        """See :class:`~rdm_cli.data.places.Place`."""
        return self.path in self.archive.before

    def read_bytes(self) -> bytes:
        """See :class:`~rdm_cli.data.places.Readable`."""
        return self.archive.read_before(self.path)

    def write_bytes(self, data: bytes, /) -> int:
        """See :class:`~rdm_cli.data.places.Place`."""
        self.archive.written[self.path] = data
        return len(data)


class TarOfResults:
    """One archive: results come in any order, and go in as their inputs stood."""

    def __init__(self, path: Path | RemoteFile) -> None:
        self.path = path
        self.before: dict[str, tarfile.TarInfo] = {}
        self.written: dict[str, bytes] = {}
        self.expected: deque[str] = deque()
        self._settled: dict[str, bool] = {}
        self._files = ExitStack()
        self._old: tarfile.TarFile | None = None
        self._new: tarfile.TarFile | None = None
        self._num_same = 0  # so many of its members stand as they stood before
        self._is_last = False
        self.num_new = 0  # results that are in no archive yet that stands in its place
        self._open_before()
        self._order = list(self.before)

    def _open_before(self) -> None:
        path: Path | None = (
            self._files.enter_context(self.path.local_copy())
            if isinstance(self.path, RemoteFile)
            else self.path
        )
        if path is None or not path.is_file():
            return
        try:
            self._old = self._files.enter_context(tarfile.open(path))
            self.before = {member.name: member for member in self._old if member.isfile()}
        except (tarfile.TarError, EOFError, OSError):
            self.before = {}  # what stands there is no archive, and is replaced

    def read_before(self, name: str) -> bytes:
        """A member of the archive that stood in the place before."""
        file = self._old.extractfile(self.before[name]) if self._old and name in self.before else None
        if file is None:
            raise SourceError(f"{self.path}/{name}: not there")
        return file.read()

    def settle(self, name: str, *, kept: bool) -> None:
        """What was expected is written; or is to be ``kept`` as it was; or, if neither, there is none."""
        self._settled[name] = kept
        self.num_new += name in self.written
        with naming(self.path):
            while self.expected and self.expected[0] in self._settled:
                first = self.expected.popleft()
                was_kept, data = self._settled.pop(first), self.written.pop(first, None)
                if data is not None:
                    self._append(first, data)
                elif was_kept:
                    self._keep(first)
        self._finish_if_done()

    def end(self) -> None:
        """Nothing more will be expected."""
        self._is_last = True
        self._finish_if_done()

    def abandon(self) -> None:
        """Leave the place as it was."""
        error = _AbandonedError()
        self._files.__exit__(type(error), error, None)

    def _keep(self, name: str) -> None:
        if self._new is None and self._order[self._num_same : self._num_same + 1] == [name]:
            self._num_same += 1
        else:
            self._append(name, self.read_before(name))

    def _append(self, name: str, data: bytes) -> None:
        archive = self._begun()
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o644
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

    def _finish_if_done(self) -> None:
        if not self._is_last or self.expected:
            return
        if self._num_same < len(self._order):
            self._begun()  # some of what was there is no result any more
        self._files.close()
        self.num_new = 0


class _AbandonedError(Exception):
    """Makes what is half-written go."""
