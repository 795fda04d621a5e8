"""rdm evaluate gap: how far the predicted posterior mean lies from the true one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rdm_cli import options as o
from rdm_cli.commands.evaluation_job import bundles_then_folder, check_output, numbers
from rdm_cli.commands.opening import open_on
from rdm_cli.console import Console
from rdm_cli.data.sources.folders import PassedOver, find_inputs
from rdm_cli.errors import UsageError
from rdm_cli.option_groups import spread

if TYPE_CHECKING:
    from rdm_cli.evaluation.gap import GapRecord

NUM_SHOWN = 8


@spread
def gap(
    bundles_and_data: o.BundlesAndData,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="Write gap.json, gap.png and sheets of one-step denoising."
        ),
    ] = None,
    num: Annotated[
        int, typer.Option("-n", "--n", metavar="N", min=2, help="Use the first N images of the folder.")
    ] = 128,
    every: Annotated[
        int, typer.Option("--every", metavar="N", min=1, help="Measure every Nth timestep.")
    ] = 50,
    at: Annotated[
        str, typer.Option("--at", metavar="T,...", help="Timesteps that the sheets show.")
    ] = "400,500,600,700,800",
    seed: o.Seed = 0,
    *,
    images: o.FittedImages,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Measure, at each t, how far the predicted posterior mean lies from the true one.

    PDAE's diagnosis (arXiv 2212.12990): a code should close the gap that a plain diffusion model leaves.
    Noise is normal, and the same for every bundle of one image size. Figures are means over the images,
    with 95 % intervals. A sheet shows the x_0 that is seen in one x_t, without z and with it.

    Examples:
        rdm evaluate gap avatars64-diffae avatars64-pdae faces/
        rdm evaluate gap avatars64-lrdm faces/ -n 32 --every 100 -o gap/
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
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
    check_output(output, "gap")
    from rdm_cli.evaluation.gap import measure_gap, one_step_rows
    from rdm_cli.evaluation.gap_report import save_gap_plot, save_json, save_sheet
    from rdm_cli.reports.plots import can_plot

    records = []
    for spec in bundles:
        pipeline = open_on(machine, spec, images, console.remark)
        last = pipeline.bundle.model.sampling.schedule.num_train_steps - 1
        timesteps = sorted({*range(0, last, every), last})
        beyond = [t for t in shown_at if t > last]
        if beyond:
            raise UsageError(f"--at {beyond[0]}: the last timestep of {spec} is {last}")
        classes = [pipeline.class_of(path) for path in paths]
        x_0 = pipeline.load_images(paths, images.fit)
        with console.progress(
            f"measuring {pipeline.bundle.name}", float(len(x_0) * len(timesteps))
        ) as advance:
            found = measure_gap(pipeline, x_0, timesteps, classes=classes, seed=seed, advance=advance)
        records += found
        if voice.as_json:
            for record in found:
                console.emit("", **dataclasses.asdict(record))
        if output is not None:
            rows = one_step_rows(pipeline, x_0[:NUM_SHOWN], shown_at, classes=classes[:NUM_SHOWN], seed=seed)
            path = output / f"one-step-{pipeline.bundle.name}.png"
            save_sheet(rows, path)
            console.note(f"{path}: rows are {', '.join(name for name, _ in rows)}")
    if not voice.as_json:
        _print_table(console, records, len(paths))
    if output is not None:
        save_json(records, output / "gap.json", seed=seed, precision=machine.precision)
        console.note(str(output / "gap.json"))
        if can_plot():
            save_gap_plot(records, output / "gap.png")
            console.note(str(output / "gap.png"))
        else:
            console.note("no gap.png: matplotlib is not installed; pip install 'rdm-cli[evaluate]'")


def _print_table(console: Console, records: Sequence[GapRecord], num: int) -> None:
    from rdm_cli.evaluation.gap_report import by_predictor

    columns = by_predictor(records)
    cells = {
        (name, r.t): f"{r.gap:.3e} ± {r.half_width:.0e}" for name, found in columns.items() for r in found
    }
    timesteps = sorted({t for _, t in cells})
    rows = [[str(t), *(cells.get((name, t), "-") for name in columns)] for t in timesteps]
    console.table(f"squared gap of the posterior mean, {num} images", ["t", *columns], rows)
