"""Figures for the model card of a bundle that was just trained, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rdm_cli.data.images.pixels import Fit
from rdm_cli.data.sources.folders import Item
from rdm_cli.escapes import printable
from rdm_cli.evaluation.material import Material, Subject
from rdm_cli.evaluation.reconstruction import measure_reconstruction, reconstruction_work
from rdm_cli.evaluation.report import comparison
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.pipeline.running import Advance

NUM_IMAGES = 32
STEPS = 10


def card_figures(pipeline: Pipeline, images: Sequence[Path], fit: Fit, *, seed: int, advance: Advance) -> str:
    """How close some of ``images``, which were trained on, come back, and what the attributes scored."""
    material, steps = _material(images, fit), _steps(pipeline)
    part = measure_reconstruction(
        Subject(name=pipeline.bundle.name, pipeline=pipeline),
        material,
        steps=steps,
        inversion="ddim",
        distances=[],
        seed=seed,
        advance=advance,
    )
    columns, rows, _ = comparison([figure for figure in part.figures if not figure.detail])
    lines = [
        f"{len(material)} of the images that it was trained on, encoded and decoded by DDIM; `rdm evaluate` "
        "measures others.",
        "",
        *_table(columns, rows),
    ]
    if "attributes" in pipeline.bundle.parts:
        found = [
            [
                name,
                f"{score['auroc']:.4f}",
                f"{score['average_precision']:.4f}",
                f"{score['num_positive']} / {score['num_labelled']}",
            ]
            for name, score in pipeline.bundle.directions.scores.items()
        ]
        lines += ["", "Linear probes on z, scored on codes that they were not fitted to:", ""]
        lines += _table(["attribute", "AUROC", "average precision", "positives"], found)
    return "\n".join(lines)


def card_work(pipeline: Pipeline, images: Sequence[Path]) -> float:
    """How many images' worth of work :func:`card_figures` is."""
    subject = Subject(name=pipeline.bundle.name, pipeline=pipeline)
    return reconstruction_work(subject, _material(images, "crop"), _steps(pipeline))


def _material(images: Sequence[Path], fit: Fit) -> Material:
    """Some of ``images``, spread over all of them."""
    num = min(NUM_IMAGES, len(images))
    chosen = [images[i * len(images) // num] for i in range(num)]
    items = tuple(Item(source=path, relative=Path(path.name)) for path in chosen)
    return Material(folder=images[0].parent, items=items, fit=fit)


def _steps(pipeline: Pipeline) -> list[int]:
    return [min(STEPS, pipeline.bundle.model.sampling.max_steps)]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    written = [[printable(cell).replace("|", "\\|") for cell in row] for row in (columns, *rows)]
    return [f"| {' | '.join(row)} |" for row in (written[0], ["---"] * len(columns), *written[1:])]
