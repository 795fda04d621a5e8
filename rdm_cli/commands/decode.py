"""rdm decode: codes to images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer

from rdm_cli import options as o
from rdm_cli.commands.batch_job import planned_job, report, shard_asked_for
from rdm_cli.console import Console
from rdm_cli.core.batch import Outcome, Task
from rdm_cli.data.folders import CODE_SUFFIX, CODE_SUFFIXES
from rdm_cli.errors import BundleError

if TYPE_CHECKING:
    from rdm_cli.core.codes import CodeInfo
    from rdm_cli.core.pipeline import Pipeline


def decode(
    inputs: o.Inputs = None,
    output: o.OutputPlace = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            "-b", "--bundle", metavar="BUNDLE", envvar="RDM_BUNDLE", show_default="the one each code records"
        ),
    ] = None,
    steps: o.Steps = None,
    solver: o.SolverOption = None,
    x_t: Annotated[
        o.StartNoise, typer.Option("--x-t", help="The code's own x_T, or one drawn at random.")
    ] = o.StartNoise.inferred,
    seed: o.Seed = 0,
    force: o.Force = False,
    files_from: o.FilesFrom = None,
    column: o.Column = None,
    as_tar: o.AsTar = False,
    shard: o.ShardOption = None,
    manifest: o.ManifestOption = None,
    style: o.Style = None,
    class_name: o.ClassName = None,
    max_pixels: o.MaxPixels = o.MAX_PIXELS_DEFAULT,
    value_range: o.ValueRangeOption = None,
    batch_size: o.BatchSize = None,
    precision: o.PrecisionOfCodes = None,
    device: o.Device = "auto",
    threads: o.Threads = None,
    failures: o.Failures = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Decode codes into pictures: a.safetensors becomes a.png beside it, or under -o.

    A picture has the bundle's size, whatever the size of the image that was encoded.
    Each code is decoded with the bundle, the steps and the precision that it records, unless told otherwise.
    """
    console = Console(as_json=as_json, quiet=quiet)
    with planned_job(
        console,
        "decode",
        inputs,
        files_from=files_from,
        column=column,
        shard=shard_asked_for(shard),
        manifest=manifest,
        output=output,
        as_tar=as_tar,
        suffixes=CODE_SUFFIXES,
        result_suffix=".png",
        stdin_suffix=CODE_SUFFIX,
    ) as job:
        from rdm_cli.core.files import decode_files
        from rdm_cli.core.inputs import batch_size_for
        from rdm_cli.core.pipeline import open_pipeline
        from rdm_cli.core.runtime import checked_precision, precision_named, set_up

        # a wrong option fails once, not once a code
        resolved = set_up(device=device, threads=threads)
        if precision is not None:
            checked_precision(resolved, precision.value)

        @cache
        def opened(name: str, arithmetic: str, *, fetches: bool) -> Pipeline:
            return open_pipeline(
                name,
                device=resolved,
                precision=precision_named(arithmetic),
                batch_size=batch_size,
                max_pixels=max_pixels,
                value_range=value_range,
                on_remark=job.remark,
                style=style,
                class_name=class_name,
                solver=solver and solver.value,
                fetches=fetches,
            )

        def pipelines(info: CodeInfo) -> Pipeline:
            try:
                # what to fetch is for the user to say, not for a file
                return opened(
                    bundle or info.bundle,
                    info.precision if precision is None else precision.value,
                    fetches=bundle is not None,
                )
            except BundleError as error:
                if bundle is not None:
                    raise
                raise BundleError(
                    f"the bundle it was made with cannot be opened: {error.message}",
                    hint="say where it is with --bundle",
                ) from error

        if bundle is not None:
            opened(bundle, precision.value if precision else "fp32", fetches=True)  # a wrong name likewise

        def outcomes(advance: Callable[[float], None]) -> Iterator[Outcome[Task]]:
            return decode_files(
                pipelines,
                job.tasks,
                steps=steps,
                x_T=x_t.value,
                seed=seed,
                force=force,
                batch_size=batch_size or batch_size_for(resolved, job.num_items),
                advance=advance,
            )

        report(console, job, outcomes, verb="decoded", noun="code", failures=failures)
