"""Does an edit show, and does it leave the rest alone? Judged by a network that sees pixels, never a code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rdm_cli.codes.code import Codes
from rdm_cli.evaluation.distances import PictureDistance, usable
from rdm_cli.evaluation.figures import Figure, Part, Scalar, Sheet, curves, drawn, estimated, mean_figure
from rdm_cli.evaluation.judging import Court, border_change, judge_figures, provenance_of
from rdm_cli.evaluation.material import SHOWN, Subject
from rdm_cli.metrics.intervals import share_estimate
from rdm_cli.pipeline.running import Advance
from rdm_cli.reports.plots import Plot
from rdm_cli.training.pixel_judge import PixelJudge

LEAD = (
    "Codes are moved along an attribute: by a positive scale where the image lacks it, by a negative one "
    "where it has it. A classifier that was trained on images, not on codes, says where the edit shows "
    "(success, among pictures in which it did not show before) and how many of its other verdicts changed. "
    "Pictures are compared with the unedited reconstruction; scale 0 compares that with the image, and is "
    "what encoding and decoding change by themselves."
)
WORST = "worst other changed"


@dataclass(frozen=True, kw_only=True)
class EditPlan:
    """``attributes`` to move (None: all that bundle and labels share) by ``scales``, each on ``num`` images.

    Everything is encoded and decoded in ``steps``.
    """

    attributes: Sequence[str] | None
    scales: Sequence[float]
    num: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class Case:
    """One attribute from one side: ``rows`` of the images that lack it or, with ``has``, that have it."""

    attribute: str
    has: bool
    rows: list[int]
    scales: list[float]


def edit_cases(subject: Subject, court: Court, plan: EditPlan) -> tuple[list[Case], list[str]]:
    """What is to be edited, and why something is not.

    Raises UsageError for an attribute that the user named and the bundle does not have.
    """
    directions, lacking = subject.movable(plan.attributes)
    if directions is None:
        return [], lacking
    labels = court.edited.known()
    names = plan.attributes or [name for name in directions.names if name in labels.names]
    if not names:
        known = ", ".join(directions.names)
        return [], [f"{subject.name}: the labels have none of the attributes that it can move ({known})"]
    cases, notes = [], []
    for name in names:
        if doubts := directions.doubts(name):
            notes.append(f"{subject.name}: {doubts}")
        values = labels.only([name]).values[:, 0]
        for has in (False, True):
            scales = sorted((s for s in plan.scales if (s < 0) == has and s != 0), key=abs)
            rows = (values == float(has)).nonzero()[: plan.num, 0].tolist()
            if scales and len(rows) < 2:
                side = "have" if has else "lack"
                notes.append(f"{subject.name}: {len(rows)} images {side} {name}, and two are needed")
            elif scales:
                cases.append(Case(attribute=name, has=has, rows=rows, scales=scales))
    return cases, notes


def edit_work(subject: Subject, court: Court, plan: EditPlan) -> float:
    """How many images' worth of work :func:`measure_edits` is."""
    cases, _ = edit_cases(subject, court, plan)
    needed = {row for case in cases for row in case.rows}
    return float(max(1, 2 * len(needed) + sum(len(case.rows) * len(case.scales) for case in cases)))


def measure_edits(
    subject: Subject,
    court: Court,
    plan: EditPlan,
    *,
    distances: Sequence[PictureDistance],
    seed: int,
    advance: Advance,
) -> Part:
    """Success, other verdicts that changed, perceptual distance and change at the border, for each edit."""
    cases, notes = edit_cases(subject, court, plan)
    if not cases:
        return Part(notes=notes)
    pipeline = subject.pipeline
    able, blind = usable(distances, subject)
    x_0, labels = court.edited.images(pipeline), court.edited.known()
    judge = court.judge(subject)
    judged = [case for case in cases if case.attribute in judge.names]
    asked = [*court.learned.known().names, *(case.attribute for case in cases)]
    unknown = sorted(set(asked) - set(judge.names))
    if unknown:
        notes.append(f"too few examples for a judge to learn {', '.join(unknown)}")
    if not judged:
        return Part(notes=notes)
    names = list(dict.fromkeys(case.attribute for case in judged))
    figures, doubts = judge_figures(subject.name, judge, x_0, labels, names, seed)
    model = pipeline.bundle.model
    # a z that holds one step each is moved in the steps that its directions are of
    steps = model.sampling.steps if model.time_dependent else plan.steps
    editor = _Editor(subject=subject, judge=judge, distances=able, steps=steps, seed=seed)
    rows = sorted({row for case in judged for row in case.rows})
    codes = court.edited.select(rows).encoded(pipeline, x_0[rows], steps=steps, advance=advance)
    back = pipeline.decode(codes, steps=steps, advance=advance)
    sheets = []
    for case in judged:
        places = [rows.index(row) for row in case.rows]
        found, sheet = editor.edit(case, x_0[case.rows], codes.select(places), back[places], advance)
        figures += found
        sheets.append(sheet)
    return Part(figures=figures, sheets=sheets, notes=[*notes, *blind, *doubts])


