"""Codes as one table, for pandas, DuckDB and the like: a Parquet file with a row a code.

``z`` is a list of fixed length d of float32: z in row-major order, whose shape the schema's metadata has
under ``z_shape``. x_T is not read. Beside it stand the code's name, where it lies, what it records of its
making and, for each attribute of its bundle, a column ``p_NAME``: the probability that the bundle's
classifier on z gives it.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rdm_cli.codes.code import CodeInfo, read_z
from rdm_cli.collection.rows import open_table, pyarrow_modules
from rdm_cli.data.io.atomic import atomic_path
from rdm_cli.data.sources.folders import CODE_SUFFIX
from rdm_cli.data.sources.shards import fingerprint
from rdm_cli.errors import CodeError, OccupiedError, UsageError
from rdm_cli.jobs.batch import Outcome, Task, run_batches
from rdm_cli.jobs.results import Result
from rdm_cli.methods.directions import Directions

RECORDED = ("method", "bundle", "bundle_digest", "image_size", "fit", "class_name", "source", "source_digest",
            "edits", "mse", "psnr_db")  # fmt: skip
ROWS_AT_ONCE = 1024
PROBABILITY = "p_"  # begins the names of their columns


Attributes = Callable[[CodeInfo], Directions | None]
"""Gives the classifiers of the bundle that a code records; None where they are not here."""


def write_table(
    tasks: Iterable[Task], output: Path, attributes: Attributes = lambda info: None
) -> Iterator[Outcome[Task, Result]]:
    """Write a row for each task's code, in their order; one that cannot be read is left out and fails alone.

    ``attributes`` is asked for the first code; rows of other bundles have no probabilities.

    ``output`` appears when the last outcome was taken. A code whose z has another shape than the first one's
    fails, too.
    """
    _, parquet = pyarrow_modules()
    z_shape: list[tuple[int, ...]] = []  # of the first code, which settles the table's
    of_first: list[tuple[str, Directions | None]] = []  # its bundle's digest, and attributes
    with atomic_path(output) as temporary:
        writer: Any = None

        def load(task: Task) -> tuple[CodeInfo, np.ndarray]:
            info, z = read_z(task.source)
            z_shape[:] = z_shape or [tuple(z.shape)]
            if tuple(z.shape) != z_shape[0]:
                raise CodeError(
                    f"{task.name}: its z has the shape {tuple(z.shape)}, the first code's {z_shape[0]}",
                    hint="make a table of each bundle's codes",
                )
            return info, z.flatten().numpy()

        def process(batch: Sequence[Task], loaded: Sequence[tuple[CodeInfo, np.ndarray]]) -> list[Result]:
            nonlocal writer
            first = loaded[0][0]
            of_first[:] = of_first or [(first.bundle_digest, attributes(first))]
            rows = code_rows(
                [task.result.removesuffix(CODE_SUFFIX) for task in batch],
                [task.name for task in batch],
                [info for info, _ in loaded],
                np.stack([z for _, z in loaded]),
                z_shape[0],
                *of_first[0],
            )
            try:
                if writer is None:
                    writer = parquet.ParquetWriter(temporary, rows.schema)
                writer.write_table(rows)
            except OSError as error:  # a full disk: no row's own fault, and half a row group is no table
                raise _TableError(error) from error
            return [Result(output=str(output))] * len(batch)

        try:
            yield from run_batches(tasks, load=load, process=process, batch_size=ROWS_AT_ONCE)
            if writer is None:
                raise CodeError(f"{output}: not written, for there is no code to put into it")
        except _TableError as failed:
            raise failed.error from failed
        finally:
            if writer is not None:
                writer.close()


def code_rows(
    names: Sequence[str],
    paths: Sequence[str],
    infos: Sequence[CodeInfo],
    z: np.ndarray,
    z_shape: tuple[int, ...],
    bundle_digest: str,
    directions: Directions | None,
) -> Any:
    """Rows as a table of pyarrow's: ``z`` (N, d) float32 of codes called ``names``, which lie at ``paths``.

    ``directions`` are the classifiers of the bundle of ``bundle_digest``; rows of others have no
    probabilities.
    """
    arrow, _ = pyarrow_modules()
    flat = arrow.array(z.reshape(-1), type=arrow.float32())
    columns: dict[str, Any] = {
        "name": list(names),
        "path": list(paths),
        "z": arrow.FixedSizeListArray.from_arrays(flat, z.shape[1]),
    }
    columns |= {name: [getattr(info, name) for info in infos] for name in RECORDED}
    if directions is not None:
        probabilities = directions.logits(torch.from_numpy(z)).sigmoid()
        probabilities[[info.bundle_digest != bundle_digest for info in infos]] = math.nan
        columns |= {
            PROBABILITY + name: arrow.array(probabilities[:, i].numpy(), from_pandas=True)
            for i, name in enumerate(directions.names)
        }
    return arrow.table(
        columns, schema=_schema(arrow, z_shape, () if directions is None else directions.names)
    )


class _TableError(Exception):
    """Carries an OSError of the table past what would take it for an error of one item."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def merge_tables(tables: Sequence[Path], output: Path) -> int:
    """Write the rows of all ``tables`` to one, in their order; returns how many.

    Raises UsageError for what is no such table, tables of different z, and a name that stands in two rows.
    """
    arrow, parquet = pyarrow_modules()
    opened = [open_table(arrow, parquet, path) for path in tables]
    first = opened[0].schema_arrow
    for path, table in zip(tables, opened, strict=True):
        if not table.schema_arrow.equals(first, check_metadata=True):
            raise UsageError(f"{path}: its columns or its z are not those of {tables[0]}")
    _refuse_repeated(tables, opened)
    check_output(output)
    if output.resolve() in {path.resolve() for path in tables}:
        raise OccupiedError(f"{output}: is one of the tables to merge", hint="name another file with -o")
    with atomic_path(output) as temporary, parquet.ParquetWriter(temporary, first) as writer:
        for table in opened:
            for batch in table.iter_batches(ROWS_AT_ONCE):
                writer.write_batch(batch)
    return sum(table.metadata.num_rows for table in opened)


