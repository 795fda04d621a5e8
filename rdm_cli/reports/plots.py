"""Plots with intervals, drawn by matplotlib, which is an optional extra; curves also without it."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdm_cli.data.images.record import KEY, as_text, new_record, with_command
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
SVG_WIDTH, SVG_HEIGHT, LEFT = 720, 390, 74  # pixels of a plot without matplotlib, and where its axis begins
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
    told: dict[str, Any] = (
        {"metadata": {KEY: as_text(with_command(new_record("plot")))}} if kind.lower() == "png" else {}
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format=kind, **told)


def svg_of(plot: Plot) -> tuple[bytes, bytes]:
    """``plot`` as SVG on a transparent ground, to be shown on white and on black; letters are outlines.

    It is drawn once, which takes a while, and the ink of one is replaced for the other. Curves are drawn
    without matplotlib too, if it is not installed, with letters as text. The same plot gives the same bytes.
    """
    if not can_plot() and not plot.names:
        return curves_as_svg(plot, INK).encode(), curves_as_svg(plot, INK_ON_DARK).encode()
    import matplotlib

    content = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "rdm"}):
        figure = _figure(plot, INK)
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    light = content.getvalue()
    return light, light.replace(INK.encode(), INK_ON_DARK.encode())


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
    else:
        axes.xaxis.set_major_formatter(lambda x, _: tick_label(x))
    if plot.log_y:
        _label_logarithms(axes)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)


def _label_logarithms(axes: Axes) -> None:
    """Make the y axis logarithmic, with numbers and not powers of ten beside it: 0.05, not 5 x 10^-2."""
    from matplotlib.ticker import LogFormatter

    axes.set_yscale("log")
    chosen = LogFormatter(labelOnlyBase=False)  # chooses which ticks get a label
    chosen.set_axis(axes.yaxis)

    def label(value: float, _: float) -> str:
        chosen.set_locs([])
        return tick_label(value) if chosen(value) else ""

    axes.yaxis.set_major_formatter(label)
    axes.yaxis.set_minor_formatter(label)


def tick_label(value: float) -> str:
    """A number beside an axis: 20,000 and 0.05, neither 2e4 nor 5 x 10^-2."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


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
    axes.tick_params(which="both", colors=ink)
    axes.xaxis.label.set_color(ink)
    axes.yaxis.label.set_color(ink)
    for spine in axes.spines.values():
        spine.set_edgecolor(ink)


def curves_as_svg(plot: Plot, ink: str) -> str:
    """A plot of curves by hand: axes with numbers, a line and a band for each curve, their names above."""
    lines = plot.lines.values()
    x_axis = _Ruler.of([x for line in lines for x in line.x], LEFT, SVG_WIDTH - 14, log=plot.log_x)
    bounds = [value for line in lines for value in (*line.low, *line.high, *line.y)]
    top = 34 + 18 * len(plot.lines)
    y_axis = _Ruler.of(bounds, SVG_HEIGHT - 52, top, log=plot.log_y)
    marks = [f'<text x="{LEFT}" y="18" font-weight="600">{escape(plot.title)}</text>']
    for x in x_axis.ticks:
        at = x_axis.at(x)
        marks.append(f'<path d="M{at:.1f} {top}V{SVG_HEIGHT - 52}" stroke="{ink}" stroke-opacity="0.15"/>')
        marks.append(f'<text x="{at:.1f}" y="{SVG_HEIGHT - 34}" text-anchor="middle">{tick_label(x)}</text>')
    for y in y_axis.ticks:
        at = y_axis.at(y)
        marks.append(f'<path d="M{LEFT} {at:.1f}H{SVG_WIDTH - 14}" stroke="{ink}" stroke-opacity="0.15"/>')
        marks.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{tick_label(y)}</text>')
    middle = (LEFT + SVG_WIDTH) / 2
    marks.append(
        f'<text x="{middle:.0f}" y="{SVG_HEIGHT - 10}" text-anchor="middle">{escape(plot.x_label)}</text>'
    )
    marks.append(
        f'<text transform="translate(16 {(top + SVG_HEIGHT - 52) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(plot.y_label)}</text>"
    )
    for i, (name, line) in enumerate(plot.lines.items()):
        colour, row = COLOURS[i % len(COLOURS)], 38 + 18 * i
        points = [(x_axis.at(x), y_axis.at(y)) for x, y in zip(line.x, line.y, strict=True)]
        upper = [(x_axis.at(x), y_axis.at(y)) for x, y in zip(line.x, line.high, strict=True)]
        lower = [(x_axis.at(x), y_axis.at(y)) for x, y in zip(line.x, line.low, strict=True)]
        marks.append(
            f'<polygon points="{_points([*upper, *lower[::-1]])}" fill="{colour}" fill-opacity="0.2"/>'
        )
        marks.append(f'<polyline points="{_points(points)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        marks.append(f'<path d="M{LEFT} {row - 4}h18" stroke="{colour}" stroke-width="3"/>')
        marks.append(f'<text x="{LEFT + 26}" y="{row}">{escape(name)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SVG_WIDTH} {SVG_HEIGHT}" width="{SVG_WIDTH}" '
        f'height="{SVG_HEIGHT}" font-family="system-ui, sans-serif" font-size="12.5" fill="{ink}">'
        f"{''.join(marks)}</svg>\n"
    )


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


@dataclass(frozen=True, kw_only=True)
class _Ruler:
    """An axis: which values lie where between two pixels, and which get a number."""

    low: float
    high: float
    start: float
    end: float
    log: bool
    ticks: Sequence[float]

    @staticmethod
    def of(values: Sequence[float], start: float, end: float, *, log: bool) -> _Ruler:
        """The axis of all ``values``, from pixel ``start`` to pixel ``end``."""
        known = [max(value, SMALLEST) if log else value for value in values if math.isfinite(value)]
        low, high = min(known, default=1.0), max(known, default=1.0)
        if low == high:
            low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
        return _Ruler(
            low=low, high=high, start=start, end=end, log=log, ticks=(_decades if log else _steps)(low, high)
        )

    def at(self, value: float) -> float:
        """The pixel of ``value``."""
        low, high = self.low, self.high
        value = min(max(value, low), high) if math.isfinite(value) else high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def _steps(low: float, high: float) -> list[float]:
    """Some five round numbers between two."""
    size = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (size * factor) <= 6)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten between two numbers, with 2 and 5 times them where there are few."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5), (1, 2, 3, 4, 5, 6, 7, 8, 9)):
        found = [f * 10.0**n for n in exponents for f in factors if low <= f * 10.0**n <= high]
        if len(found) >= 3:
            break
    return [float(f"{value:.3g}") for value in found[:: max(1, len(found) // 8)]]
