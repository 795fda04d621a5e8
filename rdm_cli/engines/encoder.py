"""Images to codes, a batch of columns at a time: what engines such as Ray Data, Daft, Spark and Dask call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from rdm_cli.codes.code import Codes
from rdm_cli.data.images.pixels import Fit
from rdm_cli.data.io.places import Blob
from rdm_cli.errors import ImageError, UsageError
from rdm_cli.jobs.batch import run_batches
from rdm_cli.jobs.loading import decoded, hashed, in_batches_for
from rdm_cli.pipeline.effort import Effort
from rdm_cli.pipeline.images import LoadedImage
from rdm_cli.pipeline.pipeline import open_pipeline
from rdm_cli.pipeline.running import ignore_progress
from rdm_cli.registry import DEFAULT_BUNDLE


class Encoder:
    """Encodes batches of images: columns in, columns out. An engine makes one in each of its workers.

        rows = ray.data.read_parquet("photos/").map_batches(rdm_cli.Encoder, concurrency=4)
        rows.write_parquet("z/")

    A batch maps names to columns of N values: NumPy arrays, or what makes them (a DataFrame is such a batch,
    too). The ``column`` of images holds the bytes of image files; or, as Hugging Face stores images, structs
    of ``bytes`` and ``path``; or uint8 arrays (H, W, 3) or (H, W), or all of them as one (N, H, W, 3).

    The answer has the other columns as they came, and

    - ``z``: float32 (N, d), z in row-major order;
    - ``x_T``: float32 (N, C, H, W), ``with_x_T`` alone, of a solver that keeps one state;
    - ``source_digest``: the SHA-256 of each image file, None of an array;
    - ``error``: why a row could not be encoded, None where it was. Its z (and x_T) are NaN, the other rows
      are not touched by it, and ``num_failed`` counts it, over all batches of this worker.

    ``fit``, ``inversion``, ``steps`` and ``iterations`` are those of :meth:`Pipeline.encode`; ``opening`` are
    further arguments of :func:`open_pipeline`, such as ``device`` and ``batch_size``: images that are in the
    networks at once, whatever the engine's batches are. Results do not depend on how rows are batched beyond
    rounding, and not at all with the same ``batch_size`` and number of threads.

    Raises what :func:`open_pipeline` raises; UsageError for a batch without the column, and for one that has
    a column of its own by the name of an answer; ValueError for columns of different lengths.
    """

    def __init__(
        self,
        bundle: str = DEFAULT_BUNDLE,
        *,
        column: str = "image",
        fit: Fit = "crop",
        with_x_T: bool = False,
        inversion: str | None = None,
        steps: int | None = None,
        iterations: int | None = None,
        **opening: Any,
    ) -> None:
        self.column, self.fit = column, fit
        pipeline = open_pipeline(bundle, **opening)
        pipeline.bundle.require_z("an Encoder")
        if pipeline.bundle.model.time_dependent:
            raise UsageError(f"{pipeline.bundle.name}: has one z for each timestep, which is no column")
        self._effort = Effort(inversion=inversion, steps=steps, iterations=iterations, with_x_T=with_x_T)
        way = self._effort.way(pipeline.bundle)
        if with_x_T and way.kernel.in_pairs:
            raise UsageError(
                f"{way.sampling.solver}: keeps two states, which no column holds", hint="leave out with_x_T"
            )
        self.pipeline, self._num_at_once = in_batches_for(pipeline, None, z_alone=not with_x_T)
        self.num_failed = 0

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Encode a batch; see the class."""
        columns = {name: _as_column(values) for name, values in dict(batch).items()}
        if self.column not in columns:
            raise UsageError(f"a batch has no column {self.column!r}; it has {', '.join(columns) or 'none'}")
        images = columns.pop(self.column)
        model, num = self.pipeline.bundle.model, len(images)
        if any(len(values) != num for values in columns.values()):
            raise ValueError("the columns of a batch are of different lengths")
        answer = {
            "z": np.full((num, self.pipeline.bundle.z_width), np.nan, np.float32),
            "source_digest": np.full(num, None, object),
            "error": np.full(num, None, object),
        }
        if self._effort.with_x_T:
            answer["x_T"] = np.full((num, *model.x_T_shape), np.nan, np.float32)
        if taken := answer.keys() & columns.keys():
            raise UsageError(f"a batch has a column {min(taken)!r} already", hint="rename it")
        for outcome in run_batches(
            range(num),
            load=lambda row: self._load(row, images[row]),
            process=self._encode,
            batch_size=self._num_at_once,
        ):
            row = outcome.item
            if outcome.error is not None:
                answer["error"][row] = outcome.error
                self.num_failed += 1
                continue
            code = outcome.result
            assert code is not None
            answer["z"][row] = code.z.flatten().numpy()
            answer["source_digest"][row] = code.infos[0].source_digest
            if code.x_T is not None and "x_T" in answer:
                answer["x_T"][row] = code.x_T[0].numpy()
        return columns | answer

    def _load(self, row: int, value: Any) -> LoadedImage:
        """One value of the column of images; raises ImageError."""
        path, content = f"row {row}", value
        if isinstance(value, Mapping):
            path, content = str(value.get("path") or path), value.get("bytes")
        if isinstance(content, bytes | bytearray | memoryview):
            return decoded(self.pipeline, hashed(self.pipeline, Blob(path, bytes(content))), self.fit)
        if content is None:
            raise ImageError(f"{path}: no image")
        try:
            x_0 = self.pipeline.load_images(np.asarray(content), self.fit)
        except ValueError as error:
            raise ImageError(f"{path}: {error}") from error
        if len(x_0) != 1:
            raise ImageError(f"{path}: {len(x_0)} images in one row")
        return LoadedImage(x_0=x_0[0], name=path, record=self.pipeline.given_of(None))

    def _encode(self, rows: Sequence[int], images: Sequence[LoadedImage]) -> Iterator[Codes]:
        return iter(self.pipeline.encode(images, **asdict(self._effort), advance=ignore_progress))


def _as_column(values: Any) -> np.ndarray:
    """A column as an array of N; lists of bytes stay Python's, for NumPy's own cut zeros from their ends."""
    if isinstance(values, np.ndarray):
        return values
    if hasattr(values, "to_numpy"):
        return values.to_numpy()
    column = np.empty(len(values), object)
    for row, value in enumerate(values):
        column[row] = value
    return column
