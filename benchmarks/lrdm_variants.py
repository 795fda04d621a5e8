"""What LRDM's two variants do, as sheets for the docs: z as a function of t, and style apart from shape.

    rdm train lrdm avatars --preset small64-t --first-stage STAGE -o lrdm-t --no-flip --minutes 35
    rdm train lrdm avatars --preset small64-style --first-stage STAGE -o lrdm-style --no-flip --minutes 35
    python benchmarks/lrdm_variants.py t lrdm-t docs/figures/lrdm-t.jpg
    python benchmarks/lrdm_variants.py style lrdm-style docs/figures/lrdm-style.jpg

The faces are the shipped ones, on which nothing was trained. Every picture is decoded in --steps steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from rdm_cli import Pipeline, open_pipeline
from rdm_cli.bundles.places import assets_folder
from rdm_cli.data.images.pixels import grid, to_pil
from rdm_cli.data.images.record import new_record, save_image
from rdm_cli.errors import UsageError
from rdm_cli.methods.conditions import of_images
from rdm_cli.runtime import set_up

app = typer.Typer(no_args_is_help=True)
Bundle = Annotated[str, typer.Argument(help="The bundle.")]
Output = Annotated[Path, typer.Argument(help="Where to write the sheet.")]
Steps = Annotated[int, typer.Option(help="Steps of every decode.")]


def faces(pipeline: Pipeline) -> Tensor:
    """The shipped faces, (8, 3, H, W)."""
    return pipeline.load_images(sorted((assets_folder() / "faces").glob("*.png")))


def write(rows: list[Tensor], output: Path) -> None:
    """One sheet of rows of pictures, each (N, 3, H, W), at twice their size."""
    sheet = grid([to_pil(picture) for row in rows for picture in row], len(rows[0]))
    save_image(sheet.resize((sheet.width * 2, sheet.height * 2), 0), output, new_record("figure"))
    print(output)


@app.command()
def t(bundle: Bundle, output: Output, steps: Steps = 20) -> None:
    """A face a column: the image; with inferred and with random x_T; the next face's z at ever more steps.

    Rows 4 to 7 have the next face's z at the noisiest quarter, half and three quarters of the steps, and at
    all of them. The last row is drawn from N(0, I).
    """
    pipeline = open_pipeline(bundle, device=set_up())
    if not pipeline.bundle.model.time_dependent:
        raise UsageError(f"{bundle}: z is no function of t")
    x_0 = faces(pipeline)
    codes = pipeline.encode(x_0, steps=steps)
    alone = codes.without_x_T()
    keys = [f"face {i}" for i in range(len(x_0))]
    rows = [x_0, pipeline.decode(codes), pipeline.decode(alone, keys=keys)]
    for share in (0.25, 0.5, 0.75, 1.0):
        z = codes.z.clone()
        clean = round((1 - share) * steps)  # z is kept by ascending timestep, the noisiest last
        z[:, clean:] = codes.z.roll(-1, 0)[:, clean:]
        rows.append(pipeline.decode(alone.replace(z=z), keys=keys))
    rows.append(pipeline.decode(pipeline.sample(len(x_0))))
    write(rows, output)


@app.command()
def style(bundle: Bundle, output: Output, steps: Steps = 20) -> None:
    """The first row gives the style, the first column the shape; below, shapes drawn from N(0, I)."""
    pipeline = open_pipeline(bundle, device=set_up())
    if not of_images(pipeline.bundle.model.conditions):
        raise UsageError(f"{bundle}: no model of style and shape")
    x_0 = faces(pipeline)
    codes = pipeline.encode(x_0, steps=steps)
    assert codes.style is not None
    num = len(x_0)
    empty = torch.ones_like(x_0[:1])
    rows = [torch.cat([empty, x_0])]
    alone = codes.without_x_T()
    drawn = pipeline.sample(2, seed=0).z
    for shape, picture in zip([*alone.z, *drawn], [*x_0, empty[0], empty[0]], strict=True):
        asked = alone.replace(z=shape.expand(num, *shape.shape), style=codes.style)
        rows.append(torch.cat([picture[None], pipeline.decode(asked, keys=["one x_T"] * num, steps=steps)]))
    write(rows, output)


if __name__ == "__main__":
    app()
