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

PURPOSE = "judging edits"


def edit(
    bundles_and_data: o.BundlesAndData,
    output: o.Report = None,
    labels: o.LabelTable = None,
    attr: o.LabelNames = None,
    scales: Annotated[
        str, typer.Option("--scales", metavar="S,...", help="Scales, as manipulate has them; 0 is implied.")
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
        int, typer.Option("-n", "--n", min=2, help="Images edited for each attribute and direction.")
    ] = 32,
    num_labelled: Annotated[
        int, typer.Option("--labelled", min=8, help="Labelled images used of each folder, from the first.")
    ] = 4000,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps to encode and decode in.")] = 20,
    lpips_weights: o.LPIPSWeights = None,
    seed: o.Seed = 0,
    fit: o.FitOption = o.Fit.crop,
    class_name: o.ClassName = None,
    max_pixels: o.MaxPixels = o.MAX_PIXELS_DEFAULT,
    value_range: o.ValueRangeOption = None,
    batch_size: o.BatchSize = None,
    precision: o.PrecisionOption = o.Precision.fp32,
    device: o.Device = "auto",
    threads: o.Threads = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Measure edits along a bundle's attributes, judged by a classifier of images.

    Success, other verdicts that changed, perceptual distance, and change of the background, over a range of
    scales. Needs labels, to train the judge and to know what an image lacks.
    """
    console = Console(as_json=as_json, quiet=quiet)
    bundles, folder = bundles_then_folder(bundles_and_data)
    moves = numbers("--scales", scales, float)
    if not any(moves) or not all(math.isfinite(scale) for scale in moves):
        raise UsageError(f"--scales {scales}: a scale is a number, and one of them at least is not 0")
    check_output(output)
    from rdm_cli.core.evaluation.distances import open_distances
    from rdm_cli.core.evaluation.edit import LEAD, EditPlan, edit_plots, edit_work, measure_edits
    from rdm_cli.core.evaluation.judging import court
    from rdm_cli.core.evaluation.material import gather_labelled

    material = gather_labelled(folder, num_labelled, fit.value, table=labels, names=None, purpose=PURPOSE)
    learned = None
    if judge_data is not None:
        learned = gather_labelled(
            judge_data, num_labelled, fit.value, table=None, names=None, purpose=PURPOSE
        )
    subjects = opened(
        bundles,
        device=device,
        threads=threads,
        precision=precision,
        batch_size=batch_size,
        max_pixels=max_pixels,
        value_range=value_range,
        console=console,
        class_name=class_name,
    )
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
        precision=precision.value,
        notes=[*missing, *(learned.notes if learned is not None else ())],
        plots=edit_plots,
        steps=steps,
        judge_data_sha256=sides.learned.digest,
        judge_num_images=len(sides.learned),
    )
