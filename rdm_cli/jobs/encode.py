"""Image files to code files: which are up to date, how hard each is worked on, what is measured and kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from rdm_cli.codes.code import CodeInfo, Codes, read_held
from rdm_cli.codes.lossless import num_bytes, restored, with_residual
from rdm_cli.data.images.pixels import Fit
from rdm_cli.data.images.record import HINT
from rdm_cli.data.io.places import Place
from rdm_cli.errors import CodeError, OccupiedError, RdmError
from rdm_cli.jobs.batch import Outcome, Task, counted, run_batches
from rdm_cli.jobs.loading import decoded, hashed, in_batches_for
from rdm_cli.jobs.results import Encoded, Measured, Result
from rdm_cli.pipeline.effort import USUAL, Effort, Verified, encode_verified, info_wanted
from rdm_cli.pipeline.images import LoadedImage
from rdm_cli.pipeline.pipeline import UNMEASURED, Pipeline
from rdm_cli.pipeline.running import Advance, ignore_progress
from rdm_cli.registry import INVERSIONS


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
) -> Iterator[Outcome[Task, Result]]:
    """Encode each task's image into its code file, skipping what is up to date.

    A file that is no code, a code of another bundle, one of no image and one that holds more than is asked
    for stay, and their images fail by name, unless ``force`` is given.
    ``num_items`` are those of the whole job, where ``tasks`` are a shard of it or a stream.
    """
    effort = encoding.effort
    z_alone = not effort.with_x_T
    pipeline, batch_size = in_batches_for(pipeline, counted(tasks, num_items), z_alone=z_alone)
    wanted = info_wanted(pipeline, effort, fit)

    of_other_images: set[str] = set()  # places whose codes, of other images, are about to be replaced

    def load(task: Task) -> LoadedImage | Outcome[Task, Result]:
        file = hashed(pipeline, task.source)
        if force or not task.target.is_file():
            return decoded(pipeline, file, fit)
        found = _read_known(task.target)
        wanted_here = replace(wanted, **file.given) if file.given else wanted
        # of these very bytes a code was made, so they are no damaged image, which is to be named on every run
        if found is not None and _is_as_wanted(*found, wanted_here, file.digest, encoding):
            return Outcome(item=task, result=Result(output=str(task.target), skipped=True))
        loaded = decoded(pipeline, file, fit)  # before its place is looked at: a damaged image is called that
        if found is None:
            raise OccupiedError(f"{task.target}: is there already, and is no code of rdm's", hint=HINT)
        if (better := _what_is_better(*found, wanted_here, encoding)) is not None:
            raise OccupiedError(f"{task.target}: {better}", hint=HINT)
        if found[0].source_digest != file.digest:
            of_other_images.add(str(task.target))
        return loaded

    told = ignore_progress if z_alone else advance  # of z alone in this thread, as codes are written

    def compute(images: Sequence[LoadedImage]) -> Sequence[tuple[LoadedImage, Verified | Codes | RdmError]]:
        made: Sequence[Verified | Codes | RdmError]
        if encoding.measures:
            made = encode_verified(pipeline, images, effort, min_psnr_db=encoding.min_psnr_db, advance=told)
        else:
            made = list(pipeline.encode(images, **asdict(effort), advance=told))
        return list(zip(images, made, strict=True))

    def process(
        batch: Sequence[Task], computed: Sequence[tuple[LoadedImage, Verified | Codes | RdmError]]
    ) -> Iterator[Result | RdmError]:
        for task, (image, one) in zip(batch, computed, strict=True):
            if z_alone:
                advance(1.0)
            if isinstance(one, RdmError):
                yield one
                continue
            try:
                x_0 = image.x_0[None]
                code, measured = _measured(one, x_0, encoding) if isinstance(one, Verified) else (one, None)
                (digest,) = code.save([task.target])
            except CodeError as error:
                yield error
                continue
            target = str(task.target)
            replaced = target in of_other_images
            of_other_images.discard(target)
            yield Encoded(
                output=target,
                replaced=replaced,
                digest=digest,
                source_size=image.record["source_size"],
                image_size=pipeline.bundle.model.image_size,
                measured=measured,
            )

    yield from run_batches(
        tasks,
        load=load,
        compute=compute,
        computes_ahead=z_alone,  # a pass of the network takes little longer than writing what it gives
        process=process,
        batch_size=batch_size,
    )


def _measured(verified: Verified, x_0: torch.Tensor, encoding: Encoding) -> tuple[Codes, Measured]:
    """The code with its error in it and, where it is to be lossless, its residual; and what to say of it."""
    info = replace(verified.code.infos[0], mse=verified.mse, psnr_db=finite(verified.psnr_db))
    code, sizes = verified.code.replace(infos=(info,)), None
    if encoding.lossless:
        code = with_residual(code, x_0, verified.picture)
        restored(code, verified.picture)  # raises where it does not bring back every pixel
        sizes = num_bytes(code, x_0)
    return code, Measured(
        mse=verified.mse, psnr_db=info.psnr_db, solver=info.solver, steps=info.steps, bytes=sizes
    )


def _read_known(place: Place) -> tuple[CodeInfo, frozenset[str]] | None:
    """What is known of the code that is there already, and what it holds; None where it is no code."""
    try:
        return read_held(place)
    except CodeError:
        return None


def _what_is_better(
    known: CodeInfo, held: frozenset[str], wanted: CodeInfo, encoding: Encoding
) -> str | None:
    """What would be lost if a code took the place of a ``known`` one that holds ``held``; None: nothing."""
    if known.bundle_digest != wanted.bundle_digest:
        return f"is a code of another bundle, {known.bundle} ({known.bundle_digest[:12]})"
    if known.source_digest is None:
        return "is the code of a sample or an edit, and not of an image"
    effort = encoding.effort
    more = [
        told
        for told, has, asked in (
            ("x_T", "x_T" in held, effort.with_x_T),
            ("what brings back every pixel", "residual" in held, encoding.lossless),
            ("the second state of an exact inversion", "other" in held, wanted.solver == "exact"),
            ("its measured error", known.mse is not None, encoding.measures),
        )
        if has and not asked
    ]
    if more:
        return f"holds more than is asked for: {', '.join(more)}"
    if effort.with_x_T and "x_T" in held and encoding.min_psnr_db is None and _rank(known) > _rank(wanted):
        return (
            f"was made by {known.solver} in {known.steps} steps, which is more than {wanted.solver} in "
            f"{wanted.steps}"
        )
    return None


def _rank(info: CodeInfo) -> tuple[int, int]:
    """How hard an image was worked on: by which inversion, then in how many calls of the network."""
    inversion = INVERSIONS.index(info.solver) if info.solver in INVERSIONS else 0
    return inversion, (info.steps or 0) * (info.iterations or 1)


_HOW = {"solver": "", "spacing": None, "steps": None, "iterations": None}


def _is_as_wanted(
    known: CodeInfo, held: frozenset[str], wanted: CodeInfo, digest: str | None, encoding: Encoding
) -> bool:
    """Whether a code is what would be made: of the same image, the same way, with what is asked of it.

    A code that is to reach a PSNR may have been made any way.
    """
    if digest is None or known.source_digest != digest:
        return False
    if ("x_T" in held) != encoding.effort.with_x_T:  # z alone may depend on steps, too
        return False
    found = replace(known, source=None, **UNMEASURED)
    if encoding.min_psnr_db is not None:
        found, wanted = replace(found, **_HOW), replace(wanted, **_HOW)  # type: ignore[arg-type]
        # without a PSNR but measured, it is exact
        if known.mse is None or (known.psnr_db is not None and known.psnr_db < encoding.min_psnr_db):
            return False
    measured = known.mse is not None or not encoding.measures
    kept = (known.pixels_digest is not None) == encoding.lossless
    return found == wanted and measured and kept


def finite(value: float) -> float | None:
    """JSON has no infinity: the PSNR of an exact reconstruction is null."""
    return None if value == math.inf else value
