"""rdm decode: codes to images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated

import typer

from rdm_cli import completion
from rdm_cli import options as o
from rdm_cli.commands.batch_job import planned_job, report, shard_asked_for
from rdm_cli.commands.opening import open_for
from rdm_cli.console import Console
from rdm_cli.data.sources.folders import CODE_SUFFIX, CODE_SUFFIXES
from rdm_cli.jobs.batch import Outcome, Task
from rdm_cli.jobs.results import Result
from rdm_cli.option_groups import spread

if TYPE_CHECKING:
    from rdm_cli.codes.code import CodeInfo
    from rdm_cli.pipeline.pipeline import Pipeline


@spread
def decode(
    inputs: o.Inputs = None,
    output: o.Output = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            "-b",
            "--bundle",
            metavar="BUNDLE",
            envvar="RDM_BUNDLE",
            autocompletion=completion.bundles,
            show_default="the one each code records",
            help="Decode with this bundle: a shipped name, a folder, or hf:owner/name[@revision].",
        ),
    ] = None,
    steps: o.Steps = None,
    solver: o.SolverOption = None,
    x_t: Annotated[
        o.StartNoise, typer.Option("--x-t", help="The code's own x_T, or one drawn at random.")
    ] = "inferred",
    seed: o.Seed = 0,
    force: o.Force = False,
    style: o.Style = None,
    *,
    images: o.Images,
    work: o.ShardedWork,
    machine: o.DecodingMachine,
    voice: o.Voice,
) -> None:
    """Decode codes into pictures: a.safetensors becomes a.png beside it, or under -o.

    A picture has the bundle's size, whatever the size of the image that was encoded.
    Each code is decoded with the bundle, the steps and the precision that it records, unless told otherwise.

    Examples:
        rdm decode codes/ -o pictures/
        rdm decode photo.safetensors --solver unipc --steps 12
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    with planned_job(
        console,
        "decode",
        inputs,
        files_from=work.files_from,
        column=work.column,
        shard=shard_asked_for(work.shard),
        manifest=work.manifest,
        output=output,
        as_tar=work.as_tar,
        suffixes=CODE_SUFFIXES,
        result_suffix=".png",
        stdin_suffix=CODE_SUFFIX,
    ) as job:
        from rdm_cli.jobs.files import decode_files
        from rdm_cli.jobs.loading import batch_size_for
        from rdm_cli.pipeline.pipeline import open_pipeline
        from rdm_cli.runtime import checked_precision, precision_named, set_up

        # a wrong option fails once, not once a code
        resolved = set_up(device=machine.device, threads=machine.threads)
        if machine.precision is not None:
            checked_precision(resolved, machine.precision)

        @cache
        def opened(name: str, *, arithmetic: str, fetches: bool) -> Pipeline:
            return open_pipeline(
                name,
                device=resolved,
                precision=precision_named(arithmetic),
                batch_size=machine.batch_size,
                max_pixels=images.max_pixels,
                value_range=images.value_range,
                on_remark=job.remark,
                style=style,
                class_name=images.class_name,
                solver=solver,
                fetches=fetches,
            )

        def pipelines(info: CodeInfo) -> Pipeline:
            return open_for(info, bundle, partial(opened, arithmetic=machine.precision or info.precision))

        if bundle is not None:
            opened(bundle, arithmetic=machine.precision or "fp32", fetches=True)  # a wrong name likewise

        def outcomes(advance: Callable[[float], None]) -> Iterator[Outcome[Task, Result]]:
            return decode_files(
                pipelines,
                job.tasks,
                steps=steps,
                x_T=x_t,
                seed=seed,
                force=force,
                batch_size=machine.batch_size or batch_size_for(resolved, job.num_items),
                advance=advance,
            )

        report(console, job, outcomes, verb="decoded", noun="code", failures=work.failures)
