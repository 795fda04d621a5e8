"""docs/figures/overview.png: what a bundle does, on the shipped faces, one face a column.

    python benchmarks/overview_figure.py docs/figures/overview.png --bundle avatars64-diffae

Rows: the image; its reconstruction with inferred x_T; the same z with two other x_T; the smile taken away
and put on; glasses put on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rdm_cli import open_pipeline
from rdm_cli.bundles.places import assets_folder
from rdm_cli.data.images.pixels import grid, to_pil
from rdm_cli.data.images.record import new_record, save_image
from rdm_cli.runtime import set_up

EDITS = ({"smiling": -0.3}, {"smiling": 0.3}, {"glasses": 0.3})


def main(
    output: Annotated[Path, typer.Argument(help="Where to write the figure.")],
    bundle: Annotated[str, typer.Option(help="The bundle.")] = "avatars64-diffae",
    zoom: Annotated[int, typer.Option(help="Screen pixels a picture's pixel.")] = 2,
) -> None:
    """Draw the figure."""
    pipeline = open_pipeline(bundle, device=set_up())
    x_0 = pipeline.load_images(sorted((assets_folder() / "faces").glob("*.png")))
    codes = pipeline.encode(x_0)
    rows = [x_0, pipeline.decode(codes)]
    without = codes.without_x_T()
    rows += [pipeline.decode(without, keys=[f"{k} {i}" for i in range(len(codes))]) for k in range(2)]
    rows += [pipeline.decode(pipeline.manipulate(codes, edit)) for edit in EDITS]
    sheet = grid([to_pil(picture) for row in rows for picture in row], len(x_0))
    save_image(sheet.resize((sheet.width * zoom, sheet.height * zoom), 0), output, new_record("figure"))
    print(output)


if __name__ == "__main__":
    typer.run(main)
