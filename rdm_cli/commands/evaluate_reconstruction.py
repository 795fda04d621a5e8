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


def reconstruction(
    bundles_and_data: o.BundlesAndData,
    output: o.Report = None,
    num: Annotated[int, typer.Option("-n", "--n", min=2, help="Images, the first of the folder.")] = 64,
    steps: o.StepsList = "10,20,50",
    inversion: o.InversionOption = o.Inversion.ddim,
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
    """Measure reconstructions: from z alone, and with inferred x_T, at several T.

    MSE, PSNR, SSIM and, where the images are large enough, MS-SSIM; ST-LPIPS where it is installed, and LPIPS
    where its weights are named.
    """
    console = Console(as_json=as_json, quiet=quiet)
    bundles, folder = bundles_then_folder(bundles_and_data)
    counts = step_numbers(steps)
    check_output(output)
    from rdm_cli.core.evaluation.distances import open_distances
    from rdm_cli.core.evaluation.material import gather
    from rdm_cli.core.evaluation.reconstruction import (
        LEAD,
        measure_reconstruction,
        reconstruction_plots,
        reconstruction_work,
    )

    material = gather(folder, num, fit.value)
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
            inversion=inversion.value,
            distances=distances,
            seed=seed,
            advance=advance,
        ),
        output=output,
        seed=seed,
        precision=precision.value,
        notes=missing,
        plots=reconstruction_plots,
        inversion=inversion.value,
    )
