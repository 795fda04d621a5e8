"""Tar archives as webdataset has them, read as streams: every member with a suffix of interest is an item.

A member's key is its path without its last suffix, as the name of a file in a folder: ``cats/0001.jpg`` has
the key ``cats/0001``, ``cats/img.v1.png`` the key ``cats/img.v1``. An archive is read once, from beginning to
end, and what lies in it is read where it lies: nothing is unpacked, and links are not followed.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator, Set
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self, cast

from rdm_cli.data.io.places import Blob, Readable, refused
from rdm_cli.data.sources.folders import Item, PassedOver
from rdm_cli.data.sources.remote import open_stream
from rdm_cli.data.sources.shards import fingerprint
from rdm_cli.data.sources.source import Holds, all_of
from rdm_cli.errors import RdmError, SourceError

MAX_MEMBER_BYTES = 2**30
MAX_HEADER_BYTES = 2**20  # of a long name, or of attributes, that stand before a member

# What reading an archive, compressed or not, says of damage.
_DAMAGED = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError)

_ENDINGS = re.compile(r"\.(tar|tar\.gz|tgz)$", flags=re.IGNORECASE)
_GZIP = b"\x1f\x8b"
# these are not read: a kilobyte of theirs may unpack to gigabytes at once
_OTHERS = {rb"BZh.1AY&SY": "bzip2", rb"\xfd7zXZ\0": "xz", rb"\x28\xb5\x2f\xfd": "zstd"}
# a name or attributes of the member that follows
_EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip


class TarShard:
    """A source: the members of a tar file with one of ``suffixes``; a shard has all of it or nothing.

    Hidden members are passed over, as hidden files of a folder are. What cannot be read is an item whose
    reading fails: a member, the rest of a damaged archive, or an archive in which there is no such member.
    """

    counted = False
    whole = True

    def __init__(self, name: str, *, suffixes: Set[str]) -> None:
        self.name, self.suffixes = name, suffixes
        self.passed_over = PassedOver()
        self.stem = tar_stem(name)

    def items(self, holds: Holds = all_of) -> Iterator[Item[Readable]]:
        """See :class:`~rdm_cli.data.sources.source.Source`."""
        if not holds(PurePosixPath(self.name).name):
            return
        self.passed_over.clear()
        num_members = num_items = 0
        keys: dict[int, str] = {}
        try:
            with open_tar_stream(self.name) as archive:
                for member in archive:
                    forget_members(archive)
                    num_members += 1
                    item = self._item(archive, member, keys)
                    if item is not None:
                        num_items += 1
                        yield item
        except _DAMAGED as error:
            where = f"after {num_members} members" if num_members else "at its beginning"
            yield self._refused("(rest)", SourceError(f"{self.name}: damaged or cut short {where} ({error})"))
            return
        except RdmError as error:
            yield self._refused("(rest)", error)
            return
        if not num_items:
            looked_for = f"looked for {', '.join(sorted(self.suffixes))}"
            why = f"{self.name}: nothing to read among its {num_members} members"
            yield self._refused("", SourceError(why, hint=looked_for))

    def _item(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, keys: dict[int, str]
    ) -> Item[Readable] | None:
        fault = _fault(member)
        if member.isdir() and not fault:
            return None
        path = f"{self.name}/{member.name}"
        if fault is not None:
            return self._refused(member.name, SourceError(f"{path}: {fault}, so it is not read"))
        key, suffix = split_key(member.name)
        if any(part.startswith(".") for part in PurePosixPath(key).parts):
            return None
        if suffix.lower() not in self.suffixes:
            self.passed_over.add_of_kind(member.name)
            return None
        print_of_key = fingerprint(key)
        if print_of_key in keys:
            first = f"{key}{keys[print_of_key]}"
            why = f"{path}: {self.name}/{first} came before it, and both have the name {key}"
            return self._refused(member.name, SourceError(why, hint="rename one; the first is taken"))
        keys[print_of_key] = suffix

        def read() -> bytes:
            content = archive.extractfile(member)
            assert content is not None, "a regular file has content"
            try:
                return content.read()
            except _DAMAGED as error:
                raise SourceError(f"{path}: damaged or cut short ({error})") from error

        return Item(source=Blob(path, read), relative=Path(self.stem) / f"{key}{suffix}")

    def _refused(self, name: str, error: RdmError) -> Item[Readable]:
        called = f"{self.name}/{name}" if name else self.name
        # where it would go, no name from inside says: this one may be what is wrong
        return Item(source=refused(called, error), relative=Path(self.stem) / "refused")


@contextmanager
def open_tar_stream(name: str) -> Iterator[tarfile.TarFile]:
    """An archive, plain or compressed with gzip, to be read once from beginning to end.

    Archives that were joined are read one after the other. Raises SourceError for another compression, and
    one of the errors of damage where an archive is damaged, or has no end.
    """
    with ExitStack() as stack:
        raw = _Unread(stack.enter_context(open_stream(name)))
        for magic, compression in _OTHERS.items():
            if re.match(magic, raw.beginning, flags=re.DOTALL):
                raise SourceError(
                    f"{name}: compressed with {compression}, which is not read", hint="gzip and none are"
                )
        unpacked = raw
        if raw.beginning.startswith(_GZIP):
            packed = stack.enter_context(gzip.GzipFile(fileobj=cast(Any, raw), mode="rb"))
            unpacked = _Unread(packed)
        yield stack.enter_context(
            # zeros are passed over, for behind them there may be another archive
            tarfile.open(fileobj=cast(Any, unpacked), mode="r|", tarinfo=strict_headers(), ignore_zeros=True)
        )


class _Unread:
    """A file whose first bytes were looked at, and which is not read on and on behind its end.

    tarfile does that where a member claims to be longer than its archive: for years, at 2^60 bytes.
    """

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file = file
        self.beginning = self._left = file.read(10)
        self._num_at_end = 0

    def read(self, size: int = -1) -> bytes:
        """As a file's."""
        if size < 0:
            data, self._left = self._left + self._file.read(), b""
            return data
        data, self._left = self._left[:size], self._left[size:]
        data += self._file.read(size - len(data))
        if not data and size:
            self._num_at_end += 1
            if self._num_at_end > 9:
                raise EOFError("a member is longer than its archive")
        return data


