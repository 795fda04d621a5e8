"""Does a bundle tell images that it was not trained for? The share of each kind that is called outside.

    python benchmarks/outside.py avatars64-diffae avatars64-pdae avatars128-lrdm \\
        --markdown docs/performance.md

Beside the held-out avatars: photographs (those that scikit-image comes with, each whole and in nine crops at
random), noise, plain colours, and faces in three other drawing styles. Prints a Markdown table to stdout.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from report_tables import PageOption, publish, refuse_unmarked, table

from rdm_cli import open_pipeline
from rdm_cli.data.avatars import draw_avatar, render
from rdm_cli.runtime import set_up

SCRIPT = "outside"
PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png",
    "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png",
    "retina.jpg", "rocket.jpg",
)  # fmt: skip
STYLES = ("toon-head", "micah", "open-peeps")
NUM_CROPS, NUM_OTHERS = 9, 100


def photographs(random: np.random.Generator) -> Iterator[Image.Image]:
    """Each photograph whole, and square parts of it of 64 pixels and more."""
    import skimage.data

    for name in PHOTOGRAPHS:
        image = Image.open(Path(skimage.data.__file__).parent / name).convert("RGB")
        yield image
        least = min(image.size)
        for _ in range(NUM_CROPS):
            side = int(random.integers(min(64, least), least + 1))
            x, y = (int(random.integers(0, length - side + 1)) for length in image.size)
            yield image.crop((x, y, x + side, y + side))


def noise(random: np.random.Generator, size: int) -> Iterator[Image.Image]:
    """Noise that is even in [0, 255], and Gaussian noise around grey."""
    for i in range(NUM_OTHERS):
        pixels = random.integers(0, 256, (size, size, 3)) if i % 2 else random.normal(128, i, (size, size, 3))
        yield Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def plain(random: np.random.Generator, size: int) -> Iterator[Image.Image]:
    """Images of one colour."""
    for _ in range(NUM_OTHERS):
        red, green, blue = (int(v) for v in random.integers(0, 256, 3))
        yield Image.new("RGB", (size, size), (red, green, blue))


def drawn(style: str, size: int) -> Iterator[Image.Image]:
    """Faces in another ``style`` of dicebear's."""
    import dicebear
    import resvg_py

    described = json.loads(files("dicebear_styles").joinpath(f"{style}.json").read_text("utf-8"))
    for i in range(NUM_OTHERS):
        options = {"seed": f"face {i}", "backgroundColor": ["b6e3f4", "c0aede", "ffffff"]}
        face = dicebear.Avatar(dicebear.Style(described), options).to_json()
        png = resvg_py.svg_to_bytes(svg_string=face["svg"], width=size, height=size, skip_system_fonts=True)
        yield Image.open(io.BytesIO(bytes(png))).convert("RGB")


def main(
    bundles: Annotated[list[str], typer.Argument(help="Bundles of avatars.")],
    num: Annotated[int, typer.Option("--n", help="Avatars, which are drawn on the spot.")] = 1000,
    seed: Annotated[
        int, typer.Option(help="Their seed: one that the bundles were not trained on.")
    ] = 20261127,
    page: PageOption = None,
) -> None:
    """Measure, and print the table."""
    refuse_unmarked(page, SCRIPT)
    device = set_up()
    rows = []
    for bundle in bundles:
        pipeline = open_pipeline(bundle, device=device, on_remark=lambda name, text: None)
        domain, size = pipeline.bundle.domain, pipeline.bundle.model.image_size
        if domain is None:
            raise typer.BadParameter(f"{bundle}: does not say what its training images look like")
        random = np.random.default_rng(0)
        kinds: dict[str, list[Any]] = {
            "held-out avatars": [render(draw_avatar(seed, i), size) for i in range(num)],
            "photographs": list(photographs(random)),
            "noise": list(noise(random, size)),
            "plain colours": list(plain(random, size)),
            **{style: list(drawn(style, size)) for style in STYLES},
        }
        for kind, images in kinds.items():
            distances = domain.distances(pipeline.encode(images, with_x_T=False).z)
            share = float((distances > domain.limit).float().mean())
            least, median, most = (float(q) for q in torch.quantile(distances, torch.tensor([0.0, 0.5, 1.0])))
            row = (bundle, kind, str(len(images)), f"{100 * share:.1f} %", f"{least:.1f}", f"{median:.1f}")
            rows.append((*row, f"{most:.1f}", f"{domain.limit:.1f}"))
    header = ("bundle", "images", "number", "outside", "least distance", "median", "greatest", "limit")
    publish(table(header, rows), page, SCRIPT)


if __name__ == "__main__":
    typer.run(main)
