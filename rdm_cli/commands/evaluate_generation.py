"""rdm evaluate generation: how like images a bundle's samples are."""

from __future__ import annotations

from typing import Annotated

import typer

from rdm_cli import options as o
from rdm_cli.commands.evaluation_job import (
    bundles_then_folder,
    check_output,
    evaluate,
    opened,
    step_numbers,
)
from rdm_cli.console import Console
from rdm_cli.errors import UsageError
from rdm_cli.option_groups import spread

MOST = 500  # samples where the user names no number


@spread
def generation(
    bundles_and_data: o.BundlesAndData,
    output: o.Report = None,
    num: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--n",
            metavar="N",
            min=1,
            help="Draw N samples, and compare them with the first N images of the folder.",
            show_default=f"all images, {MOST} at the most",
        ),
    ] = None,
    steps: o.StepsList = "10,20,50",
    solver: o.SolverOption = None,
    inception_weights: o.InceptionWeights = None,
    seed: o.Seed = 0,
    *,
    images: o.FittedImages,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Measure samples against images, at several T and from each prior that a bundle has.

    Fréchet and kernel distance on EffNet-Lite0's features (FID and KID with --inception-weights), precision,
    recall, density and coverage.

    Examples:
        rdm evaluate generation avatars64-diffae faces/ -n 500
        rdm evaluate generation a-bundle faces/ --steps 20 --solver unipc -o report/
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    bundles, folder = bundles_then_folder(bundles_and_data)
    counts = step_numbers(steps)
    check_output(output, "generation")
    from rdm_cli.evaluation.generation import (
        LEAD,
        LEAST,
        Reference,
        generation_plots,
        generation_work,
        measure_generation,
    )
    from rdm_cli.evaluation.material import gather
    from rdm_cli.metrics.features import open_effnet_lite0
    from rdm_cli.metrics.inception import open_inception

    material = gather(folder, num or MOST, images.fit)
    num = num or len(material)
    if min(num, len(material)) < LEAST:
        raise UsageError(f"{min(num, len(material))} images: a distance of distributions needs {LEAST}")
    extractor = open_effnet_lite0() if inception_weights is None else open_inception(inception_weights)
    reference = Reference(material=material, extractor=extractor)
    subjects = opened(bundles, machine, images, console, solver=solver)
    evaluate(
        console,
        "generation",
        LEAD,
        material,
        subjects,
        work=lambda subject: generation_work(subject, num, counts),
        measure=lambda subject, advance: measure_generation(
            subject, reference, num=num, steps=counts, seed=seed, advance=advance
        ),
        output=output,
        seed=seed,
        precision=machine.precision,
        plots=generation_plots,
        num_samples=num,
        solver="the bundle's own" if solver is None else solver,
    )
