"""What an evaluation finds: figures that say what they were computed with, sheets, and remarks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from rdm_cli.metrics.intervals import Estimate, mean_estimate
from rdm_cli.reports.plots import Line, Plot

Scalar = str | int | float
Better = Literal["higher", "lower", ""]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number about one bundle.

    ``name`` is what was measured, in ``unit`` ("" for none); ``condition`` tells it from others of that name
    (the steps, the attribute); ``num`` is of how many images. ``interval`` is None where it is no estimate,
    or where there is no way to one. ``computed_with`` names networks, digests and sizes. A ``detail`` stands
    in the files alone, not on the terminal.
    """

    bundle: str
    name: str
    value: float
    num: int
    condition: Mapping[str, Scalar] = field(default_factory=dict)
    interval: Estimate | None = None
    unit: str = ""
    better: Better = ""
    computed_with: Mapping[str, Scalar] = field(default_factory=dict)
    detail: bool = False

    @property
    def label(self) -> str:
        """The name with its unit, and an arrow towards the better side."""
        arrow = {"higher": " ↑", "lower": " ↓", "": ""}[self.better]
        return f"{self.name} ({self.unit}){arrow}" if self.unit else f"{self.name}{arrow}"

    @property
    def cell(self) -> str:
        """The value, and its interval where it has one."""
        return str(self.interval) if self.interval is not None else f"{self.value:.4g}"


def estimated(estimate: Estimate, **rest: Any) -> Figure:
    """A figure with its interval, where it has one; ``rest`` are the other fields."""
    return Figure(value=estimate.value, interval=estimate if estimate.has_ends else None, **rest)


def mean_figure(
    values: Tensor, *, seed: int, bounds: tuple[float, float] = (-math.inf, math.inf), **rest: Any
) -> Figure:
    """The mean of ``values`` (N,), each within ``bounds``, with its interval if it is finite."""
    rest = {"num": len(values)} | rest
    if len(values) == 0 or not bool(values.isfinite().all()):
        return Figure(value=float(values.double().mean()) if len(values) else math.nan, **rest)
    return estimated(mean_estimate(values, seed=seed, bounds=bounds), **rest)


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Named rows of images (N, C, H, W) in [-1, 1], and what they show."""

    caption: str
    rows: Sequence[tuple[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """What was found about one bundle; ``notes`` say what could not be measured, and why."""

    figures: Sequence[Figure] = ()
    sheets: Sequence[Sheet] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Bundles compared: all that the terminal, the JSON and the report are made of.

    ``name`` is the command's; ``lead`` says in a sentence or two what was done. ``settings`` hold for all
    figures. ``bundles`` has a dict of facts for each name.
    """

    name: str
    lead: str
    settings: Mapping[str, Scalar]
    bundles: Mapping[str, Mapping[str, Scalar]]
    figures: Sequence[Figure]
    sheets: Sequence[Sheet] = ()
    notes: Sequence[str] = ()
    plots: Sequence[Plot] = ()


def drawn(*plots: Plot | None) -> list[Plot]:
    """Those that have something to show."""
    return [plot for plot in plots if plot is not None]


def curves(
    figures: Iterable[Figure], name: str, over: str, *, log_y: bool = False, apart: Sequence[float] = ()
) -> Plot | None:
    """The figures called ``name`` over their condition ``over``, a line for each bundle and other condition.

    Those at ``apart`` are another comparison and stand beside the line. None where no line has two points.
    """
    found: dict[str, list[tuple[float, Figure]]] = {}
    label = name
    for figure in figures:
        if figure.name != name or over not in figure.condition:
            continue
        others = [f"{key} {v}" for key, v in figure.condition.items() if key != over]
        found.setdefault(", ".join([figure.bundle, *others]), []).append(
            (float(figure.condition[over]), figure)
        )
        label = figure.label
    lines = {key: replace(_line(points), apart=apart) for key, points in found.items() if len(points) > 1}
    return Plot(lines=lines, x_label=over, y_label=label, title=label, log_y=log_y) if lines else None


def rows_of_points(figures: Iterable[Figure], name: str, over: str) -> Plot | None:
    """The figures called ``name``, a row for each value of ``over``; None where there are none."""
    chosen = [f for f in figures if f.name == name and over in f.condition]
    names = list(dict.fromkeys(str(f.condition[over]) for f in chosen))
    found: dict[str, list[tuple[float, Figure]]] = {}
    for figure in chosen:
        others = [f"{key} {v}" for key, v in figure.condition.items() if key != over]
        place = float(names.index(str(figure.condition[over])))
        found.setdefault(", ".join([figure.bundle, *others]), []).append((place, figure))
    if not found:
        return None
    lines = {key: _line(points) for key, points in found.items()}
    label = chosen[0].label
    return Plot(lines=lines, x_label=over, y_label=label, title=label, names=tuple(names))


def _line(points: Sequence[tuple[float, Figure]]) -> Line:
    points = sorted((p for p in points if math.isfinite(p[1].value)), key=lambda point: point[0])
    ends = [(f.interval.low, f.interval.high) if f.interval else (f.value, f.value) for _, f in points]
    return Line(
        x=[x for x, _ in points],
        y=[f.value for _, f in points],
        low=[low for low, _ in ends],
        high=[high for _, high in ends],
    )
