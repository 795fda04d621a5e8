"""The verbs over files: load, work in batches, write beside or mirrored, one outcome an item."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rdm_cli.core.batch import Outcome, Task, run_batches
from rdm_cli.core.codes import CodeInfo, Codes, read_info
from rdm_cli.core.pipeline import Advance, Pipeline, ignore_progress
from rdm_cli.core.runtime import default_batch_size
from rdm_cli.data.images import Fit, grid, save_image, to_pil
from rdm_cli.errors import CodeError
from rdm_cli.metrics.reconstruction import mse, psnr, ssim

CODE_SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class LoadedImage:
    """An image ready for the networks, (1, 3, H, W) in [-1, 1], and its file's SHA-256."""

    x_0: Tensor
    digest: str


def in_batches_for(pipeline: Pipeline, num_items: int) -> tuple[Pipeline, int]:
    """``pipeline`` with its batch size settled for a whole job, and that size.

    The user's, or the device's usual one, or fewer where there are fewer items. It holds for short
    batches too, so what is left over or encoded again comes out as it would among the others.
    """
    usual = min(default_batch_size(pipeline.bundle.device), 1 << max(0, num_items - 1).bit_length())
    size = pipeline.batch_size or usual
    return replace(pipeline, batch_size=size), size


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_image(pipeline: Pipeline, path: Path, fit: Fit) -> LoadedImage:
    """Read one image; raises ImageError."""
    x_0 = pipeline.load_images([path], fit)
    return LoadedImage(x_0=x_0, digest=file_digest(path))


def load_image_or_code(
    pipeline: Pipeline, path: Path, *, steps: int | None, with_x_T: bool, fit: Fit
) -> Codes:
    """Read a code as it is, or encode an image; raises ImageError or CodeError."""
    if path.suffix == CODE_SUFFIX:
        codes = Codes.load(path)
        try:
            pipeline.check(codes)
        except CodeError as error:
            raise CodeError(f"{path}: {error.message}", hint=error.hint) from error
        return codes
    loaded = load_image(pipeline, path, fit)
    codes = pipeline.encode(loaded.x_0, steps=steps, with_x_T=with_x_T)
    return codes.replace(infos=_sourced(codes, [path.name], [loaded.digest], fit))


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
            if known is not None and _same_settings(known, wanted, loaded.digest, verify=verify):
                advance(1.0)
                return Outcome(item=task, data={"output": str(task.target), "skipped": True})
        return loaded

    def process(batch: Sequence[Task], images: Sequence[LoadedImage]) -> list[dict[str, Any]]:
        x_0 = torch.cat([image.x_0 for image in images])
        codes = pipeline.encode(x_0, steps=steps, with_x_T=with_x_T, advance=advance)
        infos = _sourced(codes, [t.source.name for t in batch], [i.digest for i in images], fit)
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
        pipeline.check(codes)
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
        codes = pipeline.encode(x_0, steps=steps, with_x_T=x_T == "inferred", advance=advance)
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

    def load(task: Task) -> Codes:
        return load_image_or_code(pipeline, task.source, steps=steps, with_x_T=x_T == "inferred", fit=fit)

    def process(batch: Sequence[Task], loaded: Sequence[Codes]) -> list[dict[str, Any]]:
        results = []
        for task, codes in zip(batch, loaded, strict=True):
            if x_T == "random":
                codes = codes.replace(x_T=None)
            edited = Codes.concatenate([pipeline.manipulate(codes, edit) for edit in edits])
            x_0 = pipeline.decode(
                edited, steps=steps, seed=seed, keys=[task.source.stem] * len(edits), advance=advance
            )
            pictures = [to_pil(picture) for picture in x_0]
            save_image(grid(pictures, len(pictures)) if strip else pictures[0], task.target)
            result: dict[str, Any] = {"output": str(task.target), "edits": [dict(e) for e in edits]}
            if not strip:
                code = task.target.with_suffix(CODE_SUFFIX)
                edited.save([code])
                result["code"] = str(code)
            results.append(result)
        return results

    yield from run_batches(tasks, load=load, process=process, batch_size=1)


def _sourced(codes: Codes, names: Sequence[str], digests: Sequence[str], fit: Fit) -> tuple[CodeInfo, ...]:
    return tuple(
        replace(info, source=name, source_digest=digest, fit=fit)
        for info, name, digest in zip(codes.infos, names, digests, strict=True)
    )


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
