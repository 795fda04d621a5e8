"""The parts that were measured of each bundle, put together into one evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rdm_cli.evaluation.figures import Evaluation, Figure, Part, Scalar
from rdm_cli.evaluation.material import Material, Subject, common_settings
from rdm_cli.reports.plots import Plot

Plots = Callable[[Sequence[Figure]], Sequence[Plot]]


def assembled(
    name: str,
    lead: str,
    material: Material,
    subjects: Sequence[Subject],
    parts: Sequence[Part],
    *,
    seed: int,
    precision: str,
    plots: Plots,
    notes: Sequence[str] = (),
    **settings: Scalar,
) -> Evaluation:
    """One evaluation of all ``parts``; ``settings`` are what holds for all figures besides data and seed."""
    figures = [figure for part in parts for figure in part.figures]
    return Evaluation(
        name=name,
        lead=lead,
        settings=common_settings(material, seed=seed, precision=precision, **settings),
        bundles={subject.name: subject.facts for subject in subjects},
        figures=figures,
        sheets=[sheet for part in parts for sheet in part.sheets],
        notes=list(
            dict.fromkeys([*material.notes, *notes, *(note for part in parts for note in part.notes)])
        ),
        plots=plots(figures),
    )
