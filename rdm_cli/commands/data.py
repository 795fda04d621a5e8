"""rdm data: images to try things on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rdm_cli import options as o
from rdm_cli.console import Console
from rdm_cli.help_page import App
from rdm_cli.option_groups import spread

app = App(
    no_args_is_help=True,
    help="""Images to try things on.

Examples:
    rdm data avatars faces/ --n 1000 --seed 1
    rdm data avatars big-faces/ --n 100 --size 128
""",
)


@app.callback()
def _data() -> None:
    """Images to try things on."""


@app.command("avatars")
@spread
def avatars(
    folder: Annotated[Path, typer.Argument(help="Where to write.")],
    num: Annotated[int, typer.Option("-n", "--n", metavar="N", min=1, help="How many faces.")] = 1000,
    size: Annotated[
        int, typer.Option("--size", metavar="PIXELS", min=16, max=1024, help="Side of an image in pixels.")
    ] = 64,
    seed: o.Seed = 0,
    force: o.Force = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            help="Processes that draw.",
            show_default="all cores",
            rich_help_panel=o.MACHINE,
        ),
    ] = None,
    *,
    voice: o.Voice,
) -> None:
    """Draw faces with exact labels: 000000.png, ... and metadata.csv.

    Face i depends on the seed and i alone. Seeds that differ modulo 64 share no face.

    Examples:
        rdm data avatars faces/ --n 1000 --seed 1
        rdm data avatars big-faces/ --n 100 --size 128
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    from rdm_cli.data.avatars import write_avatars

    with console.progress("drawing", num, unit="images") as advance:
        drawn = write_avatars(folder, num_images=num, size=size, seed=seed, workers=workers, force=force)
        for path in drawn:
            if path.suffix == ".png":
                advance(1.0)
            console.emit(str(path), output=str(path), kind="image" if path.suffix == ".png" else "labels")
