"""Images to rows of a table of codes: a folder of Parquet files, each of which appears whole.

Some hundreds of images make a file ``part-*.parquet``, named after what it was made of: whoever does the same
images twice writes the same file twice. Which images have rows already is read from the files that are there,
so that a job that is run again does what is missing. z alone is kept, in the columns of
:mod:`rdm_cli.jobs.table`; the rows have no order.
"""

from __future__ import annotations

import io
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from rdm_cli.codes.code import CodeInfo, Codes
from rdm_cli.collection.rows import TABLE, open_table, pyarrow_modules
from rdm_cli.data.images.pixels import Fit
from rdm_cli.data.io.places import put
from rdm_cli.data.sources.remote import is_url, names_below, open_stream, place_of
from rdm_cli.data.sources.shards import fingerprint
from rdm_cli.errors import CodeError, OccupiedError, RdmError, SourceError, UsageError, setting
from rdm_cli.jobs.batch import Outcome, Task, run_batches, told
from rdm_cli.jobs.loading import decoded, hashed, in_batches_for
from rdm_cli.jobs.manifests import place_among
from rdm_cli.jobs.results import Encoded, Result
from rdm_cli.jobs.table import code_rows
from rdm_cli.methods.directions import Directions
from rdm_cli.pipeline.effort import USUAL, Effort, info_wanted
from rdm_cli.pipeline.images import LoadedImage
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.pipeline.running import Advance, ignore_progress

ROWS_IN_A_PART = 1024
_READ_AT_ONCE = 2**16


@dataclass(frozen=True, kw_only=True)
class KnownRows:
    """Which rows a table has: sorted fingerprints, uint64 (N,), of their ``names`` and of ``rows``.

    The latter are of name, digest of the image's file, and class: of all that a row was made of.
    """

    names: np.ndarray
    rows: np.ndarray

    def __contains__(self, row: tuple[str, str | None, str | None]) -> bool:
        return place_among(self.rows, _print_of(*row)) is not None

    def has_named(self, name: str) -> bool:
        """Whether there is a row of this name, whatever it was made of."""
        return place_among(self.names, fingerprint(name)) is not None


def _print_of(name: str, digest: str | None, class_name: str | None) -> int:
    return fingerprint(f"{name}\0{digest}\0{class_name}")


def part_names(table: str) -> list[str]:
    """The Parquet files in the folder ``table``, a path or a URL, sorted; none where it is not there."""
    if is_url(table):
        with suppress(SourceError):  # a store has no empty folders
            return names_below(table, TABLE)
        return []
    return sorted(str(path) for path in Path(table).glob(f"*{TABLE}"))


def known_rows(table: str, pipeline: Pipeline, effort: Effort = USUAL, *, fit: Fit = "crop") -> KnownRows:
    """Which rows the folder ``table`` has; 16 bytes of memory each.

    Raises UsageError for files that are no tables of codes, OccupiedError for codes of another bundle or fit.
    """
    wanted = info_wanted(pipeline, effort, fit)
    names, rows = array("Q"), array("Q")
    for part in part_names(table):
        for name, digest, class_name in _read_part(part, wanted):
            names.append(fingerprint(name))
            rows.append(_print_of(name, digest, class_name))
    return KnownRows(names=_sorted(names), rows=_sorted(rows))


def _sorted(values: array[int]) -> np.ndarray:
    return np.sort(np.array(values, dtype=np.uint64))


def _read_part(part: str, wanted: CodeInfo) -> Iterator[tuple[str, str | None, str | None]]:
    arrow, parquet = pyarrow_modules()
    columns = ["name", "source_digest", "class_name", "bundle_digest", "fit"]
    with open_stream(part, in_pieces=True) as file:
        table = open_table(arrow, parquet, part, file)
        if missing := set(columns) - set(table.schema_arrow.names):
            raise UsageError(f"{part}: a table of codes without the column {min(missing)}")
        for batch in table.iter_batches(_READ_AT_ONCE, columns=columns):
            found = {name: batch.column(name).to_pylist() for name in columns}
            for digest, fit in zip(found["bundle_digest"], found["fit"], strict=True):
                if (digest, fit) != (wanted.bundle_digest, wanted.fit):
                    raise OccupiedError(
                        f"{part}: holds codes of another bundle ({str(digest)[:12]}) or fit ({fit})",
                        hint="write another table",
                    )
            yield from zip(found["name"], found["source_digest"], found["class_name"], strict=True)


