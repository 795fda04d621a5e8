"""rdm evaluate reconstruction: how close images come back."""

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
from rdm_cli.option_groups import spread


@spread
def reconstruction(
    bundles_and_data: o.BundlesAndData,
    output: o.Report = None,
    num: Annotated[
        int, typer.Option("-n", "--n", metavar="N", min=2, help="Use the first N images of the folder.")
    ] = 64,
    steps: o.StepsList = "10,20,50",
    inversion: o.InversionOption = "ddim",
    lpips_weights: o.LPIPSWeights = None,
    seed: o.Seed = 0,
    *,
    images: o.FittedImages,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Measure reconstructions: from z alone, and with inferred x_T, at several T.

    MSE, PSNR, SSIM and, where the images are large enough, MS-SSIM; ST-LPIPS where it is installed, and LPIPS
    where its weights are named.

    Examples:
        rdm evaluate reconstruction avatars64-diffae faces/
        rdm evaluate reconstruction a-bundle faces/ --inversion exact -o report/
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    bundles, folder = bundles_then_folder(bundles_and_data)
    counts = step_numbers(steps)
    check_output(output, "reconstruction")
    from rdm_cli.evaluation.distances import open_distances
    from rdm_cli.evaluation.material import gather
    from rdm_cli.evaluation.reconstruction import (
        LEAD,
        measure_reconstruction,
        reconstruction_plots,
        reconstruction_work,
    )

    material = gather(folder, num, images.fit)
    subjects = opened(bundles, machine, images, console)
    distances, missing = open_distances(lpips_weights or [])
    evaluate(
        console,
        "reconstruction",
        LEAD,
        material,
        subjects,
        work=lambda subject: reconstruction_work(subject, material, counts),
        measure=lambda subject, advance: measure_reconstruction(
            subject,
            material,
            steps=counts,
            inversion=inversion,
            distances=distances,
            seed=seed,
            advance=advance,
        ),
        output=output,
        seed=seed,
        precision=machine.precision,
        notes=missing,
        plots=reconstruction_plots,
        inversion=inversion,
    )
