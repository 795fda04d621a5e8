"""rdm evaluate gap: how far the predicted posterior mean lies from the true one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rdm_cli import options as o
from rdm_cli.commands.evaluation_job import bundles_then_folder, check_output, numbers
from rdm_cli.console import Console
from rdm_cli.data.folders import PassedOver, find_inputs
from rdm_cli.errors import UsageError

if TYPE_CHECKING:
    from rdm_cli.core.gap import GapRecord

NUM_SHOWN = 8


def gap(
    bundles_and_data: o.BundlesAndData,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="Write gap.json, gap.png and sheets of one-step denoising."
        ),
    ] = None,
    num: Annotated[int, typer.Option("-n", "--n", min=2, help="Images, the first of the folder.")] = 128,
    every: Annotated[int, typer.Option("--every", min=1, help="Distance of the timesteps measured.")] = 50,
    at: Annotated[
        str, typer.Option("--at", metavar="T,...", help="Timesteps of the sheets.")
    ] = "400,500,600,700,800",
    seed: o.Seed = 0,
    fit: o.FitOption = o.Fit.crop,
    class_name: o.ClassName = None,
    max_pixels: o.MaxPixels = o.MAX_PIXELS_DEFAULT,
    value_range: o.ValueRangeOption = None,
    batch_size: o.BatchSize = None,
    precision: o.PrecisionOption = o.Precision.fp32,
    device: o.Device = "auto",
    threads: o.Threads = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Measure, at each t, how far the predicted posterior mean lies from the true one.

    PDAE's diagnosis (arXiv 2212.12990): a code should close the gap that a plain diffusion model leaves.
    Noise is normal, and the same for every bundle of one image size. Figures are means over the images,
    with 95 % intervals. A sheet shows the x_0 that is seen in one x_t, without z and with it.
    """
    console = Console(as_json=as_json, quiet=quiet)
    bundles, folder = bundles_then_folder(bundles_and_data)
    shown_at = numbers("--at", at)
    if min(shown_at) < 0:
        raise UsageError(f"--at {min(shown_at)}: timesteps start at 0")
    passed_over = PassedOver()
    paths = [item.source for item in find_inputs([folder], passed_over=passed_over)][:num]
    if passed_over:
        console.note(f"{folder}: {passed_over}")
    if len(paths) < 2:
        raise UsageError(f"{folder}: one image has no interval", hint="name a folder of two or more")
    check_output(output)
    from rdm_cli.core.gap import measure_gap, one_step_rows
    from rdm_cli.core.gap_report import save_gap_plot, save_json, save_sheet
    from rdm_cli.core.pipeline import open_pipeline
    from rdm_cli.core.plots import can_plot
    from rdm_cli.core.runtime import set_up

    resolved = set_up(device=device, threads=threads)
    records = []
    for spec in bundles:
        pipeline = open_pipeline(
            spec,
            device=resolved,
            precision=precision.value,
            batch_size=batch_size,
            max_pixels=max_pixels,
            value_range=value_range,
            on_remark=console.remark,
            class_name=class_name,
        )
        last = pipeline.bundle.model.sampling.schedule.num_train_steps - 1
        timesteps = sorted({*range(0, last, every), last})
        beyond = [t for t in shown_at if t > last]
        if beyond:
            raise UsageError(f"--at {beyond[0]}: the last timestep of {spec} is {last}")
        classes = [pipeline.class_of(path) for path in paths]
        x_0 = pipeline.load_images(paths, fit.value)
        with console.progress(
            f"measuring {pipeline.bundle.name}", float(len(x_0) * len(timesteps))
        ) as advance:
            found = measure_gap(pipeline, x_0, timesteps, classes=classes, seed=seed, advance=advance)
        records += found
        if as_json:
            for record in found:
                console.emit("", **dataclasses.asdict(record))
        if output is not None:
            rows = one_step_rows(pipeline, x_0[:NUM_SHOWN], shown_at, classes=classes[:NUM_SHOWN], seed=seed)
            path = output / f"one-step-{pipeline.bundle.name}.png"
            save_sheet(rows, path)
            console.note(f"{path}: rows are {', '.join(name for name, _ in rows)}")
    if not as_json:
        _print_table(console, records, len(paths))
    if output is not None:
        save_json(records, output / "gap.json", seed=seed, precision=precision.value)
        console.note(str(output / "gap.json"))
        if can_plot():
            save_gap_plot(records, output / "gap.png")
            console.note(str(output / "gap.png"))
        else:
            console.note("no gap.png: matplotlib is not installed; pip install 'rdm-cli[evaluate]'")


def _print_table(console: Console, records: Sequence[GapRecord], num: int) -> None:
    from rdm_cli.core.gap_report import by_predictor

    columns = by_predictor(records)
    cells = {
        (name, r.t): f"{r.gap:.3e} ± {r.half_width:.0e}" for name, found in columns.items() for r in found
    }
    timesteps = sorted({t for _, t in cells})
    rows = [[str(t), *(cells.get((name, t), "-") for name in columns)] for t in timesteps]
    console.table(f"squared gap of the posterior mean, {num} images", ["t", *columns], rows)
