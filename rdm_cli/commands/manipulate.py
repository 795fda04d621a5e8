"""rdm manipulate: edit images through their codes."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Literal

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
from rdm_cli.jobs.results import Edited
from rdm_cli.option_groups import spread

Editor = Literal["auto", "transport", "donor", "target", "abduct", "direction"]
"""What moves z where an attribute is set."""

if TYPE_CHECKING:
    from rdm_cli.codes.code import CodeInfo, Codes
    from rdm_cli.jobs.job import Job
    from rdm_cli.pipeline.pipeline import Pipeline


@spread
def manipulate(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUTS... [NAME=yes|no|SCALE]...",
            help="Files and folders, - reads one file from stdin; and attributes, with whether each is "
            "wanted, or how far to move it.",
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
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="NAME",
            help="With NAME=yes|no: an attribute that is to stay as it is; repeat it.",
            show_default="all others",
            autocompletion=completion.attributes,
        ),
    ] = None,
    editor: Annotated[
        Editor | None,
        typer.Option(
            "--editor",
            help="With NAME=yes|no, what moves z: transport, between codes without and with the attribute; "
            "donor, by what a drawn face has of it; auto, the one or the other, by attribute; "
            "target, along its direction until it is clear; abduct, through the prior's noise; direction, as "
            "published.",
            show_default="auto",
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            "--like",
            metavar="FILE",
            help="With NAME=yes|no: borrow the attributes of this image or code, such as its glasses.",
            show_default="drawn ones",
        ),
    ] = None,
    variants: Annotated[
        int | None,
        typer.Option(
            "--variants",
            metavar="N",
            min=2,
            max=64,
            help="With NAME=yes|no: a strip of N ways to have it, by as many seeds.",
        ),
    ] = None,
    report_to: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="DIR|FILE.html",
            help="With NAME=yes|no: write a page of all edits, before and after, with what was kept.",
            show_default="no page",
        ),
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

    smiling=yes glasses=no goes as far as each face needs: the picture is read again, and where the bundle's
    classifiers do not see what was wanted, or see that something else changed, the edit goes further. What
    does not hold in the end is said, and the exit code is 3. Beside each picture, a-smiling=yes.json says
    what was read before and after, what was kept and by which command; rdm show prints it.

    Examples:
        rdm manipulate photo.png smiling=yes glasses=no -o edited.png
        rdm manipulate faces/ --attr smiling --scales=-0.3,0,0.3 -o strips/
    """
    inputs, named = _apart(inputs or [])
    edits = _edits(attr or [], scale or [], scales, named)
    sets = any(isinstance(value, bool) for value in edits[0].values())
    if not sets and (keep or editor or like or variants or report_to is not None):
        raise UsageError("--keep, --editor, --like, --variants and --report go with NAME=yes or NAME=no")
    if variants and (like or report_to is not None):
        raise UsageError("--variants goes neither with --like nor with --report")
    strip = scales is not None or variants is not None
    done = edit_name(edits) + (f"-{variants}-variants" if variants else "")
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
        companions=() if strip else (f"-{done}.safetensors", f"-{done}.json"),
        spared=() if strip else (f"-{done}.safetensors",),
    ) as job:
        from rdm_cli.jobs.files import Setting, manipulate_files, require_attributes
        from rdm_cli.jobs.loading import batch_size_for
        from rdm_cli.jobs.receipts import ReceiptPage
        from rdm_cli.pipeline.editing import DEFAULT_EDITOR
        from rdm_cli.pipeline.effort import Effort
        from rdm_cli.runtime import set_up

        device = set_up(device=machine.device, threads=machine.threads)
        effort = Effort(
            inversion=inverting.inversion,
            steps=inverting.steps,
            iterations=inverting.iterations,
            with_x_T=x_t == "inferred",
        )

        lent: dict[str, Codes] = {}

        @cache
        def opened(name: str, *, fetches: bool) -> Pipeline:
            pipeline = open_on(machine, name, images, job.remark, style=style, fetches=fetches)
            effort.way(pipeline.bundle)
            wanted = {name: value for name, value in edits[0].items() if isinstance(value, bool)}
            for line in require_attributes(pipeline, list(edits[0]), keep or (), sets=wanted):
                console.problem(f"rdm: {line}")
            if like is not None:
                lent[pipeline.bundle.digest] = pipeline.donor(like, wanted)
            return pipeline

        def pipelines(info: CodeInfo | None) -> Pipeline:
            return open_for(info, bundle, opened)

        page = None if report_to is None else ReceiptPage(report_to)
        # a wrong option fails once, not once an image
        first = None if bundle is not None else _first_code(job)
        with nullcontext() if first is None else suppress(BundleError):  # which is told of that code
            pipelines(first)

        def outcomes(advance: Callable[[float], None]) -> Iterator[Outcome[Task, Edited]]:
            return manipulate_files(
                pipelines,
                job.tasks,
                num_items=job.num_items,
                batch_size=machine.batch_size or batch_size_for(device, job.num_items),
                edits=edits,
                strip=strip,
                setting=Setting(
                    editor=editor or DEFAULT_EDITOR, keep=keep or None, like=lent, num_variants=variants or 1
                ),
                effort=effort,
                seed=seed,
                fit=images.fit,
                tile=tile,
                force=force,
                page=page,
                advance=advance,
            )

        not_holding: list[str] = []
        outside: list[int] = []

        def look(result: Edited) -> None:
            outside.append(result.outside or 0)
            if result.holds is False:
                not_holding.append(f"{result.output}: it does not show what was wanted")
            elif result.receipt is not None and not result.receipt.kept:
                changed = ", ".join(result.receipt.changed)
                not_holding.append(f"{result.output}: something else changed ({changed})")

        def remarks() -> list[str]:
            some = [f"rdm: {line}" for line in not_holding[:MOST_TOLD]]
            left = len(not_holding) - len(some)
            if left:
                some.append(f"rdm: and {left} more edits do not hold")
            if num := sum(outside):
                leads = "1 edit leads" if num == 1 else f"{num} edits lead"
                some.append(
                    f"rdm: {leads} beyond the codes of the images that the bundle was trained on; a smaller "
                    "scale, or NAME=yes, stays among them"
                )
            return some

        def conclude() -> None:
            if page is not None:
                console.note(f"rdm: {page.save()}")

        report(
            console, job, outcomes, verb="edited", noun="image", failures=work.failures, each=look,
            remarks=remarks, conclude=conclude,
        )  # fmt: skip
        if not_holding:
            raise typer.Exit(3)


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


