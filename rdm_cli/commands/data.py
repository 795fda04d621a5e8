"""rdm data: images to try things on."""

from __future__ import annotations

from functools import partial
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
    counterfactuals: Annotated[
        str | None,
        typer.Option(
            "--counterfactuals",
            metavar="NAME",
            help="Beside each face, draw every face that differs from it by this attribute alone.",
            show_default="none",
        ),
    ] = None,
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

    Face i depends on the seed and i alone. Seeds that differ modulo 64 share no face. With --counterfactuals
    glasses, each face i of the first N that can be changed that way is i.png, the same face with glasses, or
    without, i/glasses-000.png and so on, and counterfactuals.csv says which picture is of which face.

    Examples:
        rdm data avatars faces/ --n 1000 --seed 1
        rdm data avatars pairs/ --n 100 --counterfactuals glasses
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    from rdm_cli.data.avatars import write_avatars
    from rdm_cli.data.counterfactuals import write_counterfactuals

    write = write_avatars
    if counterfactuals is not None:
        write = partial(write_counterfactuals, attribute=counterfactuals)
    with console.progress("drawing", num, unit="faces") as advance:
        for path in write(folder, num_images=num, size=size, seed=seed, workers=workers, force=force):
            if path.suffix == ".png":
                advance(float(path.parent == folder))
            console.emit(str(path), output=str(path), kind="image" if path.suffix == ".png" else "labels")
