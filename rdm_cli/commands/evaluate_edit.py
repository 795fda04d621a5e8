"""rdm evaluate edit: whether an edit shows, and what else it changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from rdm_cli import options as o
from rdm_cli.commands.evaluation_job import (
    bundles_then_folder,
    check_output,
    evaluate,
    numbers,
    opened,
)
from rdm_cli.console import Console
from rdm_cli.errors import UsageError
from rdm_cli.option_groups import spread

PURPOSE = "judging edits"


@spread
def edit(
    bundles_and_data: o.BundlesAndData,
    output: o.Report = None,
    labels: o.LabelTable = None,
    attr: o.LabelNames = None,
    scales: Annotated[
        str,
        typer.Option("--scales", metavar="S,...", help="Scales, as in rdm manipulate; 0 is always measured."),
    ] = "-0.3,0.15,0.3",
    judge_data: Annotated[
        Path | None,
        typer.Option(
            "--judge-data",
            metavar="FOLDER",
            help="Labelled images to train the judge on.",
            show_default="three quarters of the data",
        ),
    ] = None,
    num: Annotated[
        int,
        typer.Option("-n", "--n", metavar="N", min=2, help="Edit N images for each attribute and direction."),
    ] = 32,
    num_labelled: Annotated[
        int,
        typer.Option(
            "--labelled", metavar="N", min=8, help="Use the first N labelled images of each folder."
        ),
    ] = 4000,
    steps: o.EvaluationSteps = 20,
    lpips_weights: o.LPIPSWeights = None,
    seed: o.Seed = 0,
    *,
    images: o.FittedImages,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Measure edits along a bundle's attributes, judged by a classifier of images.

    Success, other verdicts that changed, perceptual distance, and change of the background, over a range of
    scales. Needs labels, to train the judge and to know what an image lacks.

    Examples:
        rdm evaluate edit avatars64-diffae faces/ --attr smiling
        rdm evaluate edit a-bundle b-bundle faces/ --scales=-0.3,0.3 -o report/
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    bundles, folder = bundles_then_folder(bundles_and_data)
    moves = numbers("--scales", scales, float)
    if not any(moves) or not all(math.isfinite(scale) for scale in moves):
        raise UsageError(f"--scales {scales}: a scale is a number, and one of them at least is not 0")
    check_output(output, "edit")
    from rdm_cli.evaluation.distances import open_distances
    from rdm_cli.evaluation.edit import LEAD, EditPlan, edit_plots, edit_work, measure_edits
    from rdm_cli.evaluation.judging import court
    from rdm_cli.evaluation.material import gather_labelled

    material = gather_labelled(folder, num_labelled, images.fit, table=labels, names=None, purpose=PURPOSE)
    learned = None
    if judge_data is not None:
        learned = gather_labelled(
            judge_data, num_labelled, images.fit, table=None, names=None, purpose=PURPOSE
        )
    subjects = opened(bundles, machine, images, console)
    sides = court(material, learned, seed=seed)
    plan = EditPlan(attributes=attr, scales=moves, num=num, steps=steps)
    distances, missing = open_distances(lpips_weights or [])
    evaluate(
        console,
        "edit",
        LEAD,
        material,
        subjects,
        work=lambda subject: edit_work(subject, sides, plan),
        measure=lambda subject, advance: measure_edits(
            subject, sides, plan, distances=distances, seed=seed, advance=advance
        ),
        output=output,
        seed=seed,
        precision=machine.precision,
        notes=[*missing, *(learned.notes if learned is not None else ())],
        plots=edit_plots,
        steps=steps,
        judge_data_sha256=sides.learned.digest,
        judge_num_images=len(sides.learned),
    )
