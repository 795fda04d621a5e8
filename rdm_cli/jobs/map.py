"""A collection as a map: which points it shows, with which pictures, and its table with x and y."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from rdm_cli.collection.projection import Plane
from rdm_cli.collection.rows import ROWS_AT_ONCE, Collection, open_table, pyarrow_modules
from rdm_cli.data.io.atomic import atomic_path
from rdm_cli.errors import OccupiedError
from rdm_cli.kernels.randomness import keyed_generator
from rdm_cli.methods.directions import Directions
from rdm_cli.reports.map_page import Points, thumbnail

MOST_POINTS = 50_000
MEGABYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class MappedRows:
    """The rows that a map shows: their ``numbers`` in the collection, names, paths and probabilities."""

    numbers: np.ndarray
    names: list[str]
    paths: list[str]
    probabilities: dict[str, np.ndarray]


def mapped_rows(
    collection: Collection, num_rows: int, directions: Directions | None, *, most: int, seed: int
) -> MappedRows:
    """All of ``num_rows`` rows, or ``most`` of them, drawn by ``seed``; in the collection's order."""
    order = torch.randperm(num_rows, generator=keyed_generator(seed, "map"))[:most]
    numbers = np.sort(order.numpy())
    names: list[str] = []
    paths: list[str] = []
    parts: list[np.ndarray] = []
    start = 0
    for rows in collection.rows():
        some = numbers[(numbers >= start) & (numbers < start + len(rows.names))] - start
        names += [rows.names[i] for i in some]
        paths += [rows.paths[i] for i in some]
        if directions is not None and len(some):
            parts.append(directions.logits(torch.from_numpy(rows.z[some])).sigmoid().numpy())
        start += len(rows.names)
    probabilities = {}
    if directions is not None:
        table = np.concatenate(parts)
        probabilities = {name: table[:, i] for i, name in enumerate(directions.names)}
    return MappedRows(numbers=numbers, names=names, paths=paths, probabilities=probabilities)


def map_points(
    mapped: MappedRows,
    plane: Plane,
    picture: Callable[[str, str], Image.Image | None],
    *,
    megabytes: float,
    seed: int,
    advance: Callable[[float], None] = lambda amount: None,
) -> Points:
    """The points with their pictures, as many as ``megabytes`` of the page hold, drawn by ``seed``.

    ``picture`` gives that of a code's name and path.
    """
    order = torch.randperm(len(mapped.names), generator=keyed_generator(seed, "pictures")).tolist()
    left = megabytes * MEGABYTE
    pictures: dict[int, bytes] = {}
    for i in order:
        image = None if left <= 0 else picture(mapped.names[i], mapped.paths[i])
        advance(1)
        if image is None:
            continue
        content = thumbnail(image)
        left -= len(content) * 4 / 3  # base64
        if left > 0:
            pictures[i] = content
    return Points(
        names=mapped.names,
        xy=plane.xy[mapped.numbers],
        probabilities=mapped.probabilities,
        pictures=pictures,
    )


def write_placed(collection: Collection, plane: Plane, output: Path) -> None:
    """Write the collection's table again, to a new file, with columns x and y (float32).

    Columns x and y that it has already are replaced. Raises OccupiedError where ``output`` is there.
    """
    arrow, parquet = pyarrow_modules()
    refuse_there(output)
    table = open_table(arrow, parquet, collection.place)
    kept = [field for field in table.schema_arrow if field.name not in ("x", "y")]
    fields = [*kept, arrow.field("x", arrow.float32()), arrow.field("y", arrow.float32())]
    metadata = {**(table.schema_arrow.metadata or {}), b"placed_by": plane.by.encode()}
    schema = arrow.schema(fields, metadata=metadata)
    start = 0
    with atomic_path(output) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for batch in table.iter_batches(ROWS_AT_ONCE, columns=[field.name for field in kept]):
            xy = plane.xy[start : start + len(batch)]
            start += len(batch)
            columns: Sequence[Any] = [*batch.columns, arrow.array(xy[:, 0]), arrow.array(xy[:, 1])]
            writer.write_batch(arrow.record_batch(columns, schema=schema))


def refuse_there(output: Path) -> None:
    """Raise OccupiedError where there is a file already: a table that was placed is never written over."""
    if output.exists():
        raise OccupiedError(f"{output}: is there already", hint="name another file with --table")
