"""Plots with intervals, drawn by matplotlib, which is an optional extra."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdm_cli.data.images.record import KEY, as_text, new_record
from rdm_cli.data.io.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# told apart by people who see no red or no green, on white and on black (Okabe & Ito 2008)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#888888")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, INK_ON_DARK = "#1f2328", "#e6e8eb"
SMALLEST = 1e-12  # where a logarithmic axis ends
WIDTH = 7.0  # inches
CHARACTERS = 74  # in a line of the legend; each name has about four more, its mark and a gap


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve (N points), with the ends of the interval around each point.

    The points at ``apart``, values of x, compare something else than the others: they are not joined to them.
    """

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    apart: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Named ``lines`` and what their axes say.

    ``names``, where there are some, are what x counts: then there is a row of points for each name, from
    the top, instead of curves. ``log_x`` and ``log_y`` for logarithmic axes; x then has a tick for each
    point.
    """

    lines: Mapping[str, Line]
    x_label: str
    y_label: str
    title: str = ""
    log_x: bool = False
    log_y: bool = False
    names: tuple[str, ...] = ()


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def save_plot(plot: Plot, path: Path) -> None:
    """Draw ``plot`` on white and save it as ``path``'s suffix says."""
    figure = _figure(plot, INK)
    kind = path.suffix.removeprefix(".")
    told: dict[str, Any] = {"metadata": {KEY: as_text(new_record("plot"))}} if kind.lower() == "png" else {}
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format=kind, **told)


def svg_of(plot: Plot, *, dark: bool) -> bytes:
    """``plot`` as SVG on a transparent ground, to be shown on white or on ``dark``; letters are outlines.

    The same plot gives the same bytes.
    """
    import matplotlib

    content = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "rdm"}):
        figure = _figure(plot, INK_ON_DARK if dark else INK)
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    return content.getvalue()


def _figure(plot: Plot, ink: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = _legend_columns(plot)
    height = 3.8 if not plot.names else 1.2 + len(plot.names) * max(0.3, 0.14 * len(plot.lines))
    if columns:
        height += 0.2 + 0.21 * math.ceil(len(plot.lines) / columns)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    (_draw_rows if plot.names else _draw_curves)(axes, plot)
    axes.set_title(plot.title, color=ink, loc="left", fontsize="medium")
    _ink(axes, ink)
    axes.grid(alpha=0.3)
    if columns:  # below: within the axes there is no place that never hides a point
        figure.legend(loc="outside lower center", ncols=columns, frameon=False, labelcolor=ink)
    return figure


def _legend_columns(plot: Plot) -> int:
    """How many columns the names of lines fit in; 0 where the axis alone names what there is."""
    names = list(plot.lines)
    if not names or (len(names) == 1 and names[0] in plot.y_label):
        return 0
    return max(1, min(4, len(names), CHARACTERS // (max(map(len, names)) + 4)))


def _draw_curves(axes: Axes, plot: Plot) -> None:
    for (name, line), look in zip(plot.lines.items(), _looks(len(plot.lines)), strict=True):
        marker = {"marker": look["marker"], "markersize": 4} if len(line.x) <= 30 else {}
        low = [max(y, SMALLEST) for y in line.low] if plot.log_y else line.low
        joined = [i for i, x in enumerate(line.x) if x not in line.apart]
        x, y, lower, upper = ([part[i] for i in joined] for part in (line.x, line.y, low, line.high))
        axes.plot(x, y, label=name, linewidth=1.5, color=look["color"], **marker)
        if len(joined) > 1:
            axes.fill_between(x, lower, upper, color=look["color"], alpha=0.2, linewidth=0)
        for i in range(len(line.x)):
            if i not in joined or len(joined) == 1:
                ends = [[max(line.y[i] - low[i], 0.0)], [max(line.high[i] - line.y[i], 0.0)]]
                axes.errorbar(
                    [line.x[i]], [line.y[i]], yerr=ends, linestyle="", capsize=2, markersize=5, **look
                )
    if plot.log_x:
        axes.set_xscale("log")
        points = sorted({x for line in plot.lines.values() for x in line.x})
        axes.set_xticks(points, [f"{x:g}" for x in points], minor=False)
        axes.set_xticks([], minor=True)
    if plot.log_y:
        axes.set_yscale("log")
        if min((y for line in plot.lines.values() for y in line.y), default=0) >= 1:  # 20, not 2 x 10^1
            from matplotlib.ticker import LogFormatter

            axes.yaxis.set_major_formatter(LogFormatter())
            axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)


def _draw_rows(axes: Axes, plot: Plot) -> None:
    num = len(plot.lines)
    for i, ((name, line), look) in enumerate(zip(plot.lines.items(), _looks(num), strict=True)):
        beside = 0.6 * ((i + 0.5) / num - 0.5)
        left = [max(y - low, 0.0) for y, low in zip(line.y, line.low, strict=True)]
        right = [max(high - y, 0.0) for y, high in zip(line.y, line.high, strict=True)]
        rows = [x + beside for x in line.x]
        axes.errorbar(
            line.y, rows, xerr=[left, right], label=name, linestyle="", markersize=5, capsize=2, **look
        )
    axes.set_yticks(range(len(plot.names)), plot.names)
    axes.set_ylim(len(plot.names) - 0.5, -0.5)
    axes.set_xlabel(plot.y_label)
    axes.set_ylabel(plot.x_label)


def _looks(num: int) -> list[dict[str, Any]]:
    count = len(COLOURS)
    return [{"color": COLOURS[i % count], "marker": MARKERS[(i + i // count) % count]} for i in range(num)]


def _ink(axes: Axes, ink: str) -> None:
    axes.tick_params(colors=ink)
    axes.xaxis.label.set_color(ink)
    axes.yaxis.label.set_color(ink)
    for spine in axes.spines.values():
        spine.set_edgecolor(ink)
