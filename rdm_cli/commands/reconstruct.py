"""rdm reconstruct: how much of an image its code keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from rdm_cli import options as o
from rdm_cli.commands.batch_job import Fitted, planned_job, report
from rdm_cli.commands.opening import open_on
from rdm_cli.console import Console
from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.jobs.batch import Outcome, Task
from rdm_cli.jobs.results import Reconstructed
from rdm_cli.option_groups import spread


@spread
def reconstruct(
    inputs: o.Inputs = None,
    output: o.Output = None,
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    solver: o.SolverOption = None,
    x_t: Annotated[
        o.StartNoise,
        typer.Option("--x-t", help="Infer x_T from the image, or draw it: then z alone is decoded."),
    ] = "inferred",
    variations: Annotated[
        int,
        typer.Option(
            "--variations", metavar="K", min=0, help="Add K pictures of the same z, each with another x_T."
        ),
    ] = 0,
    seed: o.Seed = 0,
    tile: o.TilePixels = o.TILE_DEFAULT,
    force: o.Force = False,
    style: o.Style = None,
    *,
    inverting: o.Inverting,
    images: o.FittedImages,
    work: o.Work,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Encode and decode images, and measure what is lost.

    What is lost is measured on the fitted image: the square of the bundle's size that --fit makes of it.
    a.png gives a-reconstruction.png and a-reconstruction-side-by-side.png (original, reconstruction,
    variations), with MSE, PSNR and SSIM.

    Examples:
        rdm reconstruct photo.png --steps 50
        rdm reconstruct faces/ --x-t random --variations 3 -o out/
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    with planned_job(
        console,
        "reconstruct",
        inputs,
        files_from=work.files_from,
        column=work.column,
        output=output,
        suffixes=SUFFIXES,
        result_suffix="-reconstruction.png",
        stdin_suffix=".image",
        companions=("-reconstruction-side-by-side.png",),
        spared=("-reconstruction-side-by-side.png",),
    ) as job:
        from rdm_cli.jobs.files import reconstruct_files
        from rdm_cli.pipeline.effort import Effort

        pipeline = open_on(machine, bundle, images, job.remark, style=style, solver=solver)
        effort = Effort(
            inversion=inverting.inversion,
            steps=inverting.steps,
            iterations=inverting.iterations,
            with_x_T=x_t == "inferred",
        )
        effort.way(pipeline.bundle)  # a wrong option fails once, not once an image
        if x_t == "random" or variations:
            pipeline.bundle.require_z("--variations" if variations else "--x-t random")

        mean, fitted = _Mean(), Fitted(images.fit)

        def count(result: Reconstructed) -> None:
            mean.add(result)
            fitted.add(result)

        def outcomes(advance: Callable[[float], None]) -> Iterator[Outcome[Task, Reconstructed]]:
            return reconstruct_files(
                pipeline,
                job.tasks,
                num_items=job.num_items,
                effort=effort,
                variations=variations,
                seed=seed,
                fit=images.fit,
                tile=tile,
                force=force,
                advance=advance,
            )

        report(
            console,
            job,
            outcomes,
            verb="reconstructed",
            noun="image",
            failures=work.failures,
            describe=_describe,
            each=count,
            conclude=lambda: mean.emit(console),
            remarks=fitted.remarks,
        )


def _describe(result: Reconstructed) -> str:
    return _line(result.output, result.mse, result.psnr_db, result.ssim)


def _line(name: str, mse: float, psnr_db: float | None, ssim: float) -> str:
    psnr = "exact" if psnr_db is None else f"{psnr_db:.2f} dB"
    return f"{name}\tMSE {mse:.2e}\tPSNR {psnr}\tSSIM {ssim:.4f}"


class _Mean:
    """The mean over images, where there are several; exact ones have no PSNR and are left out of its mean."""

    def __init__(self) -> None:
        self.mse = self.psnr_db = self.ssim = 0.0  # sums
        self.num_images = self.num_inexact = 0

    def add(self, result: Reconstructed) -> None:
        """Count in one image."""
        self.num_images += 1
        self.mse += result.mse
        self.ssim += result.ssim
        if result.psnr_db is not None:
            self.num_inexact += 1
            self.psnr_db += result.psnr_db

    def emit(self, console: Console) -> None:
        """Tell it."""
        if self.num_images > 1:
            mse, ssim = self.mse / self.num_images, self.ssim / self.num_images
            psnr_db = self.psnr_db / self.num_inexact if self.num_inexact else None
            mean = {"mse": mse, "psnr_db": psnr_db, "ssim": ssim}
            console.emit(_line("mean", mse, psnr_db, ssim), mean=mean, num_images=self.num_images)
