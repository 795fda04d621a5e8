"""How long it takes to bring an image there and back at 30, 40 and 50 dB, and without any loss.

    rdm data avatars held-out --n 1000 --seed 2 -q >held-out.txt
    python benchmarks/time_to_quality.py --images held-out --markdown docs/performance.md

The published recipe is DDIM with 250 steps up and 100 down, even in t, in fp32. Against it stand rdm's
inversions in either precision. Each alternative encodes and decodes the same images once a round; its PSNR
is that of the float images. A level's row is the fastest alternative that reaches it in the mean over the
images. The last row is the fastest that restores every pixel of all images, rounded to 8 bits, without any
residual.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from interleaved import Seconds, ratio_text, timed_side_by_side
from report_tables import WIDTH, PageOption, keep_json, publish, refuse_unmarked, table
from torch import Tensor

from rdm_cli import Codes, Pipeline, open_pipeline
from rdm_cli.bundles.bundle import Bundle
from rdm_cli.kernels.schedules import Spacing
from rdm_cli.runtime import set_up

SCRIPT = "time_to_quality"
LEVELS = (30, 40, 50)
NO_DIFFERENCE_DB = 150
"""Beyond this the tables say so: what is left lies below the last digit of a float32."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An ``inversion`` in ``steps`` up and ``steps_down`` (None: as many), and its iterations.

    ``spacing`` None is what rdm takes.
    """

    inversion: str
    steps: int
    precision: str = "fp32"
    steps_down: int | None = None
    iterations: int | None = None
    spacing: Spacing | None = None

    @property
    def title(self) -> str:
        """What the table calls it."""
        down = "" if self.steps_down is None else f" up, {self.steps_down} down"
        each = "" if self.iterations is None else f" x {self.iterations}"
        even = "" if self.spacing is None else " even in t"
        return f"{self.inversion}, {self.steps}{each}{down}{even}, {self.precision}"


PUBLISHED = Recipe(inversion="ddim", steps=250, steps_down=100, spacing="stride")
RECIPES = (
    *(Recipe(inversion="ddim", steps=n, precision=p) for p in ("fp32", "bf16") for n in (10, 20, 40, 100)),
    *(
        Recipe(inversion="fixed-point", steps=n, iterations=k, precision=p)
        for p in ("fp32", "bf16")
        for n, k in ((6, 2), (8, 2), (10, 2), (10, 3))
    ),
    *(Recipe(inversion="exact", steps=n, precision=p) for p in ("fp32", "bf16") for n in (10, 19)),
)


def coded(pipeline: Pipeline, recipe: Recipe, x_0: Tensor) -> Tensor:
    """There and back."""
    used = replace(pipeline, precision=recipe.precision)  # type: ignore[arg-type]
    if recipe.spacing is not None:
        used = replace(used, bundle=spaced(pipeline.bundle, recipe.spacing))
    codes: Codes = used.encode(
        x_0, steps=recipe.steps, inversion=recipe.inversion, iterations=recipe.iterations
    )
    return used.decode(codes, steps=recipe.steps_down)


def spaced(bundle: Bundle, spacing: Spacing) -> Bundle:
    """The same networks on other timesteps."""
    model: Any = copy(bundle.model)
    model.config = replace(model.config, sampling=model.sampling.spaced(spacing))
    return replace(bundle, model=model)


def mean_psnr_db(x_0: Tensor, back: Tensor) -> float:
    """Mean over the images of the PSNR in dB, in float64."""
    errors = ((back.double() - x_0.double()) / 2).square().mean(dim=(1, 2, 3))
    return float((-10 * errors.clamp(min=1e-30).log10()).mean())


def told_db(psnr_db: float) -> str:
    """A PSNR as the tables have it."""
    return f"> {NO_DIFFERENCE_DB}" if psnr_db > NO_DIFFERENCE_DB else f"{psnr_db:.1f}"


def share_restored(x_0: Tensor, back: Tensor) -> float:
    """The share of the images of which every pixel is restored, as 8 bits."""
    same = ((127.5 * (back - x_0)).round() == 0).flatten(1).all(dim=1)
    return float(same.float().mean())


def markdown(
    seconds: Seconds, reached: dict[str, float], restored: dict[str, float], *, told: str, images: int
) -> str:
    """The levels' table, then that of all alternatives."""
    first = PUBLISHED.title
    goals = {f"{level} dB": [name for name, found in reached.items() if found >= level] for level in LEVELS}
    goals["every pixel"] = [name for name, share in restored.items() if share == 1]
    levels = []
    for goal, able in goals.items():
        if not able:
            levels.append((goal, "none of these", "", "", "", ""))
            continue
        best = min(able, key=lambda name: median(seconds[name]))
        levels.append(
            (
                goal,
                best,
                told_db(reached[best]),
                f"{100 * restored[best]:.0f} %",
                f"{median(seconds[best]) / images:.3f}",
                ratio_text(seconds, best, first),
            )
        )
    rows = [
        (
            name,
            told_db(reached[name]),
            f"{100 * restored[name]:.0f} %",
            f"{median(found) / images:.3f}",
            ratio_text(seconds, name, first),
        )
        for name, found in sorted(seconds.items(), key=lambda pair: median(pair[1]))
    ]
    header = ("PSNR (dB)", "restored to the pixel", "s/image", "times the published recipe")
    fastest = table(("to reach", "fastest", *header), levels)
    everything = table(("inversion, steps, precision", *header), rows)
    return f"{textwrap.fill(told, WIDTH)}\n\n{fastest}\n\n{everything}"


def main(
    images: Annotated[Path, typer.Option(help="A folder of images that the bundle was not trained on.")],
    bundle: Annotated[str, typer.Option(help="The bundle.")] = "avatars64-diffae",
    n: Annotated[int, typer.Option(help="How many of the images, in order of their names.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that are counted.")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once.")] = 16,
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 2,
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the figures here.")] = None,
    page: PageOption = None,
) -> None:
    """Measure, and print the tables."""
    refuse_unmarked(page, SCRIPT)
    pipeline = open_pipeline(bundle, batch_size=batch_size, device=set_up(device="cpu", threads=threads))
    x_0 = pipeline.load_images(sorted(images.glob("*.png"))[:n])
    reached: dict[str, float] = {}
    restored: dict[str, float] = {}

    def run(recipe: Recipe) -> Callable[[], object]:
        def code() -> None:
            back = coded(pipeline, recipe, x_0)
            reached[recipe.title] = mean_psnr_db(x_0, back)
            restored[recipe.title] = share_restored(x_0, back)

        return code

    alternatives = {recipe.title: run(recipe) for recipe in (PUBLISHED, *RECIPES)}
    seconds = timed_side_by_side(alternatives, rounds=rounds)
    told = (
        f"{pipeline.bundle.name}, {len(x_0)} held-out images in batches of {batch_size}, {threads} CPU "
        f"threads, {rounds} rounds: seconds by the median round, ratios as median (least to greatest) of the "
        "rounds' own. PSNR is of the float images, mean over them."
    )
    tables = markdown(seconds, reached, restored, told=told, images=len(x_0))
    publish(tables, page, SCRIPT)
    if json_file is not None:
        found: dict[str, Any] = {"bundle": pipeline.bundle.digest, "num": len(x_0)}
        found |= {"psnr_db": reached, "restored": restored, "seconds": seconds}
        keep_json(json_file, found)


if __name__ == "__main__":
    typer.run(main)
