"""Image sets as Hugging Face stores them: Parquet files with a column of images.

An image is a struct of ``bytes`` and ``path``, or plain bytes; one whose bytes are not in the table is
refused. A shard has each row group whole or not at all. A row is read at a time; what a page unpacks to and
what a cell holds have limits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from rdm_cli.data.io.optional import optional_module
from rdm_cli.data.io.places import Blob, Readable, refused
from rdm_cli.data.sources.folders import Item, PassedOver
from rdm_cli.data.sources.parquet_pages import check_pages
from rdm_cli.data.sources.remote import open_stream
from rdm_cli.data.sources.source import Holds, all_of
from rdm_cli.errors import RdmError, SourceError

MAX_CELL_BYTES = 2**28
BUFFER_BYTES = 2**20
USUAL_COLUMN = "image"


class ParquetImages:
    """A source: the images of one Parquet file, in the order of its rows.

    An image is called by its row's number: paths inside need not be there, nor differ. ``column`` names the
    one that holds them; None: see :func:`image_column`. Raises UsageError where pyarrow is absent.
    """

    counted = False
    whole = False

    def __init__(self, name: str, *, column: str | None = None) -> None:
        self.name, self.column = name, column
        self.passed_over = PassedOver()
        self.stem = PurePosixPath(name).stem
        purpose = "reading Parquet files"
        self._arrow: Any = optional_module("pyarrow", package="pyarrow", purpose=purpose)
        self._parquet: Any = optional_module("pyarrow.parquet", package="pyarrow", purpose=purpose)

    def items(self, holds: Holds = all_of) -> Iterator[Item[Readable]]:
        """See :class:`~rdm_cli.data.sources.source.Source`."""
        num_rows = 0
        try:
            with (
                open_stream(self.name) as file,
                open_stream(self.name, in_pieces=True) as headers,
                # without these a reader takes in the whole row group first
                self._parquet.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER_BYTES) as table,
            ):
                leaves = image_column(self.name, table.schema_arrow, self.column)
                for group in range(table.num_row_groups):
                    first, num_rows = num_rows, num_rows + table.metadata.row_group(group).num_rows
                    if num_rows > first and holds(self._group_name(group)):
                        yield from self._group(table, headers, group, first, leaves)
                if not num_rows:
                    raise SourceError(f"{self.name}: a table without rows")
        except (RdmError, OSError, self._arrow.ArrowException) as error:
            yield self._refused("(rest)", self._told(error))

    def group_sizes(self) -> dict[str, int]:
        """The rows of each row group, by the name that :meth:`items` asks a shard about; read from the end.

        Raises SourceError, OSError or an error of Arrow's for what cannot be read.
        """
        with open_stream(self.name, in_pieces=True) as file, self._parquet.ParquetFile(file) as table:
            groups = range(table.num_row_groups)
            return {self._group_name(group): table.metadata.row_group(group).num_rows for group in groups}

    def _group_name(self, group: int) -> str:
        return f"{PurePosixPath(self.name).name}/{group}"

    def _group(
        self, table: Any, headers: IO[bytes], group: int, first: int, leaves: Sequence[str]
    ) -> Iterator[Item[Readable]]:
        metadata = table.metadata.row_group(group)
        try:
            for chunk in map(metadata.column, range(metadata.num_columns)):
                if chunk.path_in_schema in leaves:
                    check_pages(headers, self.name, chunk)
        except SourceError as error:
            rows = f"rows {first:,} to {first + metadata.num_rows - 1:,}"
            yield self._refused(f"({rows})", SourceError(f"{error.message}; {rows}", hint=error.hint))
            return
        batches = table.iter_batches(1, row_groups=[group], columns=list(leaves), use_threads=False)
        cells = (cell for batch in batches for cell in batch.column(0))
        for i, cell in enumerate(cells, first):
            yield self._item(i, cell)

    def _item(self, index: int, cell: Any) -> Item[Readable]:
        """The image in one cell, a scalar of Arrow's, of whose bytes there is one copy."""
        is_struct = self._arrow.types.is_struct(cell.type)
        inside, content = "", cell
        if is_struct and cell.is_valid:
            has_path = cell.type.get_field_index("path") >= 0
            inside, content = str((has_path and cell["path"].as_py()) or ""), cell["bytes"]
        path = f"{self.name}/{index:08d}{PurePosixPath(inside).suffix}"
        if not (cell.is_valid and content.is_valid):
            why = f"{path}: no bytes in the table" + (f", which names {inside} instead" if inside else "")
            source = refused(path, SourceError(why, hint="encode those files themselves"))
        elif (size := content.as_buffer().size) > MAX_CELL_BYTES:
            source = refused(path, SourceError(f"{path}: {size:,} bytes, more than {MAX_CELL_BYTES:,}"))
        else:
            source = Blob(path, bytes(content.as_py()))
        return Item(source=source, relative=Path(self.stem) / PurePosixPath(path).name)

    def _told(self, error: Exception) -> RdmError:
        if isinstance(error, RdmError):
            return error
        return SourceError(f"{self.name}: damaged ({' '.join(str(error).split())})")

    def _refused(self, name: str, error: RdmError) -> Item[Readable]:
        return Item(source=refused(f"{self.name}/{name}", error), relative=Path(self.stem) / "refused")


def image_column(name: str, schema: Any, wanted: str | None = None) -> tuple[str, ...]:
    """The leaves of the column that holds the images of the table ``name``: its bytes and, if any, its path.

    That is the column ``wanted``; or else ``image``; or else the one struct with ``bytes``; or else the one
    column of bytes. Raises SourceError where there is none, or more than one.
    """
    structs, plain = dict[str, tuple[str, ...]](), dict[str, tuple[str, ...]]()
    for field in schema:
        kind = str(field.type)
        if _is_binary(kind):
            plain[field.name] = (field.name,)
        elif kind.startswith("struct<"):
            inside = {
                field.type.field(i).name: str(field.type.field(i).type) for i in range(field.type.num_fields)
            }
            if _is_binary(inside.get("bytes", "")):
                names = [one for one in ("bytes", "path") if one in inside]
                structs[field.name] = tuple(f"{field.name}.{one}" for one in names)
    usable = plain | structs
    columns = ", ".join(schema.names)
    if wanted is not None:
        if wanted in usable:
            return usable[wanted]
        has = "holds no images" if wanted in schema.names else "is not there"
        raise SourceError(f"{name}: the column {wanted} {has} ({columns})", hint="--column names another")
    if USUAL_COLUMN in usable:
        return usable[USUAL_COLUMN]
    found = structs or plain
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise SourceError(
            f"{name}: {len(found)} columns may hold images ({', '.join(found)})",
            hint="choose one with --column",
        )
    raise SourceError(
        f"{name}: none of its columns holds images ({columns})", hint="a struct with bytes does, or bytes"
    )


def _is_binary(kind: str) -> bool:
    return kind in ("binary", "large_binary", "binary_view")
