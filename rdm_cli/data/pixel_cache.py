"""Decoded pixels of a folder in one file, which processes share through the system's page cache.

A row an image, after a table of checksums: a row counts where its checksum is that of its bytes, so rows that
were written in part, or never, are none. Rows are read and written in place rather than mapped: where a disk
fails or fills, that is an OSError and no signal that ends the process.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CHECKSUM_BYTES = 4
MOST_BYTES = 32 * 2**30
SHARE_OF_FREE = 0.5  # of what the disk has left when the cache is opened
PATTERN = "pixels-*.u8"


class PixelCache:
    """uint8 rows of one shape, in ``path``, for ``num`` images; the first that fit into ``budget`` bytes.

    ``note`` is told once where the disk takes no more: what is there stays in use. Any number of processes
    may read and write at once, for all write the same.
    """

    def __init__(
        self,
        path: Path,
        *,
        num: int,
        shape: tuple[int, int, int],
        note: Callable[[str], None],
        budget: int | None = None,
    ) -> None:
        self.path = path
        self.shape = shape
        self.row_bytes = int(np.prod(shape))
        self._table_bytes = CHECKSUM_BYTES * num
        self._note = note
        self._file: int | None = None
        self._is_full = False
        self.num_rows = min(num, (disk_budget(path) if budget is None else budget) // self.row_bytes)

    def read(self, i: int) -> np.ndarray | None:
        """Row ``i``, not to be written to; None where it is not there."""
        if i >= self.num_rows:
            return None
        try:
            file = self._opened()
            known = os.pread(file, CHECKSUM_BYTES, CHECKSUM_BYTES * i)
            if not any(known):
                return None
            stored = os.pread(file, self.row_bytes, self._place(i))
        except OSError:
            return None
        if len(stored) != self.row_bytes or checksum(stored) != known:
            return None
        return np.frombuffer(stored, dtype=np.uint8).reshape(self.shape)

    def write(self, i: int, row: np.ndarray) -> None:
        """Keep ``row`` as row ``i``, unless there is no room for it."""
        if i >= self.num_rows or self._is_full:
            return
        try:
            file = self._opened()
            stored = row.tobytes()
            if os.pwrite(file, stored, self._place(i)) == self.row_bytes:
                os.pwrite(file, checksum(stored), CHECKSUM_BYTES * i)
        except OSError as error:
            self._is_full = True
            self._note(f"{self.path}: no more pixels are kept ({error.strerror}); images are read again")

    def _place(self, i: int) -> int:
        return self._table_bytes + self.row_bytes * i

    def _opened(self) -> int:
        """The file's descriptor, opened where it is first needed."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        return self._file

    def close(self) -> None:
        """Close the file, where it is open."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file: a worker opens it itself."""
        return {**self.__dict__, "_file": None}


def checksum(row: bytes) -> bytes:
    """A row's CRC-32, never 0: that stands for a row that is not there."""
    return (zlib.crc32(row) or 1).to_bytes(CHECKSUM_BYTES, "little")


def disk_budget(path: Path) -> int:
    """How many bytes of pixels may be kept in ``path``, with those that it holds; 0 where none can be."""
    there = next((place for place in path.parents if place.is_dir()), Path())
    try:
        held = path.stat().st_blocks * 512 if path.exists() else 0
        return min(MOST_BYTES, held + int(SHARE_OF_FREE * shutil.disk_usage(there).free))
    except OSError:
        return 0


def remove_pixels(folder: Path, *, but: Path | None = None) -> None:
    """Remove the caches in ``folder``, all or all ``but`` one."""
    for path in folder.glob(PATTERN):
        if path != but:
            path.unlink(missing_ok=True)
