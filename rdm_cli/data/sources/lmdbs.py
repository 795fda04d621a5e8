"""LMDBs as the papers' authors made them, read only.

Keys are ``{resolution}-{index}``, the index zero-padded, values are encoded images, and ``length`` says how
many there are. Where one holds several resolutions, its images are those of the largest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rdm_cli.data.io.optional import optional_module
from rdm_cli.data.io.places import Blob, Readable
from rdm_cli.data.sources.folders import Item, PassedOver
from rdm_cli.data.sources.source import Holds, all_of
from rdm_cli.errors import SourceError

_KEY = re.compile(rb"(\d+)-\d+")


def is_lmdb(path: Path) -> bool:
    """Whether a path is an LMDB: a folder with ``data.mdb``, or a file called like one."""
    return (path / "data.mdb").is_file() or (path.is_file() and path.suffix in (".lmdb", ".mdb"))


class Lmdb:
    """A source: the images of one LMDB, in the order of their keys. UsageError where lmdb is absent."""

    counted = True
    whole = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.passed_over = PassedOver()
        self._lmdb: Any = optional_module("lmdb", package="lmdb", purpose="reading LMDBs")

    def items(self, holds: Holds = all_of) -> Iterator[Item[Readable]]:
        """See :class:`~rdm_cli.data.sources.source.Source`."""
        subdir = os.path.isdir(self.path)
        try:
            # without a lock, so that it may lie where nothing can be written
            options = {"readonly": True, "lock": False, "readahead": False, "create": False}
            with self._lmdb.open(str(self.path), subdir=subdir, **options) as env, env.begin() as snapshot:
                for key in self._keys(snapshot):
                    name = key.decode()
                    if holds(name):
                        yield self._item(snapshot, key, name)
        except self._lmdb.Error as error:
            raise SourceError(f"{self.path}: not an LMDB that can be read ({error})") from error

    def _item(self, snapshot: Any, key: bytes, name: str) -> Item[Readable]:
        path = f"{self.path}/{name}"

        def read() -> bytes:
            content = snapshot.get(key)
            if content is None:
                raise SourceError(f"{path}: not there any more")
            return bytes(content)

        return Item(source=Blob(path, read), relative=Path(name))

    def _keys(self, snapshot: Any) -> Iterator[bytes]:
        """The images' keys, in order; of the largest resolution."""
        prefix = f"{max(self._resolutions(snapshot))}-".encode()
        with snapshot.cursor() as cursor:
            found = cursor.set_range(prefix)
            while found and cursor.key().startswith(prefix):
                if _KEY.fullmatch(cursor.key()):
                    yield cursor.key()
                found = cursor.next()

    def _resolutions(self, snapshot: Any) -> list[int]:
        found: list[int] = []
        with snapshot.cursor() as cursor:
            more = cursor.first()
            while more:
                match = _KEY.fullmatch(cursor.key())
                if match is None:
                    more = cursor.next()
                else:
                    found.append(int(match[1]))
                    more = cursor.set_range(match[1] + b".")  # the byte after "-": past this resolution
        if not found:
            raise SourceError(
                f"{self.path}: no images in it",
                hint="keys such as 256-00000 were expected, as the papers' have",
            )
        return found
