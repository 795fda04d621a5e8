"""rdm manipulate: edit images through their codes."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from rdm_cli import completion
from rdm_cli import options as o
from rdm_cli.commands.batch_job import planned_job, report
from rdm_cli.commands.opening import open_for, open_on
from rdm_cli.console import Console
from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.data.sources.folders import CODE_SUFFIX, CODE_SUFFIXES
from rdm_cli.errors import BundleError, RdmError, UsageError
from rdm_cli.jobs.batch import Outcome, Task
from rdm_cli.option_groups import spread

if TYPE_CHECKING:
    from rdm_cli.codes.code import CodeInfo
    from rdm_cli.jobs.job import Job
    from rdm_cli.pipeline.pipeline import Pipeline


@spread
def manipulate(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUTS... [NAME=SCALE]...",
            help="Files and folders, - reads one file from stdin; and attributes, with how far to move each.",
            show_default=False,
            autocompletion=completion.edits,
        ),
    ] = None,
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
    bundle: o.RecordedBundle = None,
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
    --scales -0.3,0.3 it gives the strip a-smiling-0.3+0.3.png alone. smiling=0.3 says the same as --attr
    smiling --scale 0.3, and goes with it; a file of that very name is an input.

    Examples:
        rdm manipulate photo.png smiling=0.3 glasses=-0.2 -o edited.png
        rdm manipulate faces/ --attr smiling --scales=-0.3,0,0.3 -o strips/
    """
    inputs, named = _apart(inputs or [])
    edits = _edits(attr or [], scale or [], scales, named)
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
        from rdm_cli.jobs.loading import batch_size_for
        from rdm_cli.pipeline.effort import Effort
        from rdm_cli.runtime import set_up

        device = set_up(device=machine.device, threads=machine.threads)
        effort = Effort(
            inversion=inverting.inversion,
            steps=inverting.steps,
            iterations=inverting.iterations,
            with_x_T=x_t == "inferred",
        )

        @cache
        def opened(name: str, *, fetches: bool) -> Pipeline:
            pipeline = open_on(machine, name, images, job.remark, style=style, fetches=fetches)
            effort.way(pipeline.bundle)
            for line in require_attributes(pipeline, list(edits[0])):
                console.problem(f"rdm: {line}")
            return pipeline

        def pipelines(info: CodeInfo | None) -> Pipeline:
            return open_for(info, bundle, opened)

        # a wrong option fails once, not once an image
        first = None if bundle is not None else _first_code(job)
        with nullcontext() if first is None else suppress(BundleError):  # which is told of that code
            pipelines(first)

        def outcomes(advance: Callable[[float], None]) -> Iterator[Outcome[Task]]:
            return manipulate_files(
                pipelines,
                job.tasks,
                num_items=job.num_items,
                batch_size=machine.batch_size or batch_size_for(device, job.num_items),
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


def _first_code(job: Job) -> CodeInfo | None:
    """What the first input says of itself; None where it is no code, or one that cannot be read."""
    from rdm_cli.codes.code import read_info

    if job.num_items is None:  # a stream may be read once
        return None
    first = next(job.tasks).source
    if first.suffix == CODE_SUFFIX:
        with suppress(RdmError, OSError):
            return read_info(first)
    return None


def _apart(words: Sequence[str]) -> tuple[list[str], list[tuple[str, float]]]:
    """The inputs among the arguments, and the NAME=SCALE; what names a file or a URL is an input."""
    inputs: list[str] = []
    named: list[tuple[str, float]] = []
    for word in words:
        name, equals, value = word.rpartition("=")
        is_place = "/" in word or PurePath(word).suffix.lower() in SUFFIXES | CODE_SUFFIXES
        if not (name and equals) or is_place or os.path.lexists(word):
            inputs.append(word)
            continue
        try:
            named.append((name, float(value)))
        except ValueError:
            raise UsageError(
                f"{word}: no such file or folder, and {value!r} is no number",
                hint="write an attribute as NAME=SCALE, such as smiling=0.3",
            ) from None
    return inputs, named


def edit_name(edits: Sequence[Mapping[str, float]]) -> str:
    """What was done, as part of a file's name: ``smiling+0.3-hat-1``; a strip names all its scales."""
    parts = []
    for name in edits[0]:
        safe = re.sub(r"[^\w.]+", "_", name)  # an attribute may be called anything, and a file may not
        parts.append(safe + "".join(f"{edit[name] + 0.0:+g}" for edit in edits))
    return "-".join(parts)


def _edits(
    names: list[str], scale: list[float], scales: str | None, named: Sequence[tuple[str, float]]
) -> list[dict[str, float]]:
    """The edits asked for: one of several attributes, or several of one; ``named`` by NAME=SCALE."""
    asked = [*names, *(name for name, _ in named)]
    if not asked:
        raise UsageError(
            "no attribute was named", hint="rdm attributes list shows them; add NAME=SCALE or --attr NAME"
        )
    if len(set(asked)) < len(asked):
        raise UsageError("an attribute is named twice", hint="add its scales up")
    if scales is None:
        scale = scale or [0.3] * len(names)
        if len(scale) != len(names):
            raise UsageError(f"{len(names)} --attr need as many --scale, not {len(scale)}")
        edit = dict(zip(asked, [*scale, *(value for _, value in named)], strict=True))
        if not all(map(math.isfinite, edit.values())):
            raise UsageError("attributes are moved by finite numbers")
        return [edit]
    if scale or named or len(names) > 1:
        raise UsageError("--scales goes with one --attr, and without --scale or NAME=SCALE")
    try:
        values = [float(part) for part in scales.split(",")]
    except ValueError:
        values = []
    if not values or not all(map(math.isfinite, values)):
        raise UsageError(f"--scales {scales}: numbers between commas were expected")
    return [{names[0]: value} for value in values]
