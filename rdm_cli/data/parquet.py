"""Image sets as Hugging Face stores them: Parquet files with a column of images.

An image is a struct of ``bytes`` and ``path``; one whose bytes are not in the table is refused. A shard has
each row group whole or not at all, and a few rows are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from rdm_cli.data.folders import Item, PassedOver
from rdm_cli.data.optional import optional_module
from rdm_cli.data.places import Blob, Readable, refused
from rdm_cli.data.remote import open_stream
from rdm_cli.data.sources import Holds, all_of
from rdm_cli.errors import RdmError, SourceError

ROWS_AT_ONCE = 16


class ParquetImages:
    """A source: the images of one Parquet file, in the order of its rows.

    An image is called by its row's number: paths inside need not be there, nor differ. Raises UsageError
    where pyarrow is absent.
    """

    counted = False
    whole = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.passed_over = PassedOver()
        self.stem = PurePosixPath(name).stem
        purpose = "reading Parquet files"
        self._arrow: Any = optional_module("pyarrow", package="pyarrow", purpose=purpose)
        self._parquet: Any = optional_module("pyarrow.parquet", package="pyarrow", purpose=purpose)

    def items(self, holds: Holds = all_of) -> Iterator[Item[Readable]]:
        """See :class:`~rdm_cli.data.sources.Source`."""
        num_rows = 0
        try:
            with open_stream(self.name) as file, self._parquet.ParquetFile(file) as table:
                column = image_column(self.name, table.schema_arrow)
                for group in range(table.num_row_groups):
                    first, num_rows = num_rows, num_rows + table.metadata.row_group(group).num_rows
                    if not holds(f"{PurePosixPath(self.name).name}/{group}"):
                        continue
                    batches = table.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=[column])
                    rows = (row for batch in batches for row in batch.column(0).to_pylist())
                    for i, row in enumerate(rows, first):
                        yield self._item(i, row or {})
        except (RdmError, OSError, self._arrow.ArrowException) as error:
            told = error if isinstance(error, RdmError) else None
            told = told or SourceError(f"{self.name}: damaged ({' '.join(str(error).split())})")
            yield Item(source=refused(f"{self.name}/(rest)", told), relative=Path(self.stem) / "refused")

    def _item(self, index: int, row: dict[str, Any]) -> Item[Readable]:
        inside = str(row.get("path") or "")
        path = f"{self.name}/{index:08d}{PurePosixPath(inside).suffix}"
        content = row.get("bytes")
        if content is None:
            why = f"{path}: no bytes in the table" + (f", which names {inside} instead" if inside else "")
            source = refused(path, SourceError(why, hint="encode those files themselves"))
        else:
            source = Blob(path, bytes(content))
        return Item(source=source, relative=Path(self.stem) / PurePosixPath(path).name)


def image_column(name: str, schema: Any) -> str:
    """The first column that is a struct with ``bytes``; raises SourceError where there is none."""
    for field in schema:
        kind = field.type
        if "struct" in str(kind) and "bytes" in {kind.field(i).name for i in range(kind.num_fields)}:
            return str(field.name)
    columns = ", ".join(schema.names)
    raise SourceError(
        f"{name}: none of its columns holds images ({columns})", hint="a struct with bytes does"
    )
