"""Pictures of several codes at once: paths between codes, and grids of samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rdm_cli.core.codes import Codes
from rdm_cli.core.effort import USUAL, Effort
from rdm_cli.core.inputs import encode_loaded, load_image_or_code
from rdm_cli.core.pipeline import Pipeline
from rdm_cli.core.running import Advance, ignore_progress
from rdm_cli.core.ways import sampling_way
from rdm_cli.data.atomic import atomic_path
from rdm_cli.data.folders import CODE_SUFFIX
from rdm_cli.data.images import Fit, grid, save_image, to_pil


def interpolate_files(
    pipeline: Pipeline,
    inputs: Sequence[Path],
    output: Path,
    *,
    num_frames: int,
    frame_ms: int,
    effort: Effort = USUAL,
    fit: Fit = "crop",
    trajectory: bool = False,
    advance: Advance = ignore_progress,
) -> Iterator[tuple[str, Path]]:
    """Write frames, codes, a strip and a GIF of the path through ``inputs``; yields (kind, path).

    ``num_frames`` from one input to the next, both included; an inner input is shown once. A
    ``trajectory`` leaves no codes: its pictures have no z of their own.
    """
    ends: list[Codes] = []
    for path in inputs:
        loaded = load_image_or_code(pipeline, path, fit)
        ends += encode_loaded(pipeline, [path], [loaded], effort, fit=fit, advance=advance)
    # codes that were made elsewhere keep to their own way
    steps = effort.steps if effort.inversion == "ddim" else None
    alphas = [i / (num_frames - 1) for i in range(num_frames)]
    legs = [
        (first, second, alphas if i == 0 else alphas[1:])
        for i, (first, second) in enumerate(zip(ends, ends[1:], strict=False))
    ]
    codes = None
    if trajectory:
        x_0 = torch.cat([pipeline.trajectory(*leg, steps=steps, advance=advance) for leg in legs])
    else:
        codes = Codes.concatenate([pipeline.interpolate(*leg) for leg in legs])
        # codes without an x_T share one: else each frame would be another picture
        keys = ["interpolation"] * len(codes)
        x_0 = pipeline.decode(codes, steps=steps, keys=keys, advance=advance)
    frames = [output / f"frame-{i:04d}.png" for i in range(len(x_0))]
    pictures = [to_pil(x, str(frame)) for x, frame in zip(x_0, frames, strict=True)]
    for i, (frame, picture) in enumerate(zip(frames, pictures, strict=True)):
        save_image(picture, frame)
        if codes is not None:
            codes[i].save([frame.with_suffix(CODE_SUFFIX)])
        yield "frame", frame
    strip = output / "strip.png"
    save_image(grid(pictures, len(pictures)), strip)
    yield "strip", strip
    animation = output / "animation.gif"
    with atomic_path(animation) as temporary:
        # there and back, so that the loop has no jump
        loop = [*pictures, *pictures[-2:0:-1]]
        loop[0].save(
            temporary, format="GIF", save_all=True, append_images=loop[1:], duration=frame_ms, loop=0
        )
    yield "animation", animation


def write_samples(
    pipeline: Pipeline,
    codes: Codes,
    numbers: Sequence[int],
    output: Path,
    *,
    steps: int | None = None,
    columns: int | None = None,
    seed: int = 0,
    advance: Advance = ignore_progress,
) -> Iterator[tuple[str, int | None, Path, Path | None]]:
    """Decode and write samples with their codes, then the grid.

    Yields (kind, number of the draw, picture, code); the grid has neither number nor code.
    """
    x_0 = pipeline.decode(codes, steps=steps, seed=seed, keys=list(numbers), advance=advance)
    pictures = [to_pil(x, str(output / f"{n:06d}.png")) for x, n in zip(x_0, numbers, strict=True)]
    used = sampling_way(pipeline.bundle, pipeline.sampler, steps)
    for i, (picture, number) in enumerate(zip(pictures, numbers, strict=True)):
        path = output / f"{number:06d}.png"
        save_image(picture, path)
        code = codes[i]
        # a sample is decoded again as it was shown
        how: dict[str, Any] = {"solver": used.solver, "spacing": used.spacing, "steps": used.steps}
        code = code.replace(infos=tuple(replace(info, **how) for info in code.infos))
        code.save([path.with_suffix(CODE_SUFFIX)])
        yield "sample", number, path, path.with_suffix(CODE_SUFFIX)
    sheet = output / "grid.png"
    save_image(grid(pictures, columns or math.ceil(math.sqrt(len(pictures)))), sheet)
    yield "grid", None, sheet, None