@dataclass(frozen=True, kw_only=True)
class _Editor:
    subject: Subject
    judge: PixelJudge
    distances: Sequence[PictureDistance]
    steps: int
    seed: int

    def edit(
        self, case: Case, x_0: Tensor, codes: Codes, back: Tensor, advance: Advance
    ) -> tuple[list[Figure], Sheet]:
        figures = self.compared(case, 0.0, x_0, back)
        rows = [("image", x_0[:SHOWN]), ("reconstruction", back[:SHOWN])]
        for scale in case.scales:
            moved = self.subject.pipeline.manipulate(codes, {case.attribute: scale})
            edited = self.subject.pipeline.decode(moved, steps=self.steps, advance=advance)
            figures += self.compared(case, scale, back, edited)
            rows.append((f"{case.attribute} {scale:+g}", edited[:SHOWN]))
        side = "images that have it" if case.has else "images that lack it"
        return figures, Sheet(caption=f"{self.subject.name}: {case.attribute}, {side}", rows=rows)

    def compared(self, case: Case, scale: float, before: Tensor, after: Tensor) -> list[Figure]:
        """What the judge and the distances say of ``after`` (N, C, H, W), beside ``before``."""
        target = self.judge.names.index(case.attribute)
        seen_before, seen_after = self.judge.labels(before), self.judge.labels(after)
        others = torch.arange(len(self.judge.names)) != target
        start = seen_before[:, target] == case.has
        success = seen_after[start, target] != case.has
        direction = "removed" if case.has else "added"
        how: dict[str, Scalar] = {"attribute": case.attribute, "edit": direction, "scale": scale}
        about: dict[str, Any] = {"bundle": self.subject.name, "condition": how, "seed": self.seed}
        verdict = {**provenance_of(self.judge), "T": self.steps}
        found = []
        if bool(start.any()):
            found.append(
                estimated(
                    share_estimate(success),
                    bundle=self.subject.name,
                    name="success",
                    condition=how,
                    num=len(success),
                    better="higher",
                    computed_with=verdict | {"interval": "Wilson (1927)"},
                )
            )
        if bool(others.any()):
            changed = (seen_before != seen_after)[:, others].double().mean(dim=1)
            found.append(
                mean_figure(
                    changed,
                    name="others changed",
                    better="lower",
                    bounds=(0.0, 1.0),
                    computed_with=verdict,
                    **about,
                )
            )
            found.append(self.worst(how, seen_before, seen_after, others, verdict))
        for distance in self.distances:
            found.append(
                mean_figure(
                    distance(before, after),
                    name=distance.name,
                    computed_with={**distance.computed_with, "T": self.steps},
                    **about,
                )
            )
        found.append(
            mean_figure(
                border_change(before, after),
                name="background change",
                unit="levels of 255",
                better="lower",
                bounds=(0.0, 255.0),
                computed_with={"where": "the outer eighth of the picture", "T": self.steps},
                **about,
            )
        )
        return found

    def worst(
        self,
        how: dict[str, Scalar],
        before: Tensor,
        after: Tensor,
        others: Tensor,
        verdict: dict[str, Scalar],
    ) -> Figure:
        """The share of images whose verdict changes, of that other attribute where it is largest."""
        changes = before != after
        place = max(others.nonzero()[:, 0].tolist(), key=lambda k: int(changes[:, k].sum()))
        return estimated(
            share_estimate(changes[:, place]),
            bundle=self.subject.name,
            name=WORST,
            condition={**how, "other": self.judge.names[place]},
            num=len(changes),
            better="lower",
            computed_with=verdict | {"interval": "Wilson (1927), of the worst as if it were the only one"},
        )


def edit_plots(figures: Sequence[Figure]) -> list[Plot]:
    """Everything over the scale.

    Scale 0 compares the reconstruction with the image, the other scales an edit with the reconstruction; so
    it stands beside their line.
    """
    names = [n for n in dict.fromkeys(f.name for f in figures) if n not in ("judge's AUROC", WORST)]
    return drawn(*(curves(figures, name, "scale", apart=(0.0,)) for name in names))
