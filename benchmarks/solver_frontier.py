"""How good samples are against how often the network is asked, for each solver.

    rdm data avatars held-out --n 1000 --seed 2 -q >held-out.txt
    python benchmarks/solver_frontier.py --held-out held-out \
        --json runs/frontier.json --plot docs/figures/solver-frontier.png --markdown docs/performance.md

The same z and x_T are decoded by every solver, so that rows differ by the solver alone. Distances are those
of the pictures' EffNet-Lite0 features to the held-out images': FD-EffNet (never FID) on the first principal
axes, and the unbiased kernel distance on all features, both with 95 % bootstrap intervals. Prints a Markdown
table to stdout, and the knee: the fewest calls at which some solver's FD is no worse than the interval of
100-step DDIM's. With --json what was measured is kept, and a run that was stopped goes on with the next.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from report_tables import PageOption, publish, refuse_unmarked, table
from torch import Tensor

from rdm_cli import Codes, Pipeline, open_pipeline
from rdm_cli.core.plots import Line, Plot, save_plot
from rdm_cli.kernels.schedules import Spacing
from rdm_cli.kernels.spec import Sampler
from rdm_cli.metrics.distribution import frechet_distance, kernel_distance
from rdm_cli.metrics.features import FeatureExtractor, features_of, open_effnet_lite0

SCRIPT = "solver_frontier"
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
    "unipc, angle": Curve(solver="unipc", spacing="angle"),
    "heun": Curve(solver="heun", calls_in_step=2),
}


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
    sampler = Sampler(solver=curve.solver, spacing=curve.spacing)
    pictures = replace(pipeline, sampler=sampler).decode(codes, steps=curve.steps(calls))
    found = features(extractor, pictures)
    frechet = frechet_distance(reference, found, seed=0)
    kernel = kernel_distance(reference, found, seed=0)
    estimates = {"fd": frechet.distance, "kd": kernel}
    return {name: [e.value, e.low, e.high] for name, e in estimates.items()} | {
        "dimensions": frechet.num_dimensions
    }


def knee(figures: dict[str, dict[str, Any]]) -> str:
    """The fewest calls at which a solver is as good as 100-step DDIM; "" where that was not measured."""
    if "100" not in figures.get("ddim", {}):
        return ""
    _, low, high = figures["ddim"]["100"]["fd"]
    good = [
        (int(calls), row["fd"][0], name)
        for name, rows in figures.items()
        for calls, row in rows.items()
        if row["fd"][0] <= high
    ]
    calls, value, name = min(good)
    return (
        f"Knee: {name} with {calls} calls, FD {value:.2f}; 100-step DDIM has "
        f"{figures['ddim']['100']['fd'][0]:.2f} ({low:.2f} to {high:.2f})."
    )


def markdown(figures: dict[str, dict[str, Any]], num: int, num_reference: int) -> str:
    """A table of FD and KD for each solver and number of calls."""
    rows = [
        (name, calls, *(f"{v:.{d}f} ({low:.{d}f} to {high:.{d}f})" for v, low, high, d in _cells(row)))
        for name, found in figures.items()
        for calls, row in found.items()
    ]
    head = f"{num:,} samples against {num_reference:,} held-out images; 95 % intervals."
    return "\n\n".join([head, table(("solver", "calls", "FD-EffNet", "KD-EffNet"), rows), knee(figures)])


def _cells(row: dict[str, Any]) -> list[tuple[float, float, float, int]]:
    return [(*row["fd"], 2), (*row["kd"], 4)]


def plot(figures: dict[str, dict[str, Any]], path: Path) -> None:
    """FD over network calls, a line a solver."""
    lines = {}
    for name, found in figures.items():
        values = [row["fd"] for row in found.values()]
        lines[name] = Line(
            x=[float(calls) for calls in found],
            y=[v for v, _, _ in values],
            low=[low for _, low, _ in values],
            high=[high for _, _, high in values],
        )
    labels = {"x_label": "network calls", "y_label": "FD-EffNet to held-out images"}
    save_plot(Plot(lines=lines, log_y=True, **labels), path)


def main(
    held_out: Annotated[Path, typer.Option(help="Images to compare with, which nothing was trained on.")],
    bundle: Annotated[str, typer.Option(help="The bundle.")] = "avatars64-diffae",
    num: Annotated[int, typer.Option("--n", help="Samples of each kind.")] = 500,
    calls: Annotated[str, typer.Option(help="Network calls.")] = "5,8,10,15,20,50,100",
    solver: Annotated[list[str] | None, typer.Option(help=f"Any of: {'; '.join(CURVES)}.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of z and x_T.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the figures here.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Draw the frontier here.")] = None,
    page: PageOption = None,
) -> None:
    """Measure, and print the table."""
    refuse_unmarked(page, SCRIPT)
    pipeline = open_pipeline(bundle, batch_size=BATCH)
    paths = sorted(held_out.glob("*.png"))
    stamp = {"digest": pipeline.bundle.digest, "num": num, "num_reference": len(paths), "seed": seed}
    kept: dict[str, Any] = stamp | {"figures": {}}
    if json_file is not None and json_file.exists():
        found = json.loads(json_file.read_text(encoding="utf-8"))
        kept = found if all(found.get(name) == value for name, value in stamp.items()) else kept
    extractor = open_effnet_lite0()
    with torch.no_grad():
        parts = [pipeline.load_images(paths[i : i + BATCH]) for i in range(0, len(paths), BATCH)]
        reference = torch.cat([features(extractor, part) for part in parts])
        codes = pipeline.sample(num, seed=seed)
        for name in solver or list(CURVES):
            for number in calls.split(","):
                rows = kept["figures"].setdefault(name, {})
                if number in rows:
                    continue
                rows[number] = measure(pipeline, codes, CURVES[name], int(number), extractor, reference)
                told(f"{name}, {number} calls: {rows[number]}")
                if json_file is not None:
                    json_file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    if plot_file is not None:
        plot(kept["figures"], plot_file)
    publish(markdown(kept["figures"], num, len(paths)), page, SCRIPT)


if __name__ == "__main__":
    typer.run(main)