def strict_headers() -> type[tarfile.TarInfo]:
    """A TarInfo, for one archive, that raises ReadError for damage, which tarfile takes for the end."""

    class StrictHeader(tarfile.TarInfo):
        is_ended = False

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            was_ended, cls.is_ended = cls.is_ended, len(buf) == tarfile.BLOCKSIZE and not any(buf)
            try:
                header = super().frombuf(buf, encoding, errors)
            except tarfile.HeaderError as error:
                if cls.is_ended or (not buf and was_ended):
                    raise
                raise tarfile.ReadError(str(error) if buf else "the mark of its end is missing") from None
            if header.size < 0 or (header.type in _EXTENSIONS and header.size > MAX_HEADER_BYTES):
                raise tarfile.ReadError(f"a header claims {header.size:,} bytes")
            return header

    return StrictHeader


def forget_members(archive: tarfile.TarFile) -> None:
    """Let go of what tarfile remembers of each member that it has passed, for archives may hold millions."""
    archive.__dict__["members"] = []


def tar_stem(name: str) -> str:
    """What an archive is called, without its suffixes."""
    return _ENDINGS.sub("", PurePosixPath(name).name)


def split_key(name: str) -> tuple[str, str]:
    """``"cats/img.v1.png"`` as key and suffix: ``("cats/img.v1", ".png")``."""
    path = PurePosixPath(name)
    return (path.parent / path.stem).as_posix(), path.suffix


def _fault(member: tarfile.TarInfo) -> str | None:
    """Why a member must not be read; None for what is in order."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or re.match(r"\\|[A-Za-z]:[\\/]", member.name):
        return "an absolute name"
    if ".." in path.parts or ".." in member.name.split("\\"):
        return "its name climbs out of the archive's folder"
    if member.issym() or member.islnk():
        return "a link"
    if not (member.isfile() or member.isdir()):
        return "neither a file nor a folder"
    if not 0 <= member.size <= MAX_MEMBER_BYTES:
        return f"{member.size:,} bytes, more than {MAX_MEMBER_BYTES:,}"
    return None
