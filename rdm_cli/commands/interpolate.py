"""rdm interpolate: the way from one image to another."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from rdm_cli import options as o
from rdm_cli.commands.opening import open_for, open_on
from rdm_cli.console import Console
from rdm_cli.data.images.animation import animation_kinds
from rdm_cli.data.images.record import WRITTEN
from rdm_cli.data.sinks.outputs import is_file_name, refuse_blocked
from rdm_cli.data.sources.folders import CODE_SUFFIX
from rdm_cli.errors import UsageError
from rdm_cli.option_groups import spread

Way = Literal["lerp", "prior", "trajectory"]
"""How z changes between two images."""


@spread
def interpolate(
    inputs: Annotated[list[Path], typer.Argument(help="Two or more images or codes, in order.")],
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="PLACE",
            help="Folder for strip, animation and frames; or the file of one: .png, .webp or .jpg for the "
            "strip, .gif or .mp4 (or .webp, with --animation webp) for the animation.",
        ),
    ] = "interpolation",
    frames: Annotated[
        int,
        typer.Option(
            "--frames", metavar="N", min=2, help="Pictures from one input to the next, both included."
        ),
    ] = 9,
    frame_ms: Annotated[
        int, typer.Option("--frame-ms", metavar="MS", min=20, help="Milliseconds a frame of the animation.")
    ] = 120,
    path: Annotated[
        Way | None,
        typer.Option(
            "--path",
            help="How z changes: prior, through codes that the bundle's prior would draw; lerp, straight "
            "from code to code (slerp for an LRDM, whose z is normal); trajectory, a lerp of what the "
            "decoder makes of both codes at each step.",
            show_default="prior where the bundle's prior predicts v, else lerp",
        ),
    ] = None,
    animation: Annotated[
        str,
        typer.Option(
            "--animation", metavar="KIND,...", help="The animation's format: gif, webp or mp4 (by ffmpeg)."
        ),
    ] = "gif",
    tile: o.TilePixels = o.TILE_DEFAULT,
    bundle: o.RecordedBundle = None,
    force: o.Force = False,
    style: o.Style = None,
    *,
    inverting: o.Inverting,
    images: o.FittedImages,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Interpolate between images: x_T by slerp, z as --path says.

    Writes strip.png, an animation and numbered frames with their codes. The ends are the
    reconstructions of the inputs. A trajectory's frames have no codes.

    Examples:
        rdm interpolate a.png b.png --frames 9 -o walk/ --animation webp
        rdm interpolate a.png b.png c.png --path trajectory
    """
    for name in inputs:
        if name.is_dir():
            raise UsageError(
                f"{name}: this is a folder, and the way leads from image to image in the order that you give",
                hint=f"name the images, or all of them as {name}/*",
            )
    animations = animation_kinds(animation)
    if len(inputs) < 2:
        raise UsageError("interpolation needs at least two images or codes")
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    place = Path(output)
    alone: Literal["strip", "animation"] | None = None
    if is_file := is_file_name(output, (*WRITTEN, ".gif", ".mp4")):
        kind = place.suffix.lower().removeprefix(".")
        moves = kind in ("gif", "mp4") or (kind == "webp" and "webp" in animations)
        alone, animations = ("animation", animation_kinds(kind)) if moves else ("strip", ())
    refuse_blocked(place.parent if is_file else place)  # before any work
    for name in inputs:
        if is_file and os.path.realpath(name) == os.path.realpath(place):
            raise UsageError(f"-o {output} would replace the input {name}", hint="name another file")
    from rdm_cli.codes.code import read_info
    from rdm_cli.jobs.pictures import interpolate_files
    from rdm_cli.pipeline.effort import Effort

    codes = [name for name in inputs if name.suffix == CODE_SUFFIX]
    pipeline = open_for(
        read_info(codes[0]) if codes else None,
        bundle,
        partial(open_on, machine, images=images, on_remark=console.remark, style=style),
    )
    effort = Effort(inversion=inverting.inversion, steps=inverting.steps, iterations=inverting.iterations)
    effort.way(pipeline.bundle)
    total = len(inputs) + (frames - 1) * (len(inputs) - 1) + 1
    with console.progress("interpolating", float(total)) as advance:
        written = interpolate_files(
            pipeline,
            inputs,
            place,
            alone=alone,
            num_frames=frames,
            frame_ms=frame_ms,
            effort=effort,
            fit=images.fit,
            path=path,
            animations=animations,
            tile=tile,
            force=force,
            advance=advance,
        )
        for kind, written_to in written:
            console.emit(str(written_to), kind=kind, output=str(written_to))
