"""The verbs over files: load, work in batches, write beside or mirrored, one outcome an item."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from rdm_cli.core.batch import Outcome, Task, run_batches
from rdm_cli.core.codes import CodeInfo, Codes, read_info
from rdm_cli.core.compatibility import check_codes
from rdm_cli.core.inputs import (
    CODE_SUFFIX,
    LoadedImage,
    encode_loaded,
    file_digest,
    in_batches_for,
    load_image,
    load_image_or_code,
    sourced,
)
from rdm_cli.core.pipeline import Pipeline
from rdm_cli.core.running import Advance, ignore_progress
from rdm_cli.data.images import Fit, grid, save_image, to_pil
from rdm_cli.errors import CodeError
from rdm_cli.metrics.reconstruction import mse, psnr, ssim


def encode_files(
    pipeline: Pipeline,
    tasks: Sequence[Task],
    *,
    steps: int | None = None,
    with_x_T: bool = True,
    verify: bool = False,
    fit: Fit = "crop",
    force: bool = False,
    advance: Advance = ignore_progress,
) -> Iterator[Outcome[Task]]:
    """Encode each task's image into its code file, skipping what is up to date.

    ``verify`` decodes each code and records MSE and PSNR in it and in the outcome.
    """
    pipeline, batch_size = in_batches_for(pipeline, len(tasks))
    wanted = pipeline.info(steps=(steps or pipeline.default_steps) if with_x_T else None, fit=fit)

    def load(task: Task) -> LoadedImage | Outcome[Task]:
        # the image is read before its code is believed: a damaged file must be named on every run
        loaded = load_image(pipeline, task.source, fit)
        if not force and task.target.is_file():
            known = _info_or_none(task.target)
            wanted_here = replace(wanted, class_name=loaded.class_name)
            if known is not None and _same_settings(known, wanted_here, loaded.digest, verify=verify):
                advance(1.0)
                return Outcome(item=task, data={"output": str(task.target), "skipped": True})
        return loaded

    def process(batch: Sequence[Task], images: Sequence[LoadedImage]) -> list[dict[str, Any]]:
        x_0 = torch.cat([image.x_0 for image in images])
        classes = [image.class_name for image in images]
        codes = pipeline.encode(x_0, classes=classes, steps=steps, with_x_T=with_x_T, advance=advance)
        infos = sourced(codes, [t.source.name for t in batch], [i.digest for i in images], fit)
        errors: list[dict[str, float | None]] = [{} for _ in batch]
        if verify:
            decoded = pipeline.decode(codes, steps=steps)
            errors = [
                {"mse": float(m), "psnr_db": _finite(float(p))}
                for m, p in zip(mse(x_0, decoded), psnr(x_0, decoded), strict=True)
            ]
            infos = tuple(
                replace(i, mse=e["mse"], psnr_db=e["psnr_db"]) for i, e in zip(infos, errors, strict=True)
            )
        codes = codes.replace(infos=infos)
        for code, task in zip(codes, batch, strict=True):
            code.save([task.target])
        return [{"output": str(t.target), "skipped": False, **e} for t, e in zip(batch, errors, strict=True)]

    yield from run_batches(tasks, load=load, process=process, batch_size=batch_size)


def decode_files(
    pipelines: Callable[[CodeInfo], Pipeline],
    tasks: Sequence[Task],
    *,
    steps: int | None = None,
    x_T: str = "inferred",
    seed: int = 0,
    batch_size: int,
    advance: Advance = ignore_progress,
) -> Iterator[Outcome[Task]]:
    """Decode each task's code into its image.

    ``pipelines`` opens the bundle that a code was made with. ``x_T`` "random" ignores a stored one.
    """

    def load(task: Task) -> tuple[Pipeline, Codes]:
        codes = Codes.load(task.source)
        _spare_source(task, codes.infos[0])
        pipeline = replace(pipelines(codes.infos[0]), batch_size=batch_size)
        check_codes(pipeline.bundle, codes)
        return pipeline, codes if x_T == "inferred" else codes.replace(x_T=None)

    def process(batch: Sequence[Task], loaded: Sequence[tuple[Pipeline, Codes]]) -> list[dict[str, Any]]:
        for kind in {(p.bundle.digest, c.x_T is None) for p, c in loaded}:
            chosen = [i for i, (p, c) in enumerate(loaded) if (p.bundle.digest, c.x_T is None) == kind]
            codes = Codes.concatenate([loaded[i][1] for i in chosen])
            x_0 = loaded[chosen[0]][0].decode(
                codes,
                steps=steps,
                seed=seed,
                keys=[batch[i].source.stem for i in chosen],
                advance=advance,
            )
            for i, picture in zip(chosen, x_0, strict=True):
                save_image(to_pil(picture), batch[i].target)
        return [{"output": str(task.target)} for task in batch]

    yield from run_batches(tasks, load=load, process=process, batch_size=batch_size)


def reconstruct_files(
    pipeline: Pipeline,
    tasks: Sequence[Task],
    *,
    steps: int | None = None,
    x_T: str = "inferred",
    variations: int = 0,
    seed: int = 0,
    fit: Fit = "crop",
    advance: Advance = ignore_progress,
) -> Iterator[Outcome[Task]]:
    """Encode and decode each image; write the reconstruction and, beside it, a side-by-side.

    ``x_T`` "random" draws x_T instead of inferring it. ``variations`` K appends K pictures of the same
    z with other x_T to the side-by-side. Outcomes carry MSE, PSNR in dB and SSIM.
    """
    pipeline, batch_size = in_batches_for(pipeline, len(tasks))

    def process(batch: Sequence[Task], images: Sequence[LoadedImage]) -> list[dict[str, Any]]:
        x_0 = torch.cat([image.x_0 for image in images])
        classes = [image.class_name for image in images]
        codes = pipeline.encode(
            x_0, classes=classes, steps=steps, with_x_T=x_T == "inferred", advance=advance
        )
        names = [task.source.stem for task in batch]
        decoded = pipeline.decode(codes, steps=steps, seed=seed, keys=names)
        others = []
        for k in range(variations):
            keys = [f"{name} variation {k}" for name in names]
            others.append(pipeline.decode(codes.replace(x_T=None), steps=steps, seed=seed, keys=keys))
        scores = zip(mse(x_0, decoded), psnr(x_0, decoded), ssim(x_0, decoded), strict=True)
        results = []
        for i, (task, (m, p, s)) in enumerate(zip(batch, scores, strict=True)):
            row = [to_pil(picture) for picture in (x_0[i], decoded[i], *(other[i] for other in others))]
            side = task.target.with_name(f"{task.target.stem}-side-by-side.png")
            save_image(row[1], task.target)
            save_image(grid(row, len(row)), side)
            results.append(
                {
                    "output": str(task.target),
                    "side_by_side": str(side),
                    "mse": float(m),
                    "psnr_db": _finite(float(p)),
                    "ssim": float(s),
                }
            )
        return results

    yield from run_batches(
        tasks,
        load=lambda task: load_image(pipeline, task.source, fit),
        process=process,
        batch_size=batch_size,
    )


def manipulate_files(
    pipeline: Pipeline,
    tasks: Sequence[Task],
    *,
    edits: Sequence[Mapping[str, float]],
    strip: bool,
    steps: int | None = None,
    x_T: str = "inferred",
    seed: int = 0,
    fit: Fit = "crop",
    advance: Advance = ignore_progress,
) -> Iterator[Outcome[Task]]:
    """Edit each image or code; one edit gives a picture and its code, ``strip`` one row of all edits."""
    encoder, batch_size = in_batches_for(pipeline, len(tasks))
    decoder, _ = in_batches_for(pipeline, len(tasks) * len(edits))

    def process(batch: Sequence[Task], loaded: Sequence[LoadedImage | Codes]) -> list[dict[str, Any]]:
        paths = [task.source for task in batch]
        starts = encode_loaded(encoder, paths, loaded, steps=steps, with_x_T=x_T == "inferred", fit=fit)
        if x_T == "random":
            starts = [codes.replace(x_T=None) for codes in starts]
        edited = [[pipeline.manipulate(codes, edit) for edit in edits] for codes in starts]
        pictures: list[list[Image]] = [[] for _ in batch]
        for has_x_T in {codes.x_T is not None for codes in starts}:
            chosen = [i for i, codes in enumerate(starts) if (codes.x_T is not None) == has_x_T]
            x_0 = decoder.decode(
                Codes.concatenate([code for i in chosen for code in edited[i]]),
                steps=steps,
                seed=seed,
                keys=[batch[i].source.stem for i in chosen for _ in edits],
                advance=advance,
            )
            for i, row in zip(chosen, x_0.split(len(edits)), strict=True):
                pictures[i] = [to_pil(picture) for picture in row]
        results = []
        for task, codes, row in zip(batch, edited, pictures, strict=True):
            save_image(grid(row, len(row)) if strip else row[0], task.target)
            result: dict[str, Any] = {"output": str(task.target), "edits": [dict(e) for e in edits]}
            if not strip:
                path = task.target.with_suffix(CODE_SUFFIX)
                codes[0].save([path])
                result["code"] = str(path)
            results.append(result)
        return results

    def load(task: Task) -> Any:  # a union here, beside run_batches' own, is more than mypy infers
        return load_image_or_code(pipeline, task.source, fit)

    yield from run_batches(tasks, load=load, process=process, batch_size=batch_size)


def _spare_source(task: Task, info: CodeInfo) -> None:
    """Refuse to decode over the very image that a code was made from."""
    if info.source_digest is None or not task.target.is_file():
        return
    if file_digest(task.target) == info.source_digest:
        raise CodeError(
            f"{task.target}: this is the image that the code was made from, and it stays",
            hint="write elsewhere with -o DIR",
        )


def _info_or_none(path: Path) -> CodeInfo | None:
    """What is known of an existing file; None where it is no code, which encoding then replaces."""
    try:
        return read_info(path)
    except CodeError:
        return None


def _same_settings(known: CodeInfo, wanted: CodeInfo, digest: str, *, verify: bool) -> bool:
    neutral = replace(known, source=None, source_digest=None, mse=None, psnr_db=None)
    return neutral == wanted and known.source_digest == digest and (known.mse is not None or not verify)


def _finite(value: float) -> float | None:
    """JSON has no infinity: the PSNR of an exact reconstruction is null."""
    return value if math.isfinite(value) else None


def require_attributes(pipeline: Pipeline, names: Sequence[str]) -> None:
    """Raise UsageError where a name is unknown, before any image is read."""
    for name in names:
        pipeline.bundle.directions.index(name)
