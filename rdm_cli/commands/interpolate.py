"""rdm interpolate: the way from one image to another."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rdm_cli import options as o
from rdm_cli.console import Console
from rdm_cli.data.outputs import refuse_blocked
from rdm_cli.errors import UsageError


class Way(StrEnum):
    """How z changes between two images."""

    lerp = "lerp"
    trajectory = "trajectory"


def interpolate(
    inputs: Annotated[list[Path], typer.Argument(help="Two or more images or codes, in order.")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="DIR", help="Folder for strip, animation and frames."),
    ] = Path("interpolation"),
    frames: Annotated[
        int, typer.Option("--frames", min=2, help="Pictures from one input to the next, both included.")
    ] = 9,
    frame_ms: Annotated[
        int, typer.Option("--frame-ms", min=20, help="Milliseconds a frame of the GIF.")
    ] = 120,
    path: Annotated[
        Way,
        typer.Option(
            "--path",
            help="Between z: straight from code to code (lerp; LRDM's, which are normal, by slerp), or "
            "trajectory, a lerp of what the decoder makes of them at each step.",
        ),
    ] = Way.lerp,
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    steps: o.Steps = None,
    inversion: o.InversionOption = o.Inversion.ddim,
    iterations: o.Iterations = None,
    fit: o.FitOption = o.Fit.crop,
    force: o.Force = False,
    style: o.Style = None,
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
    """Walk between images: slerp of x_T and, between z, one of two ways.

    Writes strip.png, animation.gif and numbered frames with their codes. The ends are the
    reconstructions of the inputs. A trajectory's frames have no codes.
    """
    for name in inputs:
        if name.is_dir():
            raise UsageError(
                f"{name}: this is a folder, and the way leads from image to image in the order that you give",
                hint=f"name the images, or all of them as {name}/*",
            )
    if len(inputs) < 2:
        raise UsageError("interpolation needs at least two images or codes")
    console = Console(as_json=as_json, quiet=quiet)
    refuse_blocked(output)  # a blocked folder is refused before any work
    from rdm_cli.core.effort import Effort, check_effort
    from rdm_cli.core.pictures import interpolate_files
    from rdm_cli.core.pipeline import open_pipeline
    from rdm_cli.core.runtime import set_up

    pipeline = open_pipeline(
        bundle,
        device=set_up(device=device, threads=threads),
        precision=precision.value,
        batch_size=batch_size,
        max_pixels=max_pixels,
        value_range=value_range,
        on_remark=console.remark,
        style=style,
        class_name=class_name,
    )
    effort = Effort(inversion=inversion.value, steps=steps, iterations=iterations)
    check_effort(pipeline, effort)
    total = len(inputs) + (frames - 1) * (len(inputs) - 1) + 1
    with console.progress("interpolating", float(total)) as advance:
        written = interpolate_files(
            pipeline,
            inputs,
            output,
            num_frames=frames,
            frame_ms=frame_ms,
            effort=effort,
            fit=fit.value,
            trajectory=path is Way.trajectory,
            force=force,
            advance=advance,
        )
        for kind, written_to in written:
            console.emit(str(written_to), kind=kind, output=str(written_to))