def check_output(output: Path) -> None:
    """Raise OccupiedError where a file stands that is no table of codes, so that it would be lost."""
    arrow, parquet = pyarrow_modules()
    if not output.is_file() or not output.stat().st_size:
        return
    try:
        if b"z_shape" in (open_table(arrow, parquet, output).schema_arrow.metadata or {}):
            return
    except UsageError:
        pass
    raise OccupiedError(
        f"{output}: is there already, and is no table of codes", hint="name another file with -o"
    )


def _refuse_repeated(paths: Sequence[Path], tables: Sequence[Any]) -> None:
    def names() -> Iterator[tuple[Path, str]]:
        for path, table in zip(paths, tables, strict=True):
            for batch in table.iter_batches(ROWS_AT_ONCE, columns=["name"]):
                yield from ((path, name) for name in batch.column(0).to_pylist())

    prints = np.array(array("Q", (fingerprint(name) for _, name in names())), dtype=np.uint64)
    values, counts = np.unique(prints, return_counts=True)
    suspects = set(values[counts > 1].tolist())
    seen: dict[str, Path] = {}
    for path, name in names() if suspects else ():
        if fingerprint(name) in suspects:
            if name in seen:
                raise UsageError(f"{name}: a row of {seen[name]} and one of {path} have this name")
            seen[name] = path


def _schema(arrow: Any, z_shape: tuple[int, ...], attributes: Sequence[str]) -> Any:
    text, number = arrow.string(), arrow.float64()
    kinds = {"image_size": arrow.int32(), "edits": arrow.list_(text), "mse": number, "psnr_db": number}
    z = arrow.list_(arrow.float32(), int(np.prod(z_shape)))
    fields = [("name", text), ("path", text), ("z", z)]
    fields += [(name, kinds.get(name, text)) for name in RECORDED]
    fields += [(PROBABILITY + name, arrow.float32()) for name in attributes]
    return arrow.schema(fields, metadata={"z_shape": json.dumps(z_shape)})
