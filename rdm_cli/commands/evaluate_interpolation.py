"""rdm evaluate interpolation: how evenly pictures change between two images."""

from __future__ import annotations

from typing import Annotated

import typer

from rdm_cli import options as o
from rdm_cli.commands.evaluation_job import bundles_then_folder, check_output, evaluate, opened
from rdm_cli.console import Console
from rdm_cli.errors import UsageError
from rdm_cli.option_groups import spread


@spread
def interpolation(
    bundles_and_data: o.BundlesAndData,
    output: o.Report = None,
    pairs: Annotated[
        int,
        typer.Option(
            "-n", "--n", metavar="N", min=1, help="Number of pairs: the first and second image, and so on."
        ),
    ] = 16,
    frames: Annotated[
        int,
        typer.Option(
            "--frames", metavar="N", min=3, help="Pictures from one image to the other, both ends included."
        ),
    ] = 9,
    epsilon: Annotated[
        float,
        typer.Option(
            "--epsilon",
            metavar="EPS",
            min=1e-6,
            max=0.5,
            help="The distance along the path at which PPL compares.",
        ),
    ] = 0.01,
    steps: o.EvaluationSteps = 20,
    lpips_weights: o.LPIPSWeights = None,
    seed: o.Seed = 0,
    *,
    images: o.FittedImages,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Measure the ways between pairs of images: perceptual path length and smoothness.

    Through z and x_T, through z alone, through the noise of a plain DPM, and through pixels. The distance is
    LPIPS where its weights are named, else ST-LPIPS where it is installed, else the mean squared error.

    Examples:
        rdm evaluate interpolation avatars64-diffae faces/
        rdm evaluate interpolation a-bundle b-bundle faces/ -n 32 -o report/
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    bundles, folder = bundles_then_folder(bundles_and_data)
    check_output(output, "interpolation")
    from rdm_cli.evaluation.distances import open_distances
    from rdm_cli.evaluation.interpolation import (
        LEAD,
        WayPlan,
        interpolation_plots,
        interpolation_work,
        lacking,
        measure_interpolation,
    )
    from rdm_cli.evaluation.material import gather

    material = gather(folder, 2 * pairs, images.fit)
    if len(material) < 2:
        raise UsageError(f"{folder}: one image, and a way leads from one to another")
    subjects = opened(bundles, machine, images, console)
    plan = WayPlan(num_frames=frames, epsilon=epsilon, steps=steps)
    distances, missing = open_distances(lpips_weights or [])
    evaluate(
        console,
        "interpolation",
        LEAD,
        material,
        subjects,
        work=lambda subject: interpolation_work(subject, material, plan),
        measure=lambda subject, advance: measure_interpolation(
            subject, material, plan, distances=distances, seed=seed, advance=advance
        ),
        output=output,
        seed=seed,
        precision=machine.precision,
        notes=[*missing, *lacking(subjects)],
        plots=interpolation_plots,
        steps=steps,
    )
