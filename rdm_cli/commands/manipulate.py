"""rdm manipulate: edit images through their codes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated

import typer

from rdm_cli import options as o
from rdm_cli.commands.batch_job import planned_job, report
from rdm_cli.commands.opening import open_on
from rdm_cli.console import Console
from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.data.sources.folders import CODE_SUFFIXES
from rdm_cli.errors import UsageError
from rdm_cli.jobs.batch import Outcome, Task
from rdm_cli.option_groups import spread


@spread
def manipulate(
    inputs: o.Inputs = None,
    attr: o.Attr = None,
    scale: Annotated[
        list[float] | None,
        typer.Option(
            "--scale", metavar="S", help="How far to move; negative takes away.", show_default="0.3"
        ),
    ] = None,
    scales: Annotated[
        str | None,
        typer.Option("--scales", metavar="S,S,...", help="A strip with one picture a scale (one --attr)."),
    ] = None,
    output: o.Output = None,
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    x_t: Annotated[
        o.StartNoise, typer.Option("--x-t", help="Keep the image's own x_T, or draw another.")
    ] = "inferred",
    seed: o.Seed = 0,
    tile: o.TilePixels = o.TILE_DEFAULT,
    force: o.Force = False,
    style: o.Style = None,
    *,
    inverting: o.Inverting,
    images: o.FittedImages,
    work: o.Work,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Edit images or codes along attributes, such as smiling.

    a.png gives a-smiling+0.3.png and its code a-smiling+0.3.safetensors, which can be edited further; with
    --scales -0.3,0.3 it gives the strip a-smiling-0.3+0.3.png alone.

    Examples:
        rdm manipulate photo.png --attr smiling --scale 0.3
        rdm manipulate faces/ --attr smiling --scales=-0.3,0,0.3 -o strips/
    """
    edits = _edits(attr or [], scale or [], scales)
    done = edit_name(edits)
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    with planned_job(
        console,
        "manipulate",
        inputs,
        files_from=work.files_from,
        column=work.column,
        output=output,
        suffixes=SUFFIXES | CODE_SUFFIXES,
        result_suffix=f"-{done}.png",
        stdin_suffix=".image",
        companions=(f"-{done}.safetensors",),
        spared=(f"-{done}.safetensors",) if scales is None else (),
    ) as job:
        from rdm_cli.jobs.files import manipulate_files, require_attributes
        from rdm_cli.pipeline.effort import Effort

        pipeline = open_on(machine, bundle, images, job.remark, style=style)
        effort = Effort(
            inversion=inverting.inversion,
            steps=inverting.steps,
            iterations=inverting.iterations,
            with_x_T=x_t == "inferred",
        )
        effort.way(pipeline.bundle)  # a wrong option fails once, not once an image
        for line in require_attributes(pipeline, list(edits[0])):
            console.problem(f"rdm: {line}")

        def outcomes(advance: Callable[[float], None]) -> Iterator[Outcome[Task]]:
            return manipulate_files(
                pipeline,
                job.tasks,
                num_items=job.num_items,
                edits=edits,
                strip=scales is not None,
                effort=effort,
                seed=seed,
                fit=images.fit,
                tile=tile,
                force=force,
                advance=advance,
            )

        report(console, job, outcomes, verb="edited", noun="image", failures=work.failures)


def edit_name(edits: Sequence[Mapping[str, float]]) -> str:
    """What was done, as part of a file's name: ``smiling+0.3-hat-1``; a strip names all its scales."""
    parts = []
    for name in edits[0]:
        safe = re.sub(r"[^\w.]+", "_", name)  # an attribute may be called anything, and a file may not
        parts.append(safe + "".join(f"{edit[name] + 0.0:+g}" for edit in edits))
    return "-".join(parts)


def _edits(names: list[str], scale: list[float], scales: str | None) -> list[dict[str, float]]:
    """The edits asked for: one of several attributes, or several of one."""
    if not names:
        raise UsageError("no attribute was named", hint="rdm attributes list shows them; use --attr NAME")
    if len(set(names)) < len(names):
        raise UsageError("an attribute is named twice", hint="add its scales up")
    if scales is None:
        scale = scale or [0.3] * len(names)
        if len(scale) != len(names):
            raise UsageError(f"{len(names)} --attr need as many --scale, not {len(scale)}")
        if not all(map(math.isfinite, scale)):
            raise UsageError("--scale takes finite numbers")
        return [dict(zip(names, scale, strict=True))]
    if scale or len(names) > 1:
        raise UsageError("--scales goes with one --attr and without --scale")
    try:
        values = [float(part) for part in scales.split(",")]
    except ValueError:
        values = []
    if not values or not all(map(math.isfinite, values)):
        raise UsageError(f"--scales {scales}: numbers between commas were expected")
    return [{names[0]: value} for value in values]
