"""How good samples are against how often the network is asked, for each solver and shipped bundle.

    rdm data avatars held-out --n 1000 --seed 2 -q >held-out.txt
    python benchmarks/solver_frontier.py avatars64-diffae avatars64-pdae avatars128-lrdm \\
        --held-out held-out -o docs/figures/solver-frontier --markdown docs/performance.md

The same z and x_T are decoded by every solver, so that rows differ by the solver alone. Distances are those
of the pictures' EffNet-Lite0 features to the held-out images': FD-EffNet (never FID) on the first principal
axes, and the unbiased kernel distance on all features, both with 95 % bootstrap intervals. What was measured
is kept in NAME.json under --output, and a run that was stopped goes on with the next; a plot lies beside it.
Prints a Markdown table of FD, and the knee: the fewest calls at which some solver's FD lies within the
interval of 100-step DDIM's. With --set-knee it becomes what the bundle decodes its own draws by.
"""

from __future__ import annotations

import json
import sys
import textwrap
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import typer
from report_tables import WIDTH, PageOption, keep_json, publish, refuse_unmarked, table
from torch import Tensor

from rdm_cli import Codes, Pipeline, open_pipeline
from rdm_cli.bundles.bundle import SCHEDULER
from rdm_cli.bundles.config_json import json_file, to_json
from rdm_cli.data.io.atomic import atomic_path
from rdm_cli.data.io.json_text import parse_object
from rdm_cli.errors import UsageError
from rdm_cli.kernels.schedules import Spacing
from rdm_cli.kernels.spec import Sampling
from rdm_cli.metrics.distribution import frechet_distance, kernel_distance
from rdm_cli.metrics.features import FeatureExtractor, features_of, open_effnet_lite0
from rdm_cli.reports.plots import Line, Plot, save_plot
from rdm_cli.runtime import Precision, set_up

SCRIPT = "solver_frontier"
Figures = dict[str, dict[str, dict[str, Any]]]
"""By solver and calls (a string, as in the file): fd and kd with their intervals."""
BATCH = 50


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A solver on its timesteps; ``calls_in_step`` 2 asks once less, for the last step is Euler's."""

    solver: str
    spacing: Spacing | None = None
    calls_in_step: int = 1

    def steps(self, calls: int) -> int:
        """How many steps ``calls`` network calls allow."""
        return calls if self.calls_in_step == 1 else (calls + 1) // 2


CURVES = {
    "ddim": Curve(solver="ddim", spacing="stride"),
    "ddim, log-snr": Curve(solver="ddim", spacing="log-snr"),
    "dpm-solver++": Curve(solver="dpm-solver++"),
    "dpm-solver++, karras": Curve(solver="dpm-solver++", spacing="karras"),
    "unipc": Curve(solver="unipc"),
    "unipc, karras": Curve(solver="unipc", spacing="karras"),
    "heun": Curve(solver="heun", calls_in_step=2),
}
"""The multistep solvers' own timesteps are even in log-SNR."""
REFERENCE = ("ddim", "100")


