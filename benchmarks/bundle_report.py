"""The figures in a bundle's card: reconstruction, what z says alone, distances of samples and of pictures
between two codes from real ones, probes, use of z, edits judged on pixels, and what a true edit would give.

    rdm data avatars train --n 20000 --seed 1 -q >train.txt
    rdm data avatars held-out --n 1000 --seed 2 -q >held-out.txt
    python benchmarks/bundle_report.py --bundle avatars64-diffae --train train --held-out held-out

Prints Markdown tables to stdout. With --json FILE every part's figures are kept in FILE, and a run that was
stopped goes on with the next; with --card README.md the tables take their place in the bundle's card. Each
part can be run alone with --part; the images are the first --num of the held-out folder, in order. Figures
kept as docs/figures/bundle-report/NAME.json are filled into the card by `make evidence` too, and a test holds
the card in step with them.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from report_tables import fill_card, keep_json, markdown
from torch import Tensor

from rdm_cli import Codes, Pipeline, open_pipeline
from rdm_cli.data.avatars import draw_avatar, render
from rdm_cli.data.counterfactuals import counterfactuals
from rdm_cli.data.labels import match, read_labels
from rdm_cli.evaluation.generation import features
from rdm_cli.metrics.distribution import kernel_distance
from rdm_cli.metrics.features import open_effnet_lite0
from rdm_cli.metrics.ranking import auroc, average_precision
from rdm_cli.metrics.reconstruction import mse, psnr, ssim
from rdm_cli.pipeline.sampling import sampling_way, way_up
from rdm_cli.runtime import set_up
from rdm_cli.training.diagnostics import swapped_z_losses
from rdm_cli.training.pixel_judge import PixelJudge, train_pixel_judge

JUDGED = ("smiling", "glasses", "sunglasses", "beard", "hat")
PARTS = ("own way", "distances", "true edits", "reconstruction", "probes", "swapped", "edits")
TRUE_EDITS = {"smiling": (1, 0), "glasses": (1, 0), "beard": (1, 0), "hat": (1,)}
"""Which attributes are added (1) and removed (0)."""
NUM_TRUE, MOST_TRUTHS = 32, 60


def load_folder(pipeline: Pipeline, folder: Path, num: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The first ``num`` images of a labelled folder, and their labels by name (NaN: not visible)."""
    table = read_labels(folder / "metadata.csv")
    names = list(table.files[:num])
    values = match(table, names).values
    images = pipeline.load_images([folder / name for name in names])
    return images, {name: values[:, k] for k, name in enumerate(table.names)}


def told(text: str) -> None:
    """Progress, to stderr."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def reconstruction_figures(pipeline: Pipeline, x_0: Tensor, num_long: int) -> dict[str, Any]:
    """PSNR, MSE and SSIM of DDIM both ways, for T = 20, and for T = 100 on the first ``num_long``."""
    figures: dict[str, Any] = {}

    def keep(codes: Codes, steps: int, kind: str, images: Tensor) -> None:
        decoded = pipeline.decode(codes, steps=steps)
        figures[f"T={steps}, {kind} x_T"] = {
            "num": len(images),
            "psnr_db": float(psnr(images, decoded).mean()),
            "mse": float(mse(images, decoded).mean()),
            "ssim": float(ssim(images, decoded).mean()),
        }
        told(f"T={steps}, {kind} x_T: {figures[f'T={steps}, {kind} x_T']}")

    keep(pipeline.encode(x_0, steps=20, inversion="ddim"), 20, "inferred", x_0)
    images = x_0[:num_long]
    codes = pipeline.encode(images, steps=100, inversion="ddim")
    keep(codes, 100, "inferred", images)
    keep(codes.without_x_T(), 100, "random", images)
    return figures


def own_way_figures(pipeline: Pipeline, x_0: Tensor, codes: Codes) -> dict[str, Any]:
    """PSNR and SSIM of codes by the bundle's own way up, and of z alone by its own way down."""
    up, down = way_up(pipeline.bundle).sampling, sampling_way(pipeline.bundle, None, None).sampling
    rows = {
        f"whole code, {up.solver} in {up.steps}": codes,
        f"z alone, random x_T, {down.solver} in {down.steps}": codes.without_x_T(),
    }
    figures = {}
    for name, given in rows.items():
        decoded = pipeline.decode(given)
        quality = psnr(x_0, decoded).clamp(max=200)
        figures[name] = {
            "num": len(x_0),
            "psnr_db": float(quality.mean()),
            "least_psnr_db": float(quality.min()),
            "ssim": float(ssim(x_0, decoded).mean()),
        }
        told(f"{name}: {figures[name]}")
    return figures


