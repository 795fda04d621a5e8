"""Image files to code files: which are up to date, how hard each is worked on, what is measured and kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from rdm_cli.core.batch import Outcome, Task, counted, run_batches
from rdm_cli.core.codes import CodeInfo, Codes, read_info
from rdm_cli.core.effort import USUAL, Effort, Verified, encode_by, encode_verified
from rdm_cli.core.inputs import LoadedImage, in_batches_for, load_image, sourced
from rdm_cli.core.lossless import num_bytes, restored, with_residual
from rdm_cli.core.pipeline import UNMEASURED, Pipeline
from rdm_cli.core.running import Advance, ignore_progress
from rdm_cli.core.ways import way_up
from rdm_cli.data.images import Fit
from rdm_cli.errors import CodeError, RdmError


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What is asked of each code: the ``effort``, and what it is to promise.

    ``verify`` decodes it and records MSE and PSNR; ``lossless`` adds what restores every pixel of the fitted
    image, the square of the bundle's size; all errors are those of that image, not of the file's;
    ``min_psnr_db`` raises the effort until the code alone gives so much. Either of these verifies, too.
    """

    effort: Effort = USUAL
    verify: bool = False
    lossless: bool = False
    min_psnr_db: float | None = None

    @property
    def measures(self) -> bool:
        """Whether each code is decoded again."""
        return self.verify or self.lossless or self.min_psnr_db is not None


PLAIN = Encoding()


def encode_files(
    pipeline: Pipeline,
    tasks: Iterable[Task],
    encoding: Encoding = PLAIN,
    *,
    fit: Fit = "crop",
    force: bool = False,
    num_items: int | None = None,
    advance: Advance = ignore_progress,
) -> Iterator[Outcome[Task]]:
    """Encode each task's image into its code file, skipping what is up to date.

    ``num_items`` are those of the whole job, where ``tasks`` are a shard of it or a stream.
    """
    pipeline, batch_size = in_batches_for(pipeline, counted(tasks, num_items))
    effort = encoding.effort
    way = way_up(pipeline.bundle, effort.inversion, effort.steps)
    # a z that depends on t is made for the steps of the way, with or without its x_T
    of_steps = effort.with_x_T or pipeline.bundle.model.time_dependent
    read: Any = {"fit": fit, "value_range": pipeline.value_range}
    wanted = pipeline.info_of(way, effort.iterations, **read) if of_steps else pipeline.info(**read)

    def load(task: Task) -> LoadedImage | Outcome[Task]:
        # the image is read before its code is believed: a damaged file must be named on every run
        loaded = load_image(pipeline, task.source, fit)
        if not force and task.target.is_file():
            known = _info_or_none(task.target)
            wanted_here = replace(wanted, class_name=loaded.class_name)
            if known is not None and _is_as_wanted(known, wanted_here, loaded.digest, encoding):
                return Outcome(item=task, data={"output": str(task.target), "skipped": True})
        return loaded

    def process(batch: Sequence[Task], images: Sequence[LoadedImage]) -> Iterator[dict[str, Any] | RdmError]:
        x_0 = torch.cat([image.x_0 for image in images])
        classes = [image.class_name for image in images]
        if encoding.measures:
            made: Sequence[Verified | Codes | RdmError] = encode_verified(
                pipeline, x_0, classes, effort, min_psnr_db=encoding.min_psnr_db, advance=advance
            )
        else:
            made = list(encode_by(pipeline, x_0, classes, effort, advance))
        for i, (task, image, one) in enumerate(zip(batch, images, made, strict=True)):
            if isinstance(one, RdmError):
                yield one
                continue
            try:
                code, data = (
                    _measured(one, x_0[i : i + 1], encoding) if isinstance(one, Verified) else (one, {})
                )
                infos = sourced(code, [task.source.name], [image], fit, pipeline.value_range)
                (digest,) = code.replace(infos=infos).save([task.target])
            except CodeError as error:
                yield error
                continue
            sizes = {"source_size": image.size, "image_size": pipeline.bundle.model.image_size}
            yield {"output": str(task.target), "skipped": False, "digest": digest, **sizes, **data}

    yield from run_batches(tasks, load=load, process=process, batch_size=batch_size)


def _measured(verified: Verified, x_0: torch.Tensor, encoding: Encoding) -> tuple[Codes, dict[str, Any]]:
    """The code with its error in it and, where it is to be lossless, its residual; and what to say of it."""
    error: dict[str, Any] = {"mse": verified.mse, "psnr_db": finite(verified.psnr_db)}
    code = verified.code.replace(infos=(replace(verified.code.infos[0], **error),))
    info = code.infos[0]
    data: dict[str, Any] = error | {"solver": info.solver, "steps": info.steps}
    if encoding.lossless:
        code = with_residual(code, x_0, verified.picture)
        restored(code, verified.picture)  # raises where it does not bring back every pixel
        data["bytes"] = num_bytes(code, x_0)
    return code, data


def _info_or_none(path: Any) -> CodeInfo | None:
    """What is known of an existing file; None where it is no code, which encoding then replaces."""
    try:
        return read_info(path)
    except CodeError:
        return None


_HOW = {"solver": "", "spacing": None, "steps": None, "iterations": None}


def _is_as_wanted(known: CodeInfo, wanted: CodeInfo, digest: str, encoding: Encoding) -> bool:
    """Whether a code is what would be made: of the same image, the same way, with what is asked of it.

    A code that is to reach a PSNR may have been made any way.
    """
    found = replace(known, source=None, **UNMEASURED)
    if encoding.min_psnr_db is not None:
        found, wanted = replace(found, **_HOW), replace(wanted, **_HOW)  # type: ignore[arg-type]
        # without a PSNR but measured, it is exact
        if known.mse is None or (known.psnr_db is not None and known.psnr_db < encoding.min_psnr_db):
            return False
    measured = known.mse is not None or not encoding.measures
    kept = (known.pixels_digest is not None) == encoding.lossless
    return found == wanted and known.source_digest == digest and measured and kept


def finite(value: float) -> float | None:
    """JSON has no infinity: the PSNR of an exact reconstruction is null."""
    return None if value == math.inf else value
