"""A training run as one HTML page, written anew with every sheet: the loss so far, and what pictures became.

It is made of what the run's folder holds, so a run that was killed and resumed has one history.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rdm_cli.data.io.json_text import parse_object
from rdm_cli.reports.html_page import HtmlPage
from rdm_cli.reports.plots import Line, Plot

FILE_NAME = "run.html"
POINTS = 150  # of the loss's curve: each is the mean of as many steps as that takes
SHEETS_SHOWN = 12
SPREAD = (0.1, 0.9)  # of the steps of a point: what is drawn around it


def write_run_page(folder: Path, *, name: str, facts: Mapping[str, object]) -> Path:
    """Write ``run.html`` into a run's ``folder``; returns its path.

    ``name`` is the bundle's, ``facts`` what the page says of the run. Costs as much as reading the log and
    the sheets that are shown.
    """
    losses, last = _history(folder / "log.jsonl")
    records = list(_lines(folder / "diagnostics.jsonl"))
    page = HtmlPage(
        f"training {name}", "Written with the last sheet; load it again to see how the run goes on."
    )
    page.section("Run")
    page.facts({**facts, **_progress(last)})
    page.section("Loss")
    plots = [plot for plot in (loss_plot(losses), swapped_plot(records)) if plot is not None]
    for plot in plots:
        page.plot(plot, f"{plot.title}, over {plot.x_label}")
    if not plots:
        page.paragraph("No step is logged yet.")
    page.section("Sheets")
    sheets = {int(record["step"]): folder / "sheets" / str(record["sheet"]) for record in records}
    present = {step: path for step, path in sheets.items() if path.is_file()}
    shown = spread(sorted(present), SHEETS_SHOWN)
    if len(shown) < len(present):
        page.paragraph(f"{len(shown)} of {len(present)} sheets, spread over the run; all are in sheets/.")
    for step in reversed(shown):
        page.picture(f"step {step}", present[step].read_bytes(), f"sheet of pictures at step {step}")
    page.save(folder / FILE_NAME)
    return folder / FILE_NAME


def loss_plot(losses: Sequence[tuple[int, float]]) -> Plot | None:
    """The loss of each step over the images seen, as means of equal stretches; None before there are two."""
    finite = [pair for pair in losses if math.isfinite(pair[1])]
    if len(finite) < 2:
        return None
    values = torch.tensor(finite, dtype=torch.float64)
    parts = values.tensor_split(min(POINTS, len(values)))
    ends = torch.stack([p[:, 1].quantile(torch.tensor(SPREAD, dtype=torch.float64)) for p in parts])
    line = Line(
        x=[float(p[-1, 0]) for p in parts],
        y=[float(p[:, 1].mean()) for p in parts],
        low=ends[:, 0].tolist(),
        high=ends[:, 1].tolist(),
    )
    each = math.ceil(len(values) / len(parts))
    name = "loss" if each == 1 else f"mean of {each} steps, with the middle 80 % of them"
    positive = bool((values[:, 1] > 0).all())
    return Plot(
        lines={name: line}, x_label="images seen", y_label="loss", title="Training loss", log_y=positive
    )


def swapped_plot(records: Sequence[Mapping[str, Any]]) -> Plot | None:
    """How much the loss rises when z is swapped between images; None where nothing was swapped twice."""
    found: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for t, (own, other) in (record.get("swapped_z") or {}).items():
            if own > 0:
                found.setdefault(f"t={t}", []).append((float(record["step"]), other / own))
    lines = {}
    for t, points in found.items():
        x, y = [step for step, _ in points], [ratio for _, ratio in points]
        lines[t] = Line(x=x, y=y, low=y, high=y)
    if not lines or max(len(line.x) for line in lines.values()) < 2:
        return None
    title = "Loss with another image's z, over that with the own: 1 where z is not used"
    return Plot(lines=lines, x_label="step", y_label="ratio", title=title)


def spread(items: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of ``items``, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _history(path: Path) -> tuple[list[tuple[int, float]], dict[str, Any]]:
    """(images seen, loss) of every step, and the last one's whole record, {} before there is one."""
    losses, last = [], dict[str, Any]()
    for last in _lines(path):
        losses.append((last["num_images"], last["loss"]))
    return losses, last


def _progress(last: Mapping[str, Any]) -> dict[str, str]:
    if not last:
        return {}
    return {
        "steps": f"{last['step']:,}",
        "images seen": f"{last['num_images']:,}",
        "hours": f"{last['elapsed_seconds'] / 3600:.2f}",
        "images a second": f"{last['images_per_second']:.1f}",
        "done": f"{100 * last['fraction']:.0f} %",
    }


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a log; a line that is still being written is none."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield parse_object(line)
            except ValueError:
                return