def encode_table(
    pipeline: Pipeline,
    tasks: Iterable[Task],
    *,
    table: str,
    known: KnownRows,
    effort: Effort,
    fit: Fit = "crop",
    num_items: int | None = None,
    rows_in_a_part: int = ROWS_IN_A_PART,
    advance: Advance = ignore_progress,
) -> Iterator[Outcome[Task, Result]]:
    """Encode each task's image into a row of the folder ``table``, called by the task's ``result``.

    An image of which ``known`` has a row is skipped. One whose name has a row of another file, or of another
    class, fails by name: rows are never replaced. An outcome comes when its row is written.
    """
    pipeline, batch_size = in_batches_for(pipeline, num_items, z_alone=True)

    def load(task: Task) -> LoadedImage | Outcome[Task, Codes | Result]:
        file = hashed(pipeline, task.source)
        if (task.result, file.digest, file.given.get("class_name")) in known:
            return Outcome(item=task, result=Result(output=table, skipped=True))
        loaded = decoded(pipeline, file, fit)
        if known.has_named(task.result):
            raise OccupiedError(
                f"{task.name}: {table} has a row {task.result} of another image",
                hint="write another table, or delete the part that holds it",
            )
        return loaded

    def compute(images: Sequence[LoadedImage]) -> Sequence[Codes]:
        return list(pipeline.encode(images, **asdict(effort), advance=ignore_progress))

    def process(batch: Sequence[Task], codes: Sequence[Codes]) -> Iterator[Codes | Result | RdmError]:
        for task, code in zip(batch, codes, strict=True):
            advance(1.0)
            if bool(code.z.isfinite().all()):
                yield code
            else:
                yield CodeError(
                    f"{task.name}: its z holds values that are not finite, so it is not written",
                    hint=f"try another {setting('precision')}",
                )

    directions = _directions(pipeline)
    stream = iter(tasks)
    while True:
        made: list[tuple[Outcome[Task, object], Codes]] = []
        num_seen = 0
        some = islice(stream, rows_in_a_part)
        for outcome in run_batches(some, load=load, compute=compute, process=process, batch_size=batch_size):
            num_seen += 1
            if isinstance(outcome.result, Codes):
                made.append((outcome, outcome.result))
            else:
                yield Outcome(**vars(outcome))
        if made:
            yield from _written(pipeline, table, made, directions)
        if num_seen < rows_in_a_part:
            return


def _directions(pipeline: Pipeline) -> Directions | None:
    with suppress(RdmError):
        return pipeline.bundle.directions
    return None


def _written(
    pipeline: Pipeline,
    table: str,
    made: Sequence[tuple[Outcome[Task, object], Codes]],
    directions: Directions | None,
) -> Iterator[Outcome[Task, Result]]:
    """The outcomes of rows that were ``made``, once they are written to a file of their own."""
    tasks = [outcome.item for outcome, _ in made]
    infos = [code.infos[0] for _, code in made]
    rows = code_rows(
        [task.result for task in tasks],
        [task.name for task in tasks],
        infos,
        np.concatenate([code.z.flatten(1).numpy() for _, code in made]),
        tuple(made[0][1].z.shape[1:]),
        pipeline.bundle.digest,
        directions,
    )
    made_of = zip(tasks, infos, strict=True)
    of = "\n".join(str(_print_of(task.result, i.source_digest, i.class_name)) for task, i in made_of)
    part = f"{table.rstrip('/')}/part-{fingerprint(of):016x}{TABLE}"
    _, parquet = pyarrow_modules()
    buffer = io.BytesIO()
    parquet.write_table(rows, buffer)
    error = digest = None
    try:
        digest = put(place_of(part), buffer.getvalue())
    except (OSError, RdmError) as fault:
        error = told(fault)
    for (outcome, _), info in zip(made, infos, strict=True):
        result = None
        if error is None:
            assert info.source_size is not None, "it was read from a file"
            size = pipeline.bundle.model.image_size
            result = Encoded(output=part, digest=digest, source_size=info.source_size, image_size=size)
        yield Outcome(item=outcome.item, result=result, error=error, seconds=outcome.seconds)
