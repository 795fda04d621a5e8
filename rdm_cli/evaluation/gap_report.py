"""Writes what :mod:`rdm_cli.evaluation.gap` measures: as JSON, as a plot, as a sheet of pictures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from rdm_cli import __version__
from rdm_cli.data.images.pixels import grid, to_pil
from rdm_cli.data.images.record import new_record, save_image
from rdm_cli.data.io.atomic import atomic_path
from rdm_cli.evaluation.gap import GapRecord
from rdm_cli.reports.plots import Line, Plot, save_plot


def by_predictor(records: Sequence[GapRecord]) -> dict[str, list[GapRecord]]:
    """``records`` of each bundle and predictor, by a name for both."""
    found: dict[str, list[GapRecord]] = {}
    for record in records:
        found.setdefault(f"{record.bundle}, {record.predictor}", []).append(record)
    return found


def save_json(records: Sequence[GapRecord], path: Path, *, seed: int, precision: str) -> None:
    """Write every record, with what it was measured with."""
    content = {
        "rdm_version": __version__,
        "seed": seed,
        "precision": precision,
        "noise": "normal",
        "interval": "95 %, Student's t over images",
        "records": [dataclasses.asdict(record) for record in records],
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def save_gap_plot(records: Sequence[GapRecord], path: Path) -> None:
    """Draw the gaps over t."""
    lines = {
        name: Line(
            x=[r.t for r in found],
            y=[r.gap for r in found],
            low=[r.gap - r.half_width for r in found],
            high=[r.gap + r.half_width for r in found],
        )
        for name, found in by_predictor(records).items()
    }
    label = "squared gap of the posterior mean"
    save_plot(Plot(lines=lines, x_label="t", y_label=label, log_y=True), path)


def save_sheet(rows: Sequence[tuple[str, Tensor]], path: Path) -> None:
    """Draw ``rows`` of images (N, 3, H, W) in [-1, 1], one above the other."""
    pictures = [to_pil(picture) for _, row in rows for picture in row]
    save_image(grid(pictures, len(rows[0][1])), path, new_record("gap sheet"))
