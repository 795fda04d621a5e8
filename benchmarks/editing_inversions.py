"""Which way up is enough? For each inversion and number of steps: does a code bring the image back, does it
edit, what lies halfway between two, and is its x_T like noise?

    rdm data avatars train --n 12000 --seed 1 -q >train.txt
    rdm data avatars held-out --n 1000 --seed 2 -q >held-out.txt
    python benchmarks/editing_inversions.py avatars64-diffae avatars64-pdae \
        --train train --held-out held-out \
        --sheet docs/figures/editing-inversions.jpg --markdown docs/performance.md

For each way the same faces are encoded and moved along `smiling`, by each scale; a CNN on pixels, which
never saw a code, says how often the edit shows and how often the other attributes stay. A smile changes
nothing above the mouth, so how far the edited picture is from the image there is change that nobody asked
for. PSNR is that of the codes as they are. The pictures halfway from each face to the next are compared with
real ones. Prints Markdown tables to stdout. The sheet has, for the first faces of the first bundle, the image
and then for some of the ways its reconstruction, the edits, and the picture halfway to the next face.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from bundle_report import JUDGED, load_folder, told
from noise_statistics import noise_statistics
from report_tables import PageOption, keep_json, publish, refuse_unmarked, table
from torch import Tensor

from rdm_cli import Codes, Pipeline, open_pipeline
from rdm_cli.data.images.pixels import grid, to_pil
from rdm_cli.data.images.record import new_record, save_image
from rdm_cli.evaluation.generation import features
from rdm_cli.metrics.distribution import kernel_distance
from rdm_cli.metrics.features import open_effnet_lite0
from rdm_cli.metrics.reconstruction import psnr
from rdm_cli.pipeline.effort import Effort
from rdm_cli.runtime import set_up
from rdm_cli.training.pixel_judge import PixelJudge, train_pixel_judge

SCRIPT = "editing_inversions"
ATTRIBUTE = "smiling"
ABOVE = 0.5  # of the height: avatars have their mouths below
STEPS = (2, 3, 4, 5, 6, 8, 10, 19)
EFFORTS = {
    **{f"exact, {n}": Effort(inversion="exact", steps=n) for n in STEPS},
    **{f"fixed-point, {n}": Effort(inversion="fixed-point", steps=n) for n in STEPS},
    **{f"ddim, {n}": Effort(inversion="ddim", steps=n) for n in (20, 100)},
}
ON_THE_SHEET = ("exact, 4", "exact, 10", "fixed-point, 10", "ddim, 20")


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
    pipeline: Pipeline,
    judge: PixelJudge,
    x_0: Tensor,
    labels: dict[str, Tensor],
    scales: list[float],
    real: Tensor,
    ways: list[str],
) -> tuple[dict[str, Any], dict[str, list[Tensor]]]:
    """For each way its figures, and rows of the sheet: reconstruction, edits, halfway to the next.

    ``real`` are features of real pictures; ``ways`` those of :data:`EFFORTS` that are measured.
    """
    figures, rows = {}, {}
    extractor = open_effnet_lite0()
    for name in ways:
        effort = EFFORTS[name]
        codes = pipeline.encode(x_0, **asdict(effort))
        assert codes.x_T is not None
        back = pipeline.decode(codes)
        edited = {s: pipeline.decode(pipeline.manipulate(codes, {ATTRIBUTE: s})) for s in scales}
        between = halfway(pipeline, codes)
        quality = psnr(x_0, back).clamp(max=200)
        way = effort.way(pipeline.bundle)
        figures[name] = {
            "effort": asdict(effort),
            "calls": way.calls_up + way.calls_down,
            "psnr_db": float(quality.mean()),
            "worst_psnr_db": float(quality.min()),
            "x_T": {k: float(v.mean()) for k, v in noise_statistics(codes.x_T)._asdict().items()},
            "levels_above": levels_above(x_0, back),
            "halfway_kd": 1000 * kernel_distance(real, features(extractor, between), seed=0).value,
            "edits": {
                f"{s:+g}": {"levels_above": levels_above(x_0, pictures), **judged(judge, pictures, labels)}
                for s, pictures in edited.items()
            },
        }
        told(f"{name}: {figures[name]}")
        if name in ON_THE_SHEET:
            rows[name] = [back, *edited.values(), between]
    return figures, rows


def rows_shown(x_0: Tensor) -> Tensor:
    """The faces on the sheet."""
    return x_0[:8]


def halfway(pipeline: Pipeline, codes: Codes) -> Tensor:
    """What lies between each of the codes and the next, decoded as these are: as well as their x_T mix."""
    middles = [pipeline.interpolate(codes[i], codes[(i + 1) % len(codes)], [0.5]) for i in range(len(codes))]
    return pipeline.decode(Codes.concatenate(middles).replace(infos=codes.infos))


def markdown(figures: dict[str, Any], title: str, num: int) -> str:
    """A table, a way a row."""
    scales = list(next(iter(figures.values()))["edits"])
    rows = []
    for name, f in figures.items():
        x_T = f["x_T"]
        row = [name, str(f["calls"]), f"{f['worst_psnr_db']:.1f}", f"{f['psnr_db']:.1f}"]
        row += [f"{x_T[part]:.3f}" for part in ("mean", "std", "horizontal", "vertical")]
        for scale in scales:
            edit = f["edits"][scale]
            kept = min(edit[other] for other in JUDGED if other != ATTRIBUTE)
            row += [f"{100 * edit[ATTRIBUTE]:.1f} %", f"{100 * kept:.1f} %", f"{edit['levels_above']:.2f}"]
        rows.append((*row, f"{f['halfway_kd']:.1f}"))
    header = ["way, steps", "calls", "PSNR, worst", "mean", "x_T's mean", "std", "h", "v"]
    for scale in scales:
        header += [f"{ATTRIBUTE} {scale}: flipped", "worst kept", "levels off above"]
    return f"{title}, {num} faces that do not smile.\n\n{table((*header, 'halfway KD'), rows)}"


def main(
    bundles: Annotated[list[str], typer.Argument(help="The bundles.")],
    train: Annotated[Path, typer.Option(help="Labelled avatars for the judge, of another seed.")],
    held_out: Annotated[Path, typer.Option(help="Labelled avatars to edit.")],
    num: Annotated[int, typer.Option("--n", help="Faces, the first that do not smile.")] = 100,
    num_train: Annotated[int, typer.Option(help="Images the judge learns from.")] = 12000,
    scales: Annotated[str, typer.Option(help="Those of the edit.")] = "0.1,0.3",
    way: Annotated[list[str] | None, typer.Option(help=f"Any of: {'; '.join(EFFORTS)}.")] = None,
    precision: Annotated[str, typer.Option(help="fp32 or bf16, of the networks.")] = "fp32",
    sheet: Annotated[Path | None, typer.Option(help="Draw the sheet here.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the figures here.")] = None,
    page: PageOption = None,
) -> None:
    """Measure, draw, and print the tables."""
    refuse_unmarked(page, SCRIPT)
    device = set_up()
    kept: dict[str, Any] = {}
    tables = []
    for bundle in bundles:
        pipeline = open_pipeline(bundle, device=device, batch_size=40, precision=precision)  # type: ignore[arg-type]
        images, labels = load_folder(pipeline, train, num_train)
        judge = train_pixel_judge(images, torch.stack([labels[n] for n in JUDGED], dim=1), JUDGED)
        x_0, known = load_folder(pipeline, held_out, 4 * num)
        chosen = (known[ATTRIBUTE] == 0).nonzero()[:num, 0]
        real = features(open_effnet_lite0(), x_0)
        x_0, known = x_0[chosen], {name: values[chosen] for name, values in known.items()}
        figures, rows = figures_of(
            pipeline, judge, x_0, known, [float(s) for s in scales.split(",")], real, way or list(EFFORTS)
        )
        kept[bundle] = {"digest": pipeline.bundle.digest, "num": len(x_0), "figures": figures}
        if json_file is not None:
            keep_json(json_file, {"scales": scales, "precision": precision, "bundles": kept})
        if sheet is not None and bundle == bundles[0]:
            shown = len(rows_shown(x_0))
            lines = [rows_shown(x_0), *(row[:shown] for block in rows.values() for row in block)]
            pictures = [to_pil(picture) for line in lines for picture in line]
            save_image(grid(pictures, shown), sheet, new_record("figure"))
        title = f"{bundle} (`{pipeline.bundle.digest[:12]}`, {precision})"
        tables.append(markdown(figures, title, len(x_0)))
    publish("\n\n".join(tables), page, SCRIPT)


if __name__ == "__main__":
    typer.run(main)