ANSWERS = {"yes": True, "no": False}
MOST_TOLD = 10  # edits that do not hold, by name


def _apart(words: Sequence[str]) -> tuple[list[str], list[tuple[str, float | bool]]]:
    """The inputs among the arguments, and the NAME=VALUE; what names a file or a URL is an input."""
    inputs: list[str] = []
    named: list[tuple[str, float | bool]] = []
    for word in words:
        name, equals, value = word.rpartition("=")
        is_place = "/" in word or PurePath(word).suffix.lower() in SUFFIXES | CODE_SUFFIXES
        if not (name and equals) or is_place or os.path.lexists(word):
            inputs.append(word)
            continue
        if value.lower() in ANSWERS:
            named.append((name, ANSWERS[value.lower()]))
            continue
        try:
            named.append((name, float(value)))
        except ValueError:
            raise UsageError(
                f"{word}: no such file or folder, and {value!r} is neither yes, no nor a number",
                hint="write an attribute as NAME=SCALE, such as smiling=0.3, or as smiling=yes",
            ) from None
    return inputs, named


def edit_name(edits: Sequence[Mapping[str, float | bool]]) -> str:
    """What was done, as part of a file's name: ``smiling+0.3-hat-1``; a strip names all its scales.

    What is wanted or not is ``smiling=yes-hat=no``.
    """
    parts = []
    for name in edits[0]:
        safe = re.sub(r"[^\w.]+", "_", name)  # an attribute may be called anything, and a file may not
        parts.append(safe + "".join(_told(edit[name]) for edit in edits))
    return "-".join(parts)


def _told(value: float | bool) -> str:
    if isinstance(value, bool):
        return "=yes" if value else "=no"
    return f"{value + 0.0:+g}"


def _edits(
    names: list[str], scale: list[float], scales: str | None, named: Sequence[tuple[str, float | bool]]
) -> list[dict[str, float | bool]]:
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
        if 0 < sum(isinstance(value, bool) for value in edit.values()) < len(edit):
            raise UsageError(
                "some attributes have a scale and some yes or no", hint="edit first by one, then by the other"
            )
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
