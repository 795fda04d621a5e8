"""rdm evaluate interpolation: how evenly pictures change between two images."""

from __future__ import annotations

from typing import Annotated

import typer

from rdm_cli import options as o
from rdm_cli.commands.evaluation_job import bundles_then_folder, check_output, evaluate, opened
from rdm_cli.console import Console
from rdm_cli.errors import UsageError


def interpolation(
    bundles_and_data: o.BundlesAndData,
    output: o.Report = None,
    pairs: Annotated[
        int, typer.Option("-n", "--n", min=1, help="Pairs of images: the first and second, and so on.")
    ] = 16,
    frames: Annotated[int, typer.Option("--frames", min=3, help="Pictures on a way, ends included.")] = 9,
    epsilon: Annotated[
        float, typer.Option("--epsilon", min=1e-6, max=0.5, help="The step by which PPL is measured.")
    ] = 0.01,
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
    """Measure the ways between pairs of images: perceptual path length and smoothness.

    Through z and x_T, through z alone, through the noise of a plain DPM, and through pixels. The distance is
    LPIPS where its weights are named, else ST-LPIPS where it is installed, else the mean squared error.
    """
    console = Console(as_json=as_json, quiet=quiet)
    bundles, folder = bundles_then_folder(bundles_and_data)
    check_output(output)
    from rdm_cli.core.evaluation.distances import open_distances
    from rdm_cli.core.evaluation.interpolation import (
        LEAD,
        WayPlan,
        interpolation_plots,
        interpolation_work,
        lacking,
        measure_interpolation,
    )
    from rdm_cli.core.evaluation.material import gather

    material = gather(folder, 2 * pairs, fit.value)
    if len(material) < 2:
        raise UsageError(f"{folder}: one image, and a way leads from one to another")
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
        precision=precision.value,
        notes=[*missing, *lacking(subjects)],
        plots=interpolation_plots,
        steps=steps,
    )
