"""The verbs over files: load, work in batches, write beside or mirrored, one outcome an item.

Images become codes in :mod:`rdm_cli.core.encoding`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from rdm_cli.core.batch import Outcome, Task, counted, run_batches
from rdm_cli.core.codes import CodeInfo, Codes
from rdm_cli.core.compatibility import check_codes
from rdm_cli.core.effort import USUAL, Effort, encode_by, parts_of_work
from rdm_cli.core.encoding import finite
from rdm_cli.core.inputs import (
    LoadedImage,
    encode_loaded,
    in_batches_for,
    load_image,
    load_image_or_code,
)
from rdm_cli.core.lossless import is_restored, restored
from rdm_cli.core.pipeline import Pipeline
from rdm_cli.core.running import Advance, ignore_progress, share
from rdm_cli.data.folders import CODE_SUFFIX
from rdm_cli.data.images import Fit, grid, pixels_to_pil, save_image, to_pil, to_pixels
from rdm_cli.data.places import digest_of
from rdm_cli.errors import CodeError, PictureError, RdmError
from rdm_cli.metrics.reconstruction import mse, psnr, ssim


def decode_files(
    pipelines: Callable[[CodeInfo], Pipeline],
    tasks: Iterable[Task],
    *,
    steps: int | None = None,
    x_T: str = "inferred",
    seed: int = 0,
    batch_size: int,
    advance: Advance = ignore_progress,
) -> Iterator[Outcome[Task]]:
    """Decode each task's code into its image; a lossless one that is decoded as it was made, to the pixel.

    ``pipelines`` opens the bundle that a code was made with. ``x_T`` "random" ignores a stored one.
    """

    def load(task: Task) -> tuple[Pipeline, Codes] | Outcome[Task]:
        codes = Codes.load(task.source)
        info = codes.infos[0]
        pipeline = replace(pipelines(info), batch_size=batch_size)
        check_codes(pipeline.bundle, codes)
        as_made = x_T == "inferred" and pipeline.decodes_as_made(info, steps)
        if as_made and is_restored(task.target, info):
            return Outcome(item=task, data={"output": str(task.target), "skipped": True})
        _spare_source(task, info)
        if x_T != "inferred":
            return pipeline, codes.without_x_T()
        return pipeline, codes if as_made else codes.replace(residuals=None)

    def process(
        batch: Sequence[Task], loaded: Sequence[tuple[Pipeline, Codes]]
    ) -> Iterator[dict[str, Any] | RdmError]:
        pictures: list[Tensor | RdmError] = [torch.empty(0)] * len(batch)
        kinds = [(p.bundle.digest, p.precision, c.holds) for p, c in loaded]
        for kind in dict.fromkeys(kinds):
            chosen = [i for i, other in enumerate(kinds) if other == kind]
            codes = Codes.concatenate([loaded[i][1] for i in chosen])
            x_0 = loaded[chosen[0]][0].decode(
                codes,
                steps=steps,
                seed=seed,
                keys=[batch[i].source.stem for i in chosen],
                advance=advance,
            )
            for i, code, picture in zip(chosen, codes, x_0, strict=True):
                name = str(batch[i].target)
                try:
                    pictures[i] = (
                        to_pixels(picture, name) if code.residuals is None else restored(code, picture[None])
                    )
                except (CodeError, PictureError) as error:
                    pictures[i] = error
        for task, pixels in zip(batch, pictures, strict=True):
            if isinstance(pixels, RdmError):
                yield pixels
                continue
            digest = save_image(pixels_to_pil(pixels), task.target)
            yield {"output": str(task.target), "skipped": False, "digest": digest}

    yield from run_batches(tasks, load=load, process=process, batch_size=batch_size)


def reconstruct_files(
    pipeline: Pipeline,
    tasks: Iterable[Task],
    *,
    num_items: int | None = None,
    effort: Effort = USUAL,
    variations: int = 0,
    seed: int = 0,
    fit: Fit = "crop",
    advance: Advance = ignore_progress,
) -> Iterator[Outcome[Task]]:
    """Encode and decode each image; write the reconstruction and, beside it, a side-by-side.

    An ``effort`` without x_T draws it instead of inferring it. ``variations`` K appends K pictures of the
    same z with other x_T to the side-by-side. Outcomes carry MSE, PSNR in dB and SSIM.
    """
    pipeline, batch_size = in_batches_for(pipeline, counted(tasks, num_items))

    def process(batch: Sequence[Task], images: Sequence[LoadedImage]) -> Iterator[dict[str, Any]]:
        x_0 = torch.cat([image.x_0 for image in images])
        up, down = parts_of_work(pipeline, effort, num_decodes=1 + variations)
        shown = share(advance, down)
        codes = encode_by(pipeline, x_0, [image.class_name for image in images], effort, share(advance, up))
        names = [task.source.stem for task in batch]
        # an x_T that was drawn is decoded as samples are, in so many steps
        steps = None if effort.with_x_T else effort.steps
        decoded = pipeline.decode(codes, steps=steps, seed=seed, keys=names, advance=shown)
        others = []
        for k in range(variations):
            keys = [f"{name} variation {k}" for name in names]
            others.append(
                pipeline.decode(codes.without_x_T(), steps=effort.steps, seed=seed, keys=keys, advance=shown)
            )
        scores = zip(mse(x_0, decoded), psnr(x_0, decoded), ssim(x_0, decoded), strict=True)
        for i, (task, (m, p, s)) in enumerate(zip(batch, scores, strict=True)):
            name = str(task.target)
            row = [to_pil(picture, name) for picture in (x_0[i], decoded[i], *(other[i] for other in others))]
            side = task.target.with_name(f"{task.target.stem}-side-by-side.png")
            digest = save_image(row[1], task.target)
            save_image(grid(row, len(row)), side)
            yield {
                "output": str(task.target),
                "digest": digest,
                "side_by_side": str(side),
                "source_size": images[i].size,
                "image_size": pipeline.bundle.model.image_size,
                "mse": float(m),
                "psnr_db": finite(float(p)),
                "ssim": float(s),
            }

    yield from run_batches(
        tasks,
        load=lambda task: load_image(pipeline, task.source, fit),
        process=process,
        batch_size=batch_size,
    )


def manipulate_files(
    pipeline: Pipeline,
    tasks: Iterable[Task],
    *,
    num_items: int | None = None,
    edits: Sequence[Mapping[str, float]],
    strip: bool,
    effort: Effort = USUAL,
    seed: int = 0,
    fit: Fit = "crop",
    advance: Advance = ignore_progress,
) -> Iterator[Outcome[Task]]:
    """Edit each image or code; one edit gives a picture and its code, ``strip`` one row of all edits."""
    num = counted(tasks, num_items)
    encoder, batch_size = in_batches_for(pipeline, num)
    decoder, _ = in_batches_for(pipeline, None if num is None else num * len(edits))

    def process(batch: Sequence[Task], loaded: Sequence[LoadedImage | Codes]) -> Iterator[dict[str, Any]]:
        paths = [task.source for task in batch]
        up, down = parts_of_work(pipeline, effort, num_decodes=len(edits))
        starts = encode_loaded(encoder, paths, loaded, effort, fit=fit, advance=share(advance, up))
        if not effort.with_x_T:
            starts = [codes.without_x_T() for codes in starts]
        edited = [[pipeline.manipulate(codes, edit) for edit in edits] for codes in starts]
        pictures: list[list[Image]] = [[] for _ in batch]
        for held in dict.fromkeys(codes.holds for codes in starts):
            chosen = [i for i, codes in enumerate(starts) if codes.holds == held]
            x_0 = decoder.decode(
                Codes.concatenate([code for i in chosen for code in edited[i]]),
                # codes that were made elsewhere keep to their own way; a new x_T knows none
                steps=None if effort.with_x_T and effort.inversion != "ddim" else effort.steps,
                seed=seed,
                keys=[batch[i].source.stem for i in chosen for _ in edits],
                advance=share(advance, down),
            )
            for i, row in zip(chosen, x_0.split(len(edits)), strict=True):
                pictures[i] = [to_pil(picture, str(batch[i].target)) for picture in row]
        for task, codes, row in zip(batch, edited, pictures, strict=True):
            digest = save_image(grid(row, len(row)) if strip else row[0], task.target)
            result: dict[str, Any] = {
                "output": str(task.target),
                "digest": digest,
                "edits": [dict(e) for e in edits],
            }
            if not strip:
                path = task.target.with_name(f"{task.target.stem}{CODE_SUFFIX}")
                codes[0].save([path])
                result["code"] = str(path)
            yield result

    def load(task: Task) -> Any:  # a union here, beside run_batches' own, is more than mypy infers
        return load_image_or_code(pipeline, task.source, fit)

    yield from run_batches(tasks, load=load, process=process, batch_size=batch_size)


def _spare_source(task: Task, info: CodeInfo) -> None:
    """Refuse to decode over the very image that a code was made from."""
    if info.source_digest is None or not task.target.is_file():
        return
    if digest_of(task.target) == info.source_digest:
        raise CodeError(
            f"{task.target}: this is the image that the code was made from, and it stays",
            hint="write elsewhere with -o DIR",
        )


def require_attributes(pipeline: Pipeline, names: Sequence[str]) -> list[str]:
    """A line on each of ``names`` that was hardly learned; raises UsageError for an unknown one."""
    directions = pipeline.bundle.directions
    for name in names:
        directions.index(name)
    return [line for line in map(directions.doubts, names) if line]
