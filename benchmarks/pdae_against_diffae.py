"""PDAE's claim, tested: does it reconstruct better than Diff-AE after fewer training images?

    rdm data avatars train --n 40000 --seed 1 -q >train.txt
    rdm data avatars held-out --n 1000 --seed 2 -q >held-out.txt
    python benchmarks/pdae_against_diffae.py --train train --held-out held-out \
        --dpm my-dpm --dpm-images 320000 -o runs/against --figures docs/figures

Trains both on the same images with the same recipe, at a constant rate, with Diff-AE's encoder for both;
stops each at the same numbers of images seen and measures it on the same held-out images: DDIM there and
back with z alone (random x_T) and with inferred x_T. Draws the error over the images seen, once without and
once with those that pretraining the DPM took. What is done already is not done again. With --figures the
figures and plots are kept in that folder too, from where docs/evidence.md takes them.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from report_tables import keep_json

from rdm_cli import open_pipeline
from rdm_cli.data.sources.folders import find_inputs
from rdm_cli.methods.diffae.presets import PRESETS as DIFFAE_PRESETS
from rdm_cli.metrics.reconstruction import mse, psnr
from rdm_cli.reports.plots import Line, Plot, save_plot
from rdm_cli.runtime import set_up
from rdm_cli.training.checkpoint import FILE_NAME
from rdm_cli.training.run.plan import RunPlan, TrainOptions, make_accelerator, make_plan
from rdm_cli.training.run.run import TrainingRun

TITLES = {"diffae": "Diff-AE", "pdae": "PDAE"}


def plan_to(method: str, num_images: int, out: Path, train: Path, dpm: str, precision: str) -> RunPlan:
    """A plan that starts ``method``, or goes on, until ``num_images`` were seen."""
    run_folder = out / f"run-{method}"
    resume = (run_folder / FILE_NAME).exists()
    recipe: dict[str, Any] = {} if resume else {"decay_fraction": 0.0, "flip": False, "seed": 1}
    options = TrainOptions(
        method=method,
        folder=train,
        bundle=out / f"{method}-{num_images}",
        run_folder=run_folder,
        preset="small64",
        num_images=num_images,
        resume=resume,
        pretrained=dpm if method == "pdae" else None,
        mixed_precision=precision,
        sheet_minutes=None,
        **recipe,
    )
    plan = make_plan(options, num_processes=1, on_cpu=True, command=" ".join(sys.argv))
    if method == "pdae" and not resume:
        encoder = DIFFAE_PRESETS["small64"].config.encoder
        plan = dataclasses.replace(plan, config=dataclasses.replace(plan.config, encoder=encoder))
    return plan


def train_to(plan: RunPlan) -> None:
    """Run a plan to its end, telling how it goes."""
    accelerator = make_accelerator(
        device="cpu", threads=None, mixed_precision=plan.mixed_precision, tracker_folder=None
    )
    for record in TrainingRun(plan, accelerator, told).steps():
        if record.step % 200 == 0:
            told(f"{plan.method.name}: {record.num_images:,} images, loss {record.loss:.4f}")


def told(text: str) -> None:
    """Progress, to stderr."""
    print(text, file=sys.stderr, flush=True)


def measure(bundle: Path, images: list[Path], steps: int) -> dict[str, Any]:
    """Mean MSE and PSNR with inferred and with random x_T, and half the width of the MSE's 95 % interval."""
    pipeline = open_pipeline(str(bundle), device=set_up(), batch_size=40)
    x_0 = pipeline.load_images(images)
    codes = pipeline.encode(x_0, steps=steps)
    figures = {}
    for kind, given in (("inferred", codes), ("random", codes.without_x_T())):
        decoded = pipeline.decode(given, steps=steps)
        errors = mse(x_0, decoded)
        figures[kind] = {
            "mse": float(errors.mean()),
            "half_width": 1.96 * float(errors.std()) / len(errors) ** 0.5,
            "psnr_db": float(psnr(x_0, decoded).mean()),
        }
    model: Any = pipeline.bundle.model
    figures["encoder_parameters"] = sum(p.numel() for p in model.encoder.parameters())
    return figures


def keep(results: dict[str, Any], folder: Path, *, dpm_images: int, num_held_out: int, steps: int) -> None:
    """Write the figures with what they rest on, and draw them."""
    content = {
        "dpm_images": dpm_images,
        "num_held_out": num_held_out,
        "steps": steps,
        "results": results,
    }
    keep_json(folder / "pdae-against-diffae.json", content)
    draw(results, folder, dpm_images)


def draw(results: dict[str, Any], out: Path, dpm_images: int) -> None:
    """Two figures: over the images seen, without and with pretraining."""
    for name, before in (("training", 0), ("training-and-pretraining", dpm_images)):
        lines = {}
        for method, points in results.items():
            extra = before if method == "pdae" else 0
            for kind in ("inferred", "random"):
                found = [p[kind] for p in points.values()]
                lines[f"{TITLES[method]}, {kind} x_T"] = Line(
                    x=[(int(n) + extra) / 1000 for n in points],
                    y=[f["mse"] for f in found],
                    low=[f["mse"] - f["half_width"] for f in found],
                    high=[f["mse"] + f["half_width"] for f in found],
                )
        label = "thousand images seen" + (", those of pretraining too" if before else "")
        plot = Plot(lines=lines, x_label=label, y_label="MSE", log_y=True)
        save_plot(plot, out / f"pdae-against-diffae-{name}.png")


def main(
    train: Annotated[Path, typer.Option(help="Images to train on.")],
    held_out: Annotated[Path, typer.Option(help="Images to measure on.")],
    dpm: Annotated[str, typer.Option(help="The pretrained model.")],
    dpm_images: Annotated[int, typer.Option(help="Images that its training saw.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for runs, bundles, figures.")],
    at: Annotated[str, typer.Option(help="Images seen at which to measure.")] = "10000,20000,40000,80000",
    num: Annotated[int, typer.Option(help="Held-out images.")] = 100,
    steps: Annotated[int, typer.Option(help="DDIM steps, both ways.")] = 20,
    precision: Annotated[str, typer.Option(help="Of training: bf16 or no.")] = "bf16",
    figures: Annotated[Path | None, typer.Option(help="Keep figures and plots here too.")] = None,
) -> None:
    """Train, measure, draw, and print the table."""
    output.mkdir(parents=True, exist_ok=True)
    found = output / "results.json"
    results: dict[str, Any] = json.loads(found.read_text()) if found.exists() else {}
    images = [item.source for item in find_inputs([held_out])][:num]
    for num_images in map(int, at.split(",")):
        for method in TITLES:
            points = results.setdefault(method, {})
            if str(num_images) in points:
                continue
            plan = plan_to(method, num_images, output, train, dpm, precision)
            train_to(plan)
            points[str(num_images)] = measure(plan.bundle, images, steps)
            keep_json(found, results)
            told(f"{method}, {num_images:,} images: {points[str(num_images)]}")
    draw(results, output, dpm_images)
    if figures is not None:
        keep(results, figures, dpm_images=dpm_images, num_held_out=len(images), steps=steps)
    columns = [f"{title}, {kind} x_T (dB)" for title in TITLES.values() for kind in ("inferred", "random")]
    print(f"| images seen | {' | '.join(columns)} |")
    print("| --- " * 5 + "|")
    for num_images in results["diffae"]:
        cells = [results[m][num_images][k]["psnr_db"] for m in TITLES for k in ("inferred", "random")]
        print(f"| {int(num_images):,} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")


if __name__ == "__main__":
    typer.run(main)