def told(text: str) -> None:
    """Progress, to stderr."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def features(extractor: FeatureExtractor, x_0: Tensor) -> Tensor:
    """Features (N, d) of images (N, 3, H, W), rounded to the levels that a file would hold."""
    levels = ((x_0 + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
    return features_of(extractor, levels.split(BATCH))


def measure(
    pipeline: Pipeline, codes: Codes, curve: Curve, calls: int, extractor: FeatureExtractor, reference: Tensor
) -> dict[str, Any]:
    """Distances of what ``codes`` decode to by ``curve`` with so many network calls."""
    sampler = Sampling(solver=curve.solver, spacing=curve.spacing)
    pictures = replace(pipeline, sampler=sampler).decode(codes, steps=curve.steps(calls))
    found = features(extractor, pictures)
    frechet = frechet_distance(reference, found, seed=0)
    kernel = kernel_distance(reference, found, seed=0)
    estimates = {"fd": frechet.distance, "kd": kernel}
    return {name: [e.value, e.low, e.high] for name, e in estimates.items()} | {
        "dimensions": frechet.num_dimensions
    }


def knee(figures: Figures) -> tuple[str, int] | None:
    """Curve and number of the fewest calls as good as 100-step DDIM; None where that was not measured.

    As good is whose FD lies below the upper end of the reference's interval; of equal calls the least FD.
    """
    solver, calls = REFERENCE
    if calls not in figures.get(solver, {}):
        return None
    _, _, high = figures[solver][calls]["fd"]
    good = [
        (int(number), row["fd"][0], name)
        for name, rows in figures.items()
        for number, row in rows.items()
        if row["fd"][0] <= high
    ]
    fewest, _, name = min(good)
    return name, fewest


def knee_text(figures: Figures) -> str:
    """The knee beside its reference; "" where there is none."""
    found = knee(figures)
    if found is None:
        return ""
    name, calls = found
    solver, number = REFERENCE
    value, low, high = figures[solver][number]["fd"]
    reference = f"100-step DDIM has {value:.2f} ({low:.2f} to {high:.2f})"
    return f"Knee: {name} with {calls} calls, FD {figures[name][str(calls)]['fd'][0]:.2f}; {reference}."


def keep_knee(folder: Path, figures: Figures) -> None:
    """Make the knee the way in which the bundle in ``folder`` decodes what was drawn.

    Nothing else of its scheduler changes, so that its digest and every code stay valid.
    """
    found = knee(figures)
    if found is None:
        raise UsageError(f"{folder}: 100-step DDIM was not measured, so there is no knee")
    curve = CURVES[found[0]]
    sampler = Sampling(solver=curve.solver, spacing=curve.spacing, steps=curve.steps(found[1]))
    path = folder / SCHEDULER
    stored = parse_object(path.read_bytes())
    stored["_rdm"] = {**stored["_rdm"], "sampler": to_json(sampler)}
    with atomic_path(path) as temporary:
        temporary.write_text(json_file(stored), encoding="utf-8")


def markdown(kept: dict[str, dict[str, Any]]) -> str:
    """For each bundle what was measured, a table of FD over solver and calls, and the knee."""
    parts = []
    for name, found in kept.items():
        figures: Figures = found["figures"]
        numbers = sorted({number for rows in figures.values() for number in rows}, key=int)
        rows = [(solver, *(_cell(row.get(n)) for n in numbers)) for solver, row in figures.items()]
        told = (
            f"{name} (`{found['digest'][:12]}`, {found['precision']}), {found['num']:,} samples against "
            f"{found['num_reference']:,} held-out images: FD-EffNet and its 95 % interval, by network calls."
        )
        plot_line = f"![FD over network calls, {name}](figures/solver-frontier/{name}.png)"
        parts += [
            textwrap.fill(told, WIDTH),
            table(("solver", *numbers), rows),
            knee_text(figures),
            plot_line,
        ]
    return "\n\n".join(part for part in parts if part)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    value, low, high = row["fd"]
    return f"{value:.1f} ({low:.1f}, {high:.1f})"


def plot(figures: Figures, path: Path) -> None:
    """FD over network calls, a line a solver."""
    lines = {}
    for name, found in figures.items():
        numbers = sorted(found, key=int)
        values = [found[number]["fd"] for number in numbers]
        lines[name] = Line(
            x=[float(number) for number in numbers],
            y=[v for v, _, _ in values],
            low=[low for _, low, _ in values],
            high=[high for _, _, high in values],
        )
    labels = {"x_label": "network calls", "y_label": "FD-EffNet to held-out images"}
    save_plot(Plot(lines=lines, log_x=True, log_y=True, **labels), path)


def measured(
    pipeline: Pipeline,
    paths: list[Path],
    file: Path,
    *,
    num: int,
    calls: list[int],
    seed: int,
    extractor: FeatureExtractor,
) -> dict[str, Any]:
    """One bundle's figures; those that ``file`` holds are not measured again, and it gets the others."""
    stamp = {
        "digest": pipeline.bundle.digest,
        "precision": pipeline.precision,
        "num": num,
        "num_reference": len(paths),
        "seed": seed,
    }
    kept: dict[str, Any] = stamp | {"figures": {}}
    if file.exists():
        found = json.loads(file.read_text(encoding="utf-8"))
        kept = found if all(found.get(name) == value for name, value in stamp.items()) else kept
    wanted = [
        (name, number)
        for name in CURVES
        for number in calls
        if str(number) not in kept["figures"].get(name, {})
    ]
    if not wanted:
        return kept
    parts = [pipeline.load_images(paths[i : i + BATCH]) for i in range(0, len(paths), BATCH)]
    reference = torch.cat([features(extractor, part) for part in parts])
    codes = pipeline.sample(num, seed=seed)
    for name, number in wanted:
        row = measure(pipeline, codes, CURVES[name], number, extractor, reference)
        kept["figures"].setdefault(name, {})[str(number)] = row
        told(f"{pipeline.bundle.name}, {name}, {number} calls: {row}")
        keep_json(file, kept)
    return kept


def main(
    bundles: Annotated[list[str], typer.Argument(help="Bundles.")],
    held_out: Annotated[Path, typer.Option(help="Images to compare with, which nothing was trained on.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the figures and plots.")],
    num: Annotated[int, typer.Option("--n", help="Samples of each kind.")] = 250,
    calls: Annotated[str, typer.Option(help="Network calls.")] = "5,8,10,15,20,50,100",
    precision: Annotated[str, typer.Option(help="Of the networks: fp32 or bf16.")] = "fp32",
    seed: Annotated[int, typer.Option(help="Seed of z and x_T.")] = 0,
    set_knee: Annotated[
        bool, typer.Option("--set-knee", help="Make each knee its bundle's default.")
    ] = False,
    page: PageOption = None,
) -> None:
    """Measure, draw, and print the tables."""
    refuse_unmarked(page, SCRIPT)
    extractor = open_effnet_lite0()
    paths = sorted(held_out.glob("*.png"))
    kept = {}
    with torch.no_grad():
        for bundle in bundles:
            pipeline = open_pipeline(
                bundle, device=set_up(), batch_size=BATCH, precision=cast(Precision, precision)
            )
            name = pipeline.bundle.name
            kept[name] = measured(
                pipeline,
                paths,
                output / f"{name}.json",
                num=num,
                calls=[int(number) for number in calls.split(",")],
                seed=seed,
                extractor=extractor,
            )
            plot(kept[name]["figures"], output / f"{name}.png")
            if set_knee:
                keep_knee(pipeline.bundle.folder, kept[name]["figures"])
    publish(markdown(kept), page, SCRIPT)


if __name__ == "__main__":
    typer.run(main)
