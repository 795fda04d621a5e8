"""Where bytes come from and go to: files, and what is none but is read and written like one.

Any ``pathlib.Path`` is a :class:`Place`. What lies in an archive, a table or an object store takes the same
few names from pathlib, so that whoever loads an image or saves a code need not know which it is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Protocol, Self, TypeVar, cast

from rdm_cli.data.io.atomic import write_whole
from rdm_cli.errors import RdmError, SourceError


class Readable(Protocol):
    """Something that is read as a whole; ``str()`` is what messages call it."""

    @property
    def name(self) -> str:
        """The last part of its path."""

    @property
    def stem(self) -> str:
        """``name`` without its suffix."""

    @property
    def suffix(self) -> str:
        """The end of ``name``, from its last dot."""

    def read_bytes(self) -> bytes:
        """All of it; raises OSError or SourceError."""


class Place(Readable, Protocol):
    """Where a result goes, which may be there already."""

    def is_file(self) -> bool:
        """Whether something is there."""

    def with_name(self, name: str, /) -> Self:
        """Another place beside it."""

    def write_bytes(self, data: bytes, /) -> int:
        """Put ``data`` there; but :func:`put` does it whole or not at all, for every kind of place."""


class Named:
    """What is called by a path of its own; the base of all that is no file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        """See :class:`Readable`."""
        return PurePosixPath(self.path).name

    @property
    def stem(self) -> str:
        """See :class:`Readable`."""
        return PurePosixPath(self.path).stem

    @property
    def suffix(self) -> str:
        """See :class:`Readable`."""
        return PurePosixPath(self.path).suffix


class Blob(Named):
    """Bytes with a path: those of a member of an archive, say, or of a cell of a table.

    Where ``content`` is a function it is called for each reading.
    """

    def __init__(self, path: str, content: bytes | Callable[[], bytes]) -> None:
        super().__init__(path)
        self.content = content

    def read_bytes(self) -> bytes:
        """See :class:`Readable`."""
        return self.content if isinstance(self.content, bytes) else self.content()


def fetched(source: Readable) -> Readable:
    """``source``, to be read more than once: what is no file is read here, for it may pass by."""
    return source if isinstance(source, Path) else Blob(str(source), source.read_bytes())


LARGEST_IN_MEMORY = 2**26
"""Bytes of a file that is read once and held; a larger one is read each time."""


def held(source: Readable) -> Readable:
    """What ``source`` holds, so that all who ask see the same; a file that is large, or is none, as it is.

    Raises SourceError where the file changed while it was read, and what reading raises.
    """
    if not isinstance(source, Path):
        return fetched(source)
    if not source.is_file():
        return source
    with source.open("rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        if before.st_size > LARGEST_IN_MEMORY:
            return source
        try:
            content = file.read()
        except MemoryError:  # decoding says so by name, if it has not the memory either
            return source
        after = os.fstat(file.fileno())
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise changed(source)
    return Blob(str(source), content)


def changed(source: Readable) -> SourceError:
    """What is said of a file that is not the same from one look to the next."""
    return SourceError(f"{source}: the file changed while it was read", hint="try again when it is whole")


AnyPlace = TypeVar("AnyPlace", bound=Readable)


def paths_of(given: Iterable[AnyPlace | str] | AnyPlace | str) -> list[AnyPlace | Path]:
    """Several paths or places as a list, text as paths; one alone is a list of one."""
    if isinstance(given, str) or hasattr(given, "read_bytes"):
        given = [cast("AnyPlace | str", given)]
    return [Path(one) if isinstance(one, str) else one for one in given]


def refused(path: str, error: RdmError) -> Blob:
    """What cannot be read, which whoever tries is told."""

    def refuse() -> bytes:
        raise error

    return Blob(path, refuse)


def put(place: Place, data: bytes) -> str:
    """Write ``data`` to ``place``, whole or not at all; returns its SHA-256, hexadecimal.

    Raises OSError, which names the place whatever went wrong, or SourceError.
    """
    if isinstance(place, Path):
        try:
            write_whole(place, data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(place)) from error
    else:
        place.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def digest_of(source: Readable) -> str:
    """SHA-256 of what ``source`` holds, hexadecimal; a file is not read into memory."""
    if not isinstance(source, Path):
        return hashlib.sha256(source.read_bytes()).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
