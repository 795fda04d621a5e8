"""Line plots, drawn by matplotlib, which is an optional extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rdm_cli.data.atomic import atomic_path


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve, with half the width of the interval around each point."""

    x: Sequence[float]
    y: Sequence[float]
    half_width: Sequence[float]


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def plot_lines(lines: Mapping[str, Line], path: Path, *, x_label: str, y_label: str) -> None:
    """Draw named ``lines`` over a linear x and a logarithmic y, and save them as ``path``'s suffix says."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, line in lines.items():
        (curve,) = axes.plot(line.x, line.y, label=name, linewidth=1.5)
        lower = [max(y - w, 1e-12) for y, w in zip(line.y, line.half_width, strict=True)]
        upper = [y + w for y, w in zip(line.y, line.half_width, strict=True)]
        axes.fill_between(line.x, lower, upper, color=curve.get_color(), alpha=0.2, linewidth=0)
    axes.set_yscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format=path.suffix.removeprefix("."))
