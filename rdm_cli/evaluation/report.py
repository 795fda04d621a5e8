"""An evaluation as rows of a table, as JSON, and as one HTML file that holds all of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rdm_cli import __version__
from rdm_cli.data.io.atomic import atomic_path
from rdm_cli.data.io.json_text import read_object
from rdm_cli.errors import OccupiedError, setting
from rdm_cli.evaluation.figures import Evaluation, Figure, Scalar
from rdm_cli.metrics.intervals import Estimate
from rdm_cli.reports.html_page import HtmlPage
from rdm_cli.reports.plots import can_plot

CAPTION = "Each figure with its 95 % interval, where it is an estimate. Arrows point to the better side."
NO_PLOTS = "no plots: matplotlib is not installed; pip install 'rdm-cli[evaluate]'"


def comparison(figures: Sequence[Figure]) -> tuple[list[str], list[list[str]], int]:
    """``figures`` with a column for each bundle: columns, rows, and how many columns come before the bundles.

    A row is one figure under one condition.
    """
    bundles = list(dict.fromkeys(figure.bundle for figure in figures))
    keys = list(dict.fromkeys(key for figure in figures for key in figure.condition))
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for figure in figures:
        row = (*(_word(figure.condition.get(key, "")) for key in keys), figure.label)
        cells.setdefault(row, {})[figure.bundle] = figure.cell
    rows = [[*row, *(found.get(bundle, "-") for bundle in bundles)] for row, found in cells.items()]
    return [*keys, "figure", *bundles], rows, len(keys) + 1


def provenance(figures: Sequence[Figure], *, digits: int = 64) -> list[list[str]]:
    """What each kind of figure was computed with, once for each way; digests cut to ``digits``."""
    counts: dict[tuple[str, str], list[int]] = {}
    for figure in figures:
        words = (f"{key} {_cut(key, value, digits)}" for key, value in figure.computed_with.items())
        counts.setdefault((figure.name, ", ".join(words)), []).append(figure.num)
    found: dict[str, list[str]] = {}
    for (name, told), numbers in counts.items():
        few, many = min(numbers), max(numbers)
        n = f"n {few}" if few == many else f"n {few} to {many}"
        found.setdefault(f"{n}, {told}" if told else n, []).append(name)
    return [[", ".join(names), told] for told, names in found.items()]


def figure_record(figure: Figure) -> dict[str, Any]:
    """One figure for JSON; None stands for what has no number. :func:`figure_from` reads it."""
    interval = figure.interval
    return {
        "bundle": figure.bundle,
        "figure": figure.name,
        "condition": dict(figure.condition),
        "value": _finite(figure.value),
        "low": None if interval is None else _finite(interval.low),
        "high": None if interval is None else _finite(interval.high),
        "level": None if interval is None else interval.level,
        "interval": None if interval is None else interval.method,
        "num_resamples": None if interval is None else interval.num_resamples,
        "num": figure.num,
        "unit": figure.unit,
        "better": figure.better,
        "computed_with": dict(figure.computed_with),
    }


def figure_from(found: Mapping[str, Any]) -> Figure:
    """The figure that :func:`figure_record` wrote; raises KeyError or TypeError for anything else.

    What had no number is NaN; whether it was a detail is not recorded.
    """
    interval = None
    value = _number(found["value"])
    if found["level"] is not None:
        low, high = _number(found["low"]), _number(found["high"])
        resamples = found["num_resamples"]
        method = found["interval"]
        interval = Estimate(
            value=value, low=low, high=high, level=found["level"], num_resamples=resamples, method=method
        )
    return Figure(
        bundle=found["bundle"],
        name=found["figure"],
        value=value,
        num=found["num"],
        condition=dict(found["condition"]),
        interval=interval,
        unit=found["unit"],
        better=found["better"],
        computed_with=dict(found["computed_with"]),
    )


def record(evaluation: Evaluation, figure: Figure) -> dict[str, Any]:
    """One figure with all that it depends on, for JSON; None stands for what has no number."""
    return {
        "evaluation": evaluation.name,
        "bundle": figure.bundle,
        "bundle_digest": evaluation.bundles[figure.bundle]["digest"],
        **figure_record(figure),
        "settings": dict(evaluation.settings),
    }


def refuse_other_files(folder: Path, name: str) -> None:
    """Raise OccupiedError where a file that rdm did not write stands in the place of the report ``name``.

    Its JSON file is told by what it says, the page beside it by the JSON file.
    """
    record = folder / f"{name}.json"
    for path in (record, record.with_suffix(".html")):
        if path.exists() and not _is_report(record):
            raise OccupiedError(
                f"{path}: is there already, and rdm did not write it",
                hint=f"name another folder with {setting('output')}",
            )


def _is_report(path: Path) -> bool:
    try:
        return "rdm_version" in read_object(path)
    except (OSError, ValueError):
        return False


def save_json(evaluation: Evaluation, path: Path) -> None:
    """Write everything but the pictures."""
    content = {
        "rdm_version": __version__,
        "evaluation": evaluation.name,
        "settings": dict(evaluation.settings),
        "bundles": {name: dict(facts) for name, facts in evaluation.bundles.items()},
        "notes": list(evaluation.notes),
        "figures": [
            {k: v for k, v in record(evaluation, figure).items() if k not in ("settings", "evaluation")}
            for figure in evaluation.figures
        ],
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def save_report(evaluation: Evaluation, path: Path) -> None:
    """Write the report: figures, plots, sheets, and what everything was computed with."""
    page = HtmlPage(f"{evaluation.name} of {', '.join(evaluation.bundles)}", evaluation.lead)
    page.section("Figures")
    _add_figures(page, CAPTION, [f for f in evaluation.figures if not f.detail])
    if evaluation.notes:
        page.section("Remarks")
        page.points(evaluation.notes)
    if evaluation.plots:
        page.section("Plots")
        if can_plot():
            for plot in evaluation.plots:
                lines = ", ".join(plot.lines)
                described = f"{plot.y_label} over {plot.x_label} for {lines}; the figures are in the tables"
                page.plot(plot, described)
        else:
            page.paragraph(NO_PLOTS)
    if evaluation.sheets:
        page.section("Pictures")
        for sheet in evaluation.sheets:
            page.sheet(sheet.caption, sheet.rows)
    details = [f for f in evaluation.figures if f.detail]
    if details:
        page.section("Figures one by one")
        _add_figures(page, "What the figures above are made of.", details)
    page.section("Computed with")
    page.facts({"rdm": __version__, **evaluation.settings})
    for name, facts in evaluation.bundles.items():
        page.facts({"bundle": name, **facts})
    rests_on = provenance([f for f in evaluation.figures if not f.detail])
    page.table("What each figure rests on.", ["figure", "computed with"], rests_on, num_words=2)
    page.save(path)


def _add_figures(page: HtmlPage, caption: str, figures: Sequence[Figure]) -> None:
    columns, rows, num_words = comparison(figures)
    page.table(caption, columns, rows, num_words=num_words)


def _word(value: Scalar) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cut(key: str, value: Scalar, digits: int) -> str:
    if key == "sha256":
        return "+".join(part[:digits] for part in str(value).split("+"))
    return _word(value)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
