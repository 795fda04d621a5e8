"""rdm encode: images to codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from rdm_cli import options as o
from rdm_cli.commands.batch_job import planned_job, report
from rdm_cli.console import Console
from rdm_cli.core.batch import Outcome, Task
from rdm_cli.data.images import SUFFIXES


def encode(
    inputs: o.Inputs = None,
    output: o.Output = None,
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    steps: o.Steps = None,
    no_x_T: Annotated[
        bool, typer.Option("--no-x-t", help="Leave out x_T: z alone, many times faster.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Decode each code at once and record its error.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Encode again what is up to date.")] = False,
    fit: o.FitOption = o.Fit.crop,
    files_from: o.FilesFrom = None,
    class_name: o.ClassName = None,
    batch_size: o.BatchSize = None,
    precision: o.PrecisionOption = o.Precision.fp32,
    device: o.Device = "auto",
    threads: o.Threads = None,
    failures: o.Failures = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Encode images into codes: a.png becomes a.safetensors beside it, or under -o.

    An image whose code is there already, made from the same file with the same settings, is skipped.
    """
    console = Console(as_json=as_json, quiet=quiet)
    with planned_job(
        inputs,
        files_from=files_from,
        output=output,
        suffixes=SUFFIXES,
        result_suffix=".safetensors",
        stdin_suffix=".image",
    ) as job:
        from rdm_cli.core.compatibility import allowed_steps
        from rdm_cli.core.files import encode_files
        from rdm_cli.core.pipeline import open_pipeline

        pipeline = open_pipeline(
            bundle,
            device=device,
            threads=threads,
            precision=precision.value,
            batch_size=batch_size,
            class_name=class_name,
        )
        allowed_steps(pipeline.bundle, steps)  # a wrong option fails once, not once an image
        if no_x_T:
            pipeline.bundle.require_z("--no-x-t")

        def outcomes(advance: Callable[[float], None]) -> Iterator[Outcome[Task]]:
            return encode_files(
                pipeline,
                job.tasks,
                steps=steps,
                with_x_T=not no_x_T,
                verify=verify and not no_x_T,
                fit=fit.value,
                force=force or job.to_stdout,
                advance=advance,
            )

        report(console, job, outcomes, verb="encoded", noun="image", failures=failures)
