"""rdm data: images to try things on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rdm_cli import options as o
from rdm_cli.console import Console

app = typer.Typer(no_args_is_help=True, help="Images to try things on.")


@app.callback()
def _data() -> None:
    """Images to try things on."""


@app.command("avatars")
def avatars(
    folder: Annotated[Path, typer.Argument(help="Where to write.")],
    num: Annotated[int, typer.Option("-n", "--n", min=1, help="How many faces.")] = 1000,
    size: Annotated[int, typer.Option("--size", min=16, max=1024, help="Side in pixels.")] = 64,
    seed: o.Seed = 0,
    force: o.Force = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes.", show_default="all cores")
    ] = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Draw faces with exact labels: 000000.png, ... and metadata.csv.

    Face i depends on the seed and i alone. Seeds that differ modulo 64 share no face.
    """
    console = Console(as_json=as_json, quiet=quiet)
    from rdm_cli.data.avatars import write_avatars

    with console.progress("drawing", num, unit="images") as advance:
        drawn = write_avatars(folder, num_images=num, size=size, seed=seed, workers=workers, force=force)
        for path in drawn:
            if path.suffix == ".png":
                advance(1.0)
            console.emit(str(path), output=str(path), kind="image" if path.suffix == ".png" else "labels")