def distance_figures(pipeline: Pipeline, x_0: Tensor, codes: Codes) -> dict[str, Any]:
    """Kernel distances x 1000 from the first five eighths of the images, in EffNet-Lite0's features."""
    extractor = open_effnet_lite0()
    num = len(x_0) * 5 // 8
    real, others = features(extractor, x_0[:num]), codes.select(range(num, len(codes)))
    halves = [pipeline.interpolate(others[i], others[i - 1], [0.5]) for i in range(len(others))]
    kinds = {
        "other images": x_0[num:],
        "their z, random x_T": pipeline.decode(others.without_x_T()),
        "halfway from one to another": pipeline.decode(Codes.concatenate(halves)),
        "samples of the prior": pipeline.sample(len(others), output="pt"),
    }
    figures = {}
    for name, pictures in kinds.items():
        found = kernel_distance(real, features(extractor, pictures), seed=0)
        figures[name] = {
            "num": len(pictures),
            "num_real": num,
            "kd": 1000 * found.value,
            "low": 1000 * found.low,
            "high": 1000 * found.high,
        }
        told(f"{name}: {figures[name]}")
    return figures


def true_edit_figures(pipeline: Pipeline, seed: int) -> dict[str, Any]:
    """PSNR to the nearest true picture with the change: of the image, and of that picture's z with own x_T.

    The faces are those of :func:`rdm_cli.data.avatars.draw_avatar` of ``seed``.
    """
    figures = {}
    size = pipeline.bundle.model.image_size
    for name, values in TRUE_EDITS.items():
        for value in values:
            faces: list[Tensor] = []
            truths: list[Tensor] = []
            index = 0
            while len(faces) < NUM_TRUE:
                avatar, index = draw_avatar(seed, index), index + 1
                others = counterfactuals(avatar, name) if avatar.labels()[name] == 1 - value else ()
                if not others:
                    continue
                some = others[:: -(-len(others) // MOST_TRUTHS)]
                faces.append(pipeline.load_images(render(avatar, size))[0])
                truths.append(pipeline.load_images([render(other, size) for other in some]))
            x_0 = torch.stack(faces)
            quality = [psnr(face.expand_as(true), true) for face, true in zip(x_0, truths, strict=True)]
            best = torch.stack([true[int(q.argmax())] for true, q in zip(truths, quality, strict=True)])
            codes = pipeline.encode(x_0)
            made = pipeline.decode(codes.replace(z=pipeline.encode(best, with_x_T=False).z))
            figures[f"{name} {'added' if value else 'removed'}"] = {
                "num": len(x_0),
                "unedited_psnr_db": float(psnr(x_0, best).mean()),
                "own_x_T_psnr_db": float(psnr(made, best).mean()),
            }
            told(f"{name} to {value}: {list(figures.values())[-1]}")
    return figures


def probe_figures(pipeline: Pipeline, z: Tensor, labels: dict[str, Tensor]) -> dict[str, Any]:
    """AUROC and average precision of the bundle's stored directions on these codes."""
    directions = pipeline.bundle.directions
    logits = directions.logits(z)
    figures = {}
    for k, name in enumerate(directions.names):
        known = ~labels[name].isnan()
        target = labels[name][known] > 0
        scores = logits[known, k]
        figures[name] = {
            "auroc": float(auroc(scores, target)),
            "average_precision": float(average_precision(scores, target)),
            "num_positive": int(target.sum()),
            "num_labelled": int(known.sum()),
        }
    return figures


def swapped_figures(pipeline: Pipeline, x_0: Tensor) -> dict[str, Any]:
    """Loss with own and with a neighbour's z at several t, mean over batches of 50."""
    totals: dict[int, list[tuple[float, float]]] = {}
    for i, part in enumerate(x_0.split(50)):
        if len(part) < 2:
            continue
        for t, pair in swapped_z_losses(pipeline.bundle.model, part, seed=i).items():
            totals.setdefault(t, []).append(pair)
    figures = {}
    for t, pairs in totals.items():
        own, other = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        figures[str(t)] = {"own": own, "swapped": other, "ratio": other / own}
    return figures


def edit_figures(
    pipeline: Pipeline,
    judge: PixelJudge,
    codes: Codes,
    labels: dict[str, Tensor],
    *,
    scales: list[float],
    num_for_scales: int,
) -> dict[str, Any]:
    """How often moving ``smiling`` shows, and how often the other attributes keep their label.

    The scale 0.3 is judged on all faces that do not smile, the others on the first
    ``num_for_scales``; negative scales on faces that do.
    """
    figures: dict[str, Any] = {}
    for scale in sorted({0.3, *scales}):
        starts = labels["smiling"] == (0 if scale > 0 else 1)
        rows = starts.nonzero()[:, 0]
        rows = rows if scale == 0.3 else rows[:num_for_scales]
        chosen = codes.select(rows.tolist())
        shown = judge.labels(pipeline.decode(pipeline.manipulate(chosen, {"smiling": scale})))
        row: dict[str, Any] = {"num": len(rows)}
        for k, name in enumerate(judge.names):
            truth = labels[name][rows] > 0
            agrees = float((shown[:, k] == truth).float().mean())
            row[name] = 1 - agrees if name == "smiling" else agrees
        figures[f"{scale:+g}"] = row
        told(f"scale {scale:+g}: {row}")
    return figures


def known_figures(json_file: Path | None, wanted: dict[str, Any]) -> dict[str, Any]:
    """What ``json_file`` holds already of the same bundle, images and arithmetic, or just ``wanted``."""
    if json_file is None or not json_file.exists():
        return wanted
    found: dict[str, Any] = json.loads(json_file.read_text(encoding="utf-8"))
    return found if all(found.get(name) == value for name, value in wanted.items()) else wanted


def pixels_digest(x_0: Tensor) -> str:
    """SHA-256 of the images' levels, as they are measured."""
    return hashlib.sha256(((x_0 + 1) * 127.5).round().byte().numpy().tobytes()).hexdigest()


def main(
    train: Annotated[Path, typer.Option(help="Labelled avatars for the judge, of another seed.")],
    held_out: Annotated[Path, typer.Option(help="Labelled avatars to measure on.")],
    bundle: Annotated[str, typer.Option(help="The bundle.")] = "avatars64-diffae",
    num: Annotated[int, typer.Option(help="Held-out images.")] = 1000,
    num_long: Annotated[int, typer.Option(help="How many of them T = 100 is measured on.")] = 500,
    num_train: Annotated[int, typer.Option(help="Images the judge learns from.")] = 12000,
    num_for_scales: Annotated[int, typer.Option(help="Faces for scales other than 0.3.")] = 100,
    scales: Annotated[str, typer.Option(help="Scales of the edit's table.")] = "-0.3,0.1,0.2,0.4,0.5",
    seed: Annotated[int, typer.Option(help="Of the faces that true edits are drawn of.")] = 20261127,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    part: Annotated[list[str] | None, typer.Option(help=f"Any of {', '.join(PARTS)}.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Keep the figures here; what it has is not measured again.")
    ] = None,
    card: Annotated[Path | None, typer.Option(help="A card in which to replace the tables.")] = None,
) -> None:
    """Measure, and print the tables."""
    wanted = part or list(PARTS)
    pipeline = open_pipeline(bundle, device=set_up(), precision=precision, batch_size=40)  # type: ignore[arg-type]
    x_0, labels = load_folder(pipeline, held_out, num)
    figures = known_figures(
        json_file,
        {
            "bundle": pipeline.bundle.name,
            "digest": pipeline.bundle.digest,
            "num_held_out": len(x_0),
            "num_long": num_long,
            "num_train": num_train,
            "num_for_scales": num_for_scales,
            "scales": scales,
            "images": pixels_digest(x_0),
            "precision": precision,
        },
    )

    def keep(name: str, found: dict[str, Any]) -> None:
        figures[name] = found
        if json_file is not None:
            keep_json(json_file, figures)

    if "probes" in wanted and "probes" not in figures:
        keep("probes", probe_figures(pipeline, pipeline.encode(x_0, with_x_T=False).z, labels))
    if "swapped" in wanted and "swapped" not in figures:
        keep("swapped", swapped_figures(pipeline, x_0[:500]))
    if "reconstruction" in wanted and "reconstruction" not in figures:
        keep("reconstruction", reconstruction_figures(pipeline, x_0, num_long))
    if "true edits" in wanted and "true edits" not in figures:
        keep("true edits", true_edit_figures(pipeline, seed))
    needing = {"own way": own_way_figures, "distances": distance_figures}
    left = [name for name in ("own way", "distances", "edits") if name in wanted and name not in figures]
    codes = pipeline.encode(x_0) if left else None
    for name, measured in needing.items():
        if name in left and codes is not None:
            keep(name, measured(pipeline, x_0, codes))
    if "edits" in left and codes is not None:
        told("training the judge")
        images, known = load_folder(pipeline, train, num_train)
        judge = train_pixel_judge(images, torch.stack([known[name] for name in JUDGED], dim=1), JUDGED)
        agreement = (judge.labels(x_0) == torch.stack([labels[n] > 0 for n in JUDGED], dim=1)).float()
        keep("judge_accuracy", dict(zip(JUDGED, agreement.mean(dim=0).tolist(), strict=True)))
        found = edit_figures(
            pipeline,
            judge,
            codes,
            labels,
            scales=[float(s) for s in scales.split(",")],
            num_for_scales=num_for_scales,
        )
        keep("edits", found)
    print(markdown(figures))
    if card is not None:
        fill_card(card, figures)


if __name__ == "__main__":
    typer.run(main)
