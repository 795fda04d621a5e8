"""How large the pages of a Parquet file say that they are, told before any of them is unpacked.

A reader unpacks a page as a whole, so a page that claims 2 GB takes 2 GB, in however small a file. The sizes
that count stand in each page's header, a struct in Thrift's compact protocol, of which this reads the first
three fields: type, size unpacked, size as stored (https://parquet.apache.org/docs/file-format/).
"""

from __future__ import annotations

from typing import IO, Any

from rdm_cli.errors import SourceError

MAX_PAGE_BYTES = 2**28  # a page may unpack to this,
MAX_RATIO = 4  # or to so many times what is stored of it

_HEADER_BYTES = (2**13, 2**21)  # of most headers, and of any
_MAX_DEPTH = 16
_STOP, _BOOLS, _BYTE, _INTS, _DOUBLE, _BINARY, _LISTS, _STRUCT = 0, (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12


def check_pages(file: IO[bytes], name: str, chunk: Any) -> None:
    """Raise SourceError for a page of ``chunk``, a column's part of a row group, that unpacks to too much."""
    begin = chunk.data_page_offset
    if chunk.dictionary_page_offset:
        begin = min(begin, chunk.dictionary_page_offset)
    end = begin + chunk.total_compressed_size
    while begin < end:
        length, unpacked, stored = _sizes(file, name, begin)
        limit = max(MAX_PAGE_BYTES, MAX_RATIO * stored)
        if unpacked > limit:
            raise SourceError(
                f"{name}: a page of {stored:,} bytes unpacks to {unpacked:,}, more than {limit:,}",
                hint="write smaller row groups",
            )
        begin += length + stored


def _sizes(file: IO[bytes], name: str, begin: int) -> tuple[int, int, int]:
    """How long the header of the page at ``begin`` is, and the page's sizes, unpacked and stored."""
    for num_bytes in _HEADER_BYTES:
        file.seek(begin)
        header = _Header(file.read(num_bytes))
        try:
            fields = header.numbers()
            length, unpacked, stored = header.place, fields[2], fields[3]
        except (IndexError, KeyError):
            continue
        if unpacked >= 0 and stored >= 0:
            return length, unpacked, stored
    raise SourceError(f"{name}: damaged (no page begins at byte {begin:,})")


class _Header:
    """A struct of Thrift's compact protocol; IndexError where ``data`` ends too early or is none."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def numbers(self) -> dict[int, int]:
        """Read the struct to its end; the whole numbers among its fields."""
        return self._numbers(0)

    def _numbers(self, depth: int) -> dict[int, int]:
        found: dict[int, int] = {}
        field = 0
        while (head := self._byte()) & 15 != _STOP:
            kind, step = head & 15, head >> 4
            field = field + step if step else self._number()
            if kind in _INTS:
                found[field] = self._number()
            elif kind not in _BOOLS:
                self._skip(kind, depth)
        return found

    def _skip(self, kind: int, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise IndexError
        if kind in (*_BOOLS, _BYTE):
            self.place += 1
        elif kind in _INTS:
            self._varint()
        elif kind == _DOUBLE:
            self.place += 8
        elif kind == _BINARY:
            length = self._varint()  # which moves the place, too
            self.place += length
        elif kind in _LISTS:
            head = self._byte()
            for _ in range(self._varint() if head >> 4 == 15 else head >> 4):
                self._skip(head & 15, depth + 1)
                if self.place > len(self.data):
                    raise IndexError
        elif kind == _STRUCT:
            self._numbers(depth + 1)
        else:
            raise IndexError

    def _byte(self) -> int:
        value = self.data[self.place]
        self.place += 1
        return value

    def _varint(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise IndexError

    def _number(self) -> int:
        value = self._varint()  # signed numbers are stored zigzag
        return value >> 1 ^ -(value & 1)
