"""Tar archives as webdataset has them: the files of a sample lie one after the other and share their key.

A member's key is its path up to the first dot of its name, and the rest is what kind of file it is:
``cats/0001.jpg`` and ``cats/0001.cls`` are of the sample ``cats/0001``. An archive is read as a stream, once,
and what lies in it is read where it lies: nothing is unpacked, and links are not followed.
"""

from __future__ import annotations

import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Set
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from rdm_cli.data.folders import Item, PassedOver
from rdm_cli.data.places import Blob, Readable, refused
from rdm_cli.data.remote import open_stream
from rdm_cli.data.shards import fingerprint
from rdm_cli.data.sources import Holds, all_of
from rdm_cli.errors import RdmError, SourceError

MAX_MEMBER_BYTES = 2**30

# What reading an archive, compressed or not, says of damage.
_DAMAGED = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)


class TarShard:
    """A source: the members of a tar file with one of ``suffixes``; a shard has all of it or nothing."""

    counted = False
    whole = True

    def __init__(self, name: str, *, suffixes: Set[str]) -> None:
        self.name, self.suffixes = name, suffixes
        self.passed_over = PassedOver()
        self.stem = tar_stem(name)

    def items(self, holds: Holds = all_of) -> Iterator[Item[Readable]]:
        """See :class:`~rdm_cli.data.sources.Source`."""
        if not holds(PurePosixPath(self.name).name):
            return
        num_members, keys = 0, set[int]()
        try:
            with ExitStack() as stack:
                file = stack.enter_context(open_stream(self.name))
                archive = stack.enter_context(tarfile.open(fileobj=file, mode="r|*"))
                for member in archive:
                    forget_members(archive)
                    num_members += 1
                    if member.isdir() and not _fault(member):
                        continue
                    key, kind = split_key(member.name)
                    item = self._item(archive, member, key, kind, keys)
                    if item is not None:
                        yield item
        except _DAMAGED as error:
            where = f"after {num_members} members" if num_members else "at its beginning"
            yield self._refused("(rest)", SourceError(f"{self.name}: damaged or cut short {where} ({error})"))

    def _item(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, key: str, kind: str, keys: set[int]
    ) -> Item[Readable] | None:
        path = f"{self.name}/{member.name}"
        fault = _fault(member)
        if fault is not None:
            return self._refused(member.name, SourceError(f"{path}: {fault}, so it is not read"))
        if kind.lower() not in self.suffixes:
            return None
        if fingerprint(key) in keys:
            return self._refused(member.name, SourceError(f"{path}: another image has the same key"))
        keys.add(fingerprint(key))

        def read() -> bytes:
            content = archive.extractfile(member)
            assert content is not None, "a regular file has content"
            try:
                return content.read()
            except _DAMAGED as error:
                raise SourceError(f"{path}: damaged or cut short ({error})") from error

        return Item(source=Blob(path, read), relative=Path(self.stem) / f"{key}{kind}")

    def _refused(self, name: str, error: RdmError) -> Item[Readable]:
        # no name from inside is used: this one may be what is wrong
        return Item(source=refused(f"{self.name}/{name}", error), relative=Path(self.stem) / "refused")


def forget_members(archive: tarfile.TarFile) -> None:
    """Let go of what tarfile remembers of each member that it has passed, for archives may hold millions."""
    archive.__dict__["members"] = []


def tar_stem(name: str) -> str:
    """What an archive is called, without its suffixes."""
    return PurePosixPath(name).name.partition(".tar")[0].removesuffix(".tgz")


def split_key(name: str) -> tuple[str, str]:
    """``"cats/0001.seg.png"`` as key and kind: ``("cats/0001", ".seg.png")``."""
    path = PurePosixPath(name)
    stem, dot, kind = path.name.partition(".")
    return (path.parent / stem).as_posix(), f"{dot}{kind}"


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
    if member.size > MAX_MEMBER_BYTES:
        return f"{member.size:,} bytes, more than {MAX_MEMBER_BYTES:,}"
    return None
