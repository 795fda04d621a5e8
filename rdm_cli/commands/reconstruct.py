"""rdm reconstruct: how much of an image its code keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from rdm_cli import options as o
from rdm_cli.commands.batch_job import Fitted, planned_job, report
from rdm_cli.console import Console
from rdm_cli.core.batch import Outcome, Task
from rdm_cli.data.images import SUFFIXES


def reconstruct(
    inputs: o.Inputs = None,
    output: o.OutputPlace = None,
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    steps: o.Steps = None,
    inversion: o.InversionOption = o.Inversion.ddim,
    iterations: o.Iterations = None,
    solver: o.SolverOption = None,
    x_t: Annotated[
        o.StartNoise,
        typer.Option("--x-t", help="Infer x_T from the image, or draw it: then z alone is decoded."),
    ] = o.StartNoise.inferred,
    variations: Annotated[
        int,
        typer.Option("--variations", min=0, help="Add K pictures of the same z, each with another x_T."),
    ] = 0,
    seed: o.Seed = 0,
    fit: o.FitOption = o.Fit.crop,
    force: o.Force = False,
    files_from: o.FilesFrom = None,
    column: o.Column = None,
    style: o.Style = None,
    class_name: o.ClassName = None,
    max_pixels: o.MaxPixels = o.MAX_PIXELS_DEFAULT,
    value_range: o.ValueRangeOption = None,
    batch_size: o.BatchSize = None,
    precision: o.PrecisionOption = o.Precision.fp32,
    device: o.Device = "auto",
    threads: o.Threads = None,
    failures: o.Failures = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Encode and decode images, and measure what is lost.

    What is lost is measured on the fitted image: the square of the bundle's size that --fit makes of it.
    a.png gives a-reconstruction.png and a-reconstruction-side-by-side.png (original, reconstruction,
    variations), with MSE, PSNR and SSIM.
    """
    console = Console(as_json=as_json, quiet=quiet)
    with planned_job(
        console,
        "reconstruct",
        inputs,
        files_from=files_from,
        column=column,
        output=output,
        suffixes=SUFFIXES,
        result_suffix="-reconstruction.png",
        stdin_suffix=".image",
        companions=("-reconstruction-side-by-side.png",),
        spared=("-reconstruction-side-by-side.png",),
    ) as job:
        from rdm_cli.core.effort import Effort, check_effort
        from rdm_cli.core.files import reconstruct_files
        from rdm_cli.core.pipeline import open_pipeline
        from rdm_cli.core.runtime import set_up

        pipeline = open_pipeline(
            bundle,
            device=set_up(device=device, threads=threads),
            precision=precision.value,
            batch_size=batch_size,
            max_pixels=max_pixels,
            value_range=value_range,
            on_remark=job.remark,
            style=style,
            class_name=class_name,
            solver=solver and solver.value,
        )
        effort = Effort(
            inversion=inversion.value,
            steps=steps,
            iterations=iterations,
            with_x_T=x_t is o.StartNoise.inferred,
        )
        check_effort(pipeline, effort)  # a wrong option fails once, not once an image
        if x_t is o.StartNoise.random or variations:
            pipeline.bundle.require_z("--variations" if variations else "--x-t random")

        mean, fitted = _Mean(), Fitted(fit.value)

        def count(data: dict[str, Any]) -> None:
            mean.add(data)
            fitted.add(data)

        def outcomes(advance: Callable[[float], None]) -> Iterator[Outcome[Task]]:
            return reconstruct_files(
                pipeline,
                job.tasks,
                num_items=job.num_items,
                effort=effort,
                variations=variations,
                seed=seed,
                fit=fit.value,
                force=force,
                advance=advance,
            )

        report(
            console,
            job,
            outcomes,
            verb="reconstructed",
            noun="image",
            failures=failures,
            describe=_describe,
            each=count,
            conclude=lambda: mean.emit(console),
            remarks=fitted.remarks,
        )


def _describe(data: dict[str, Any]) -> str:
    psnr = "exact" if data["psnr_db"] is None else f"{data['psnr_db']:.2f} dB"
    return f"{data['output']}\tMSE {data['mse']:.2e}\tPSNR {psnr}\tSSIM {data['ssim']:.4f}"


class _Mean:
    """The mean over images, where there are several; exact ones have no PSNR and are left out of its mean."""

    def __init__(self) -> None:
        self.sums = {"mse": 0.0, "psnr_db": 0.0, "ssim": 0.0}
        self.num_images = dict.fromkeys(self.sums, 0)

    def add(self, data: dict[str, Any]) -> None:
        """Count in one image."""
        for name in self.sums:
            if data[name] is not None:
                self.sums[name] += data[name]
                self.num_images[name] += 1

    def emit(self, console: Console) -> None:
        """Tell it."""
        if self.num_images["mse"] > 1:
            mean = {n: s / self.num_images[n] if self.num_images[n] else None for n, s in self.sums.items()}
            console.emit(_describe({"output": "mean", **mean}), mean=mean, num_images=self.num_images["mse"])
