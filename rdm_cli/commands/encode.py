"""rdm encode: images to codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rdm_cli import options as o
from rdm_cli.commands.batch_job import Fitted, planned_job, report, shard_asked_for
from rdm_cli.commands.on_engine import outcomes_on_engine, refuse_engine
from rdm_cli.commands.opening import open_on
from rdm_cli.console import Console
from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.data.sources.folders import CODE_SUFFIX
from rdm_cli.data.sources.remote import local_name
from rdm_cli.errors import UsageError
from rdm_cli.jobs.batch import Outcome, Task
from rdm_cli.jobs.results import Encoded, Result
from rdm_cli.option_groups import spread

if TYPE_CHECKING:
    from rdm_cli.pipeline.pipeline import Pipeline

TABLE = ".parquet"


@spread
def encode(
    inputs: o.Inputs = None,
    output: o.Output = None,
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    no_x_T: Annotated[
        bool, typer.Option("--no-x-t", help="Leave out x_T: z alone, many times faster.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Decode each code at once and record its error.")
    ] = False,
    lossless: Annotated[
        bool,
        typer.Option(
            "--lossless", help="Add what restores every pixel of the fitted image, and check that it does."
        ),
    ] = False,
    min_psnr: Annotated[
        float | None,
        typer.Option(
            "--min-psnr",
            metavar="DB",
            min=0.0,
            help="Add steps until the code alone brings the fitted image back at DB dB or better.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Encode again what is up to date, and replace any other file.")
    ] = False,
    *,
    inverting: o.Inverting,
    images: o.FittedImages,
    work: o.ShardedWork,
    engines: o.Engines,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Encode images into codes: a.png becomes a.safetensors beside it, or under -o.

    With --no-x-t, an -o that ends in .parquet becomes a table: a folder of Parquet files, with a row for each
    image.

    What a code brings back is the fitted image: the square of the bundle's size that --fit makes of the file,
    so a photo of 1600x1200 comes back as 64x64. Of it, --inversion exact loses nothing but rounding and
    fixed-point little, each in far fewer steps than ddim. An LRDM brings back no more than its first stage
    does, whatever the inversion. --lossless alone restores every pixel of the fitted image.
    An image whose code is there already, made from the same file with the same settings, is skipped; a code
    of another bundle, or one that holds more or was made with more effort than is asked for, stays.

    Examples:
        rdm encode faces/ -o codes/
        rdm encode photo.png --inversion exact --steps 20 --verify
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    if no_x_T:
        asked = {"--verify": verify, "--lossless": lossless, "--min-psnr": min_psnr is not None}
        for name, given in asked.items():
            if given:
                raise UsageError(f"{name} needs an x_T, and --no-x-t leaves it out")
    table = output is not None and output.rstrip("/").endswith(TABLE)
    if table:
        _refuse_beside_table({"--tar": work.as_tar, "--force": force}, no_x_T)
    refuse_engine(engines, work, results="files, or a table")
    with planned_job(
        console,
        "encode",
        inputs,
        files_from=work.files_from,
        column=work.column,
        shard=shard_asked_for(work.shard),
        manifest=work.manifest,
        output=output,
        as_tar=work.as_tar,
        suffixes=SUFFIXES,
        result_suffix="" if table else CODE_SUFFIX,
        stdin_suffix=".image",
    ) as job:
        from rdm_cli.jobs.encode import Encoding, encode_files
        from rdm_cli.pipeline.effort import Effort

        opening = partial(open_on, bundle=bundle, images=images)
        pipeline = opening(machine=machine, on_remark=job.remark)
        effort = Effort(
            inversion=inverting.inversion,
            steps=inverting.steps,
            iterations=inverting.iterations,
            with_x_T=not no_x_T,
        )
        way = effort.way(pipeline.bundle)  # a wrong option fails once, not once an image
        encoding = Encoding(
            effort=effort,
            verify=verify,
            lossless=lossless,
            min_psnr_db=min_psnr,
        )
        if no_x_T:
            pipeline.bundle.require_z("--no-x-t")

        if table:
            from rdm_cli.jobs.encode_table import ROWS_IN_A_PART, encode_table, known_rows

            place = local_name(str(output)).rstrip("/")
            done = known_rows(place, pipeline, effort, fit=images.fit)
            at_once = ROWS_IN_A_PART
            do: Any = partial(encode_table, table=place, known=done, effort=effort)
        else:
            at_once = 256 if no_x_T else 32
            do = partial(encode_files, encoding=encoding, force=force or job.to_stdout)
        do = partial(do, fit=images.fit, num_items=job.num_items)

        def outcomes(advance: Callable[[float], None]) -> Iterator[Outcome[Task, Result]]:
            if engines.engine == "none":
                return do(pipeline, job.tasks, advance=advance)
            digest = pipeline.bundle.digest
            return outcomes_on_engine(
                engines, job, machine, do, opening, digest=digest, items_at_once=at_once
            )

        fitted = Fitted(images.fit)

        def remarks() -> list[str]:
            limit = [] if lossless or way.sampling.solver == "ddim" else _first_stage_limit(pipeline)
            return [*fitted.remarks(), *limit]

        report(
            console,
            job,
            outcomes,
            verb="encoded",
            noun="image",
            failures=work.failures,
            describe=_describe,
            each=fitted.add,
            remarks=remarks,
        )


def _refuse_beside_table(asked: Mapping[str, bool], no_x_T: bool) -> None:
    """Raise UsageError for options that a table has no use for."""
    if not no_x_T:
        raise UsageError(f"-o NAME{TABLE} is a table, which holds z alone", hint="add --no-x-t")
    for name, given in asked.items():
        if given:
            raise UsageError(f"{name}: not for a table, whose rows stay", hint=f"leave out {name}")


def _first_stage_limit(pipeline: Pipeline) -> list[str]:
    """A line, where images pass a first stage, which no inversion of the diffusion undoes."""
    if getattr(pipeline.bundle.model, "first_stage", None) is None:
        return []
    return [
        f"rdm: {pipeline.bundle.name}: its codes bring back no more than its first stage does; "
        "--verify measures it, --lossless makes up for it"
    ]


def _describe(result: Result) -> str:
    measured = result.measured if isinstance(result, Encoded) else None
    if measured is None or measured.bytes is None:
        return result.output
    sizes = measured.bytes
    parts = ", ".join(f"{name} {size:,}" for name, size in sizes.items() if not name.startswith("as_"))
    return (
        f"{result.output}\t{parts} bytes\tthe image as PNG {sizes['as_png']:,}, as lossless WebP "
        f"{sizes['as_webp']:,}"
    )
