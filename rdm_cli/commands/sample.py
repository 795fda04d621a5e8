"""rdm sample: new images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from rdm_cli import completion
from rdm_cli import options as o
from rdm_cli.commands.batch_job import FOLDER_HINT
from rdm_cli.commands.opening import open_on
from rdm_cli.console import Console
from rdm_cli.data.images.record import WRITTEN
from rdm_cli.data.sinks.outputs import is_file_name, refuse_blocked
from rdm_cli.data.sources.shards import WHOLE, parse_shard
from rdm_cli.errors import PartialError, UsageError
from rdm_cli.option_groups import spread


@spread
def sample(
    num: Annotated[int, typer.Option("-n", "--n", metavar="N", min=1, help="How many images.")] = 16,
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="PLACE",
            help="Folder for pictures, codes and the grid; with --n 1 also a picture's file.",
        ),
    ] = "samples",
    prior: Annotated[
        o.Prior | None, typer.Option("--prior", help="What draws z.", show_default="the bundle's")
    ] = None,
    seed: o.Seed = 0,
    force: o.Force = False,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Draw part I of N, from 1, of the samples.",
            rich_help_panel=o.BATCH_JOB,
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            "--like",
            metavar="FOLDER",
            help="A few images (5 will do) or codes of what is wanted.",
            rich_help_panel="Conditions",
        ),
    ] = None,
    unlike: Annotated[
        Path | None,
        typer.Option(
            "--unlike",
            metavar="FOLDER",
            help="Images or codes of what is not wanted.",
            rich_help_panel="Conditions",
        ),
    ] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(
            "--unlabelled",
            metavar="FOLDER",
            help="Images or codes of any kind; goes with --like.",
            rich_help_panel="Conditions",
        ),
    ] = None,
    attr: Annotated[
        str | None,
        typer.Option(
            "--attr",
            metavar="NAME[=yes|no],...",
            help="Attributes that the samples have, or lack.",
            autocompletion=completion.wanted_attributes,
            rich_help_panel="Conditions",
        ),
    ] = None,
    max_draws: Annotated[
        int | None,
        typer.Option(
            "--max-draws",
            metavar="N",
            min=1,
            help="Stop after N draws, whatever was accepted.",
            show_default="1000, or 100 a sample",
            rich_help_panel="Conditions",
        ),
    ] = None,
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    steps: o.Steps = None,
    solver: o.SolverOption = None,
    prior_steps: Annotated[
        int | None,
        typer.Option(
            "--prior-steps",
            metavar="N",
            min=1,
            help="Steps of the prior.",
            show_default="the prior's own",
            rich_help_panel=o.SOLVER,
        ),
    ] = None,
    prior_solver: Annotated[
        o.Solver | None,
        typer.Option(
            "--prior-solver",
            help="Solver of the prior.",
            show_default="the prior's own",
            rich_help_panel=o.SOLVER,
        ),
    ] = None,
    stop_shift: Annotated[
        float | None,
        typer.Option(
            "--stop-shift",
            metavar="FRACTION",
            min=0.0,
            max=1.0,
            help="PDAE: for this last fraction of the steps, use the pretrained model without its shift.",
            show_default="the method's own",
            rich_help_panel=o.SOLVER,
        ),
    ] = None,
    columns: o.Columns = None,
    tile: o.TilePixels = o.TILE_DEFAULT,
    style: o.Style = None,
    *,
    images: o.Images,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Draw images: z from a prior, x_T from N(0, I).

    Writes 000000.png and its code 000000.safetensors, and so on, and grid.png of the first 256. Sample i
    depends on the seed and i alone; what is there already is kept, so a run goes on where it was stopped.
    --attr draws z with these attributes where the prior was trained with labels of all of them. Else, and
    with --like, draws are accepted or rejected by a linear classifier on z; where too few are accepted, the
    best-scoring of the others are kept, named, and the exit code is 3.

    Examples:
        rdm sample --n 64 --seed 0 -o samples/
        rdm sample --n 16 --attr glasses=yes,smiling=no -o serious/
    """
    if unlike is not None and unlabelled is not None:
        raise UsageError("--unlike and --unlabelled exclude each other")
    if (unlike or unlabelled) is not None and like is None:
        raise UsageError("--unlike and --unlabelled go with --like FOLDER")
    if like is not None and attr is not None:
        raise UsageError("--like and --attr exclude each other")
    if max_draws is not None and max_draws < num:
        raise UsageError(f"--max-draws {max_draws}: that many draws cannot give {num} samples")
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    mine = WHOLE if shard is None else parse_shard(shard)
    place, alone = Path(output), is_file_name(output, WRITTEN)
    if alone and (num > 1 or mine.count > 1):
        raise UsageError(f"-o {output} is one file, and goes with --n 1", hint=FOLDER_HINT)
    refuse_blocked(place.parent if alone else place)  # before any work
    from rdm_cli.jobs.conditional import (
        accepted_draws,
        attribute_condition,
        few_shot_condition,
        in_words,
        knows_all,
        wanted_attributes,
    )
    from rdm_cli.jobs.pictures import Draws, write_samples
    from rdm_cli.pipeline.compatibility import stop_shift_for

    wanted = None if attr is None else wanted_attributes(attr)
    pipeline = open_on(machine, bundle, images, console.remark, prior=prior, style=style, solver=solver)
    stop_shift_for(pipeline.bundle, stop_shift)  # refuses a bundle without one before any work
    budget = max_draws or max(1000, 100 * num)
    num_accepted = num
    if like is not None:
        condition = few_shot_condition(pipeline, like, unlike=unlike, unlabelled=unlabelled, seed=seed)
    elif wanted is not None and not knows_all(pipeline, wanted):
        condition = attribute_condition(pipeline, wanted)
    else:
        condition = None
    draws = Draws(
        seed=seed,
        steps=steps,
        prior_steps=prior_steps,
        prior_solver=prior_solver,
        stop_shift=stop_shift,
        wanted=wanted if condition is None else None,
    )
    if draws.wanted:
        console.note(f"drawing with the prior's {in_words(draws.wanted)}; no draw is rejected")
    numbers: Sequence[int] = range(num)
    if condition is not None:
        console.note(condition.description)
        if condition.doubts:
            console.problem(f"rdm: {condition.doubts}")
        taken = accepted_draws(pipeline, condition, num, draws, max_draws=budget, keep_best=True)
        numbers, num_accepted = taken.numbers, taken.num_accepted
        console.note(taken.told)
    best_others = frozenset(numbers[num_accepted:])
    in_parts = mine.count > 1
    if in_parts:
        console.note(f"rdm: shard {mine}; grid.png is drawn by a run without --shard")
    num_drawn = num_kept = 0
    try:
        with console.progress("sampling", num / mine.count, unit="images") as advance:
            for made in write_samples(
                pipeline,
                draws,
                numbers,
                place,
                alone=alone,
                holds=mine.holds if in_parts else None,
                condition=None if condition is None else condition.record,
                columns=columns,
                tile=tile,
                force=force,
                advance=advance,
            ):
                if made.kind == "sample":
                    num_kept, num_drawn = num_kept + made.skipped, num_drawn + (not made.skipped)
                console.emit(
                    str(made.path),
                    kind=made.kind,
                    draw=made.number,
                    accepted=None if made.number is None else made.number not in best_others,
                    output=str(made.path),
                    code=None if made.code is None else str(made.code),
                    skipped=made.skipped,
                )
    finally:
        if num_drawn or num_kept:  # else nothing was begun, and the error says why
            kept = f", {num_kept} already there" if num_kept else ""
            console.note(f"sampled {num_drawn} image{'' if num_drawn == 1 else 's'}{kept}")
    if num_accepted < num:
        raise PartialError(
            f"{num - num_accepted} of {num} samples were not accepted: they are the best of {budget} draws",
            hint="give more example images, use a stored --attr, or allow more draws: --max-draws",
        )
