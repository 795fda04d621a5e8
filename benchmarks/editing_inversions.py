"""Do codes of each inversion still edit? Edits and a halfway point from ddim, fixed-point and exact codes.

    rdm data avatars train --n 20000 --seed 1 -q >train.txt
    rdm data avatars held-out --n 1000 --seed 2 -q >held-out.txt
    python benchmarks/editing_inversions.py --train train --held-out held-out \
        --sheet docs/figures/editing-inversions.jpg --markdown docs/performance.md

For each inversion the same faces are encoded and moved along `smiling`, by each scale; a CNN on pixels, which
never saw a code, says how often the edit shows and how often the other attributes stay. A smile changes
nothing above the mouth, so how far the edited picture is from the image there is change that nobody asked
for. PSNR is that of the codes as they are. Prints a Markdown table to stdout. The sheet has, for the first
faces, the image and then for each inversion its reconstruction, the edits, and the picture halfway to the
next face.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from bundle_report import JUDGED, load_folder, told
from report_tables import PageOption, keep_json, publish, refuse_unmarked, table
from torch import Tensor

from rdm_cli import Codes, Pipeline, open_pipeline
from rdm_cli.data.images.pixels import grid, to_pil
from rdm_cli.data.images.record import new_record, save_image
from rdm_cli.metrics.reconstruction import psnr
from rdm_cli.pipeline.effort import Effort, encode_by
from rdm_cli.pipeline.running import ignore_progress
from rdm_cli.runtime import set_up
from rdm_cli.training.pixel_judge import PixelJudge, train_pixel_judge

SCRIPT = "editing_inversions"
ATTRIBUTE = "smiling"
ABOVE = 0.5  # of the height: avatars have their mouths below
EFFORTS = {
    "ddim, 100 steps": Effort(steps=100),
    "ddim, 20 steps": Effort(steps=20),
    "fixed-point": Effort(inversion="fixed-point"),
    "exact": Effort(inversion="exact"),
}


def judged(judge: PixelJudge, pictures: Tensor, labels: dict[str, Tensor]) -> dict[str, float]:
    """The share of pictures that show the moved attribute, and of those that keep each other one."""
    shown = judge.labels(pictures)
    found = {}
    for k, name in enumerate(judge.names):
        agrees = float((shown[:, k] == (labels[name] > 0)).float().mean())
        found[name] = 1 - agrees if name == ATTRIBUTE else agrees
    return found


def levels_above(x_0: Tensor, pictures: Tensor) -> float:
    """Mean absolute difference of 8-bit levels between images and pictures, above the mouth."""
    height = round(ABOVE * x_0.shape[-2])
    difference = (x_0 - pictures.clamp(-1, 1))[..., :height, :].abs()
    return float(difference.mean()) * 127.5


def figures_of(
    pipeline: Pipeline, judge: PixelJudge, x_0: Tensor, labels: dict[str, Tensor], scales: list[float]
) -> tuple[dict[str, Any], dict[str, list[Tensor]]]:
    """For each inversion its figures, and rows of the sheet: reconstruction, edits, halfway to the next."""
    figures, rows = {}, {}
    for name, effort in EFFORTS.items():
        codes = encode_by(pipeline, x_0, [None] * len(x_0), effort, ignore_progress)
        back = pipeline.decode(codes)
        edited = {s: pipeline.decode(pipeline.manipulate(codes, {ATTRIBUTE: s})) for s in scales}
        quality = psnr(x_0, back)
        figures[name] = {
            "effort": asdict(effort),
            "psnr_db": float(quality.clamp(max=200).mean()),
            "worst_psnr_db": float(quality.clamp(max=200).min()),
            "levels_above": levels_above(x_0, back),
            "edits": {
                f"{s:+g}": {"levels_above": levels_above(x_0, pictures), **judged(judge, pictures, labels)}
                for s, pictures in edited.items()
            },
        }
        told(f"{name}: {figures[name]}")
        rows[name] = [back, *edited.values(), halfway(pipeline, codes, len(rows_shown(x_0)))]
    return figures, rows


def rows_shown(x_0: Tensor) -> Tensor:
    """The faces on the sheet."""
    return x_0[:8]


def halfway(pipeline: Pipeline, codes: Codes, num: int) -> Tensor:
    """What lies between each of the first ``num`` codes and the next one."""
    middles = [pipeline.interpolate(codes[i], codes[(i + 1) % num], [0.5], path="lerp") for i in range(num)]
    return pipeline.decode(Codes.concatenate(middles))


def markdown(figures: dict[str, Any], num: int) -> str:
    """A table, an inversion a row."""
    others = [name for name in JUDGED if name != ATTRIBUTE]
    rows = [
        (
            name,
            f"{f['psnr_db']:.1f}",
            scale,
            *(f"{100 * edit[a]:.1f} %" for a in (ATTRIBUTE, *others)),
            f"{f['levels_above']:.2f}",
            f"{edit['levels_above']:.2f}",
        )
        for name, f in figures.items()
        for scale, edit in f["edits"].items()
    ]
    header = (
        *("code", "PSNR (dB)", "scale", f"{ATTRIBUTE} flipped", *(f"{a} kept" for a in others)),
        *("levels off above the mouth, unedited", "edited"),
    )
    return f"{num} faces that do not smile.\n\n{table(header, rows)}"


def main(
    train: Annotated[Path, typer.Option(help="Labelled avatars for the judge, of another seed.")],
    held_out: Annotated[Path, typer.Option(help="Labelled avatars to edit.")],
    bundle: Annotated[str, typer.Option(help="The bundle.")] = "avatars64-diffae",
    num: Annotated[int, typer.Option("--n", help="Faces, the first that do not smile.")] = 100,
    num_train: Annotated[int, typer.Option(help="Images the judge learns from.")] = 12000,
    scales: Annotated[str, typer.Option(help="Those of the edit.")] = "0.3,1",
    sheet: Annotated[Path | None, typer.Option(help="Draw the sheet here.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the figures here.")] = None,
    page: PageOption = None,
) -> None:
    """Measure, draw, and print the table."""
    refuse_unmarked(page, SCRIPT)
    pipeline = open_pipeline(bundle, device=set_up(), batch_size=40)
    images, labels = load_folder(pipeline, train, num_train)
    judge = train_pixel_judge(images, torch.stack([labels[n] for n in JUDGED], dim=1), JUDGED)
    x_0, known = load_folder(pipeline, held_out, 4 * num)
    chosen = (known[ATTRIBUTE] == 0).nonzero()[:num, 0]
    x_0, known = x_0[chosen], {name: values[chosen] for name, values in known.items()}
    figures, rows = figures_of(pipeline, judge, x_0, known, [float(s) for s in scales.split(",")])
    if json_file is not None:
        stamp = {"digest": pipeline.bundle.digest, "num": len(x_0), "scales": scales}
        keep_json(json_file, stamp | {"figures": figures})
    if sheet is not None:
        shown = len(rows_shown(x_0))
        lines = [rows_shown(x_0), *(row[:shown] for block in rows.values() for row in block)]
        save_image(
            grid([to_pil(picture) for line in lines for picture in line], shown), sheet, new_record("figure")
        )
    publish(markdown(figures, len(x_0)), page, SCRIPT)


if __name__ == "__main__":
    typer.run(main)
