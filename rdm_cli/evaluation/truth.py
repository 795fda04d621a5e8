"""Is an edit right? Measured against true counterfactuals, which the renderer of avatars can draw.

A judge says whether an attribute shows. It cannot say whether the face is still the same one, nor whether a
pair of glasses is one that somebody could wear. The renderer knows what the face would look like: each edited
picture is compared with the nearest of all true ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from rdm_cli.codes.code import Codes
from rdm_cli.data.avatars import Avatar, draw_avatar, render, require_generator
from rdm_cli.data.counterfactuals import ATTRIBUTES, counterfactuals
from rdm_cli.data.images.pixels import to_pil, to_pixels, to_unit_range
from rdm_cli.data.images.record import new_record, refuse_other, save_image
from rdm_cli.data.images.sheet import Tile, enlarged, lay_out
from rdm_cli.data.nearest_truth import Truths
from rdm_cli.errors import RdmError, UsageError
from rdm_cli.evaluation.distances import PictureDistance, usable
from rdm_cli.evaluation.figures import (
    Figure,
    Part,
    Scalar,
    Sheet,
    drawn,
    estimated,
    mean_figure,
    rows_of_points,
)
from rdm_cli.evaluation.generation import distance_names, features
from rdm_cli.evaluation.judging import Court, judge_figures, provenance_of
from rdm_cli.evaluation.material import SHOWN, Material, Subject
from rdm_cli.metrics.distribution import kernel_distance
from rdm_cli.metrics.features import FeatureExtractor
from rdm_cli.metrics.intervals import share_estimate
from rdm_cli.metrics.reconstruction import psnr_within
from rdm_cli.pipeline.editing import EDITORS, NUM_ROUNDS, SCALE
from rdm_cli.pipeline.running import Advance, ignore_progress
from rdm_cli.registry import nearest
from rdm_cli.reports.plots import Plot
from rdm_cli.training.pixel_judge import PixelJudge

LEAD = (
    "Attributes are added to drawn faces that lack them and removed from those that have them, and each "
    "edited picture is compared with the nearest true one: the same face, drawn with that attribute alone "
    "changed. Inside is where that true picture differs from the unedited one, outside the rest. Oracle is "
    "the code of the nearest true picture, decoded with the unedited picture's x_T: about the best that a "
    "change of z can do. Blend is half the picture and half the mean of those that are as wanted; "
    f"scale {SCALE:g} is the published edit."
)
UNEDITED, ORACLE, BLEND, FIXED, REAL = "unedited", "oracle", "blend", f"scale {SCALE:g}", "real faces"
AT_ONCE = 32  # faces
EQUAL_DB = 60.0  # what equal pictures count as: about the error of rounding to 256 levels
WORST, IN_A_ROW, TILE_PX = 32, 16, 96  # edits of a sheet
LEAST_REAL = 10  # faces, in each half of those that are as wanted


@dataclass(frozen=True, kw_only=True)
class TruthPlan:
    """``attributes`` to set (None: all that can be) on ``num`` faces a side, by each of ``editors``.

    ``avatars`` are the faces of the images, in their order. ``sheets`` is a folder for pictures of the worst
    edits, None for no sheets.
    """

    avatars: Sequence[Avatar]
    attributes: Sequence[str] | None
    editors: Sequence[str]
    num: int
    sheets: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One change: ``rows`` of the faces to edit, and of ``real`` ones that are as wanted."""

    attribute: str
    value: bool
    rows: list[int]
    real: list[int]

    @property
    def direction(self) -> str:
        """What is done with the attribute."""
        return "added" if self.value else "removed"


def avatars_of(material: Material, seed: int) -> list[Avatar]:
    """The faces of ``seed`` that the images show, called as ``rdm data avatars`` calls them.

    Raises UsageError where they are others, RdmError where the packages that draw are missing.
    """
    require_generator()
    hint = f"draw them: rdm data avatars FOLDER --seed {seed}"
    stems = [item.source.stem for item in material.items]
    if strange := next((item for item in material.items if not item.source.stem.isdecimal()), None):
        raise UsageError(f"{strange.source}: not called as a drawn face is, such as 000000.png", hint=hint)
    avatars = [draw_avatar(seed, int(stem)) for stem in stems]
    labels = material.known()
    for avatar, item, found in zip(avatars, material.items, labels.values.tolist(), strict=True):
        true = avatar.labels()
        for name, value in zip(labels.names, found, strict=True):
            if name in true and true[name] != (None if value != value else int(value)):
                raise UsageError(f"{item.source}: not the face of that number of seed {seed}", hint=hint)
    return avatars


def require_drawn(material: Material, avatars: Sequence[Avatar], subject: Subject) -> None:
    """Raise UsageError unless the first image is its avatar, drawn as large as the bundle's images are."""
    channels, size, _ = subject.pipeline.bundle.model.image_shape
    if channels != 3:
        raise UsageError(f"{subject.name}: works on grey images, and faces are drawn in colour")
    x_0 = subject.pipeline.load_images(material.items[0].source, material.fit)
    if not torch.equal(x_0, subject.pipeline.load_images(render(avatars[0], size), material.fit)):
        raise UsageError(
            f"{material.items[0].source}: not that face as it is drawn {size} pixels wide, "
            f"which {subject.name} works on",
            hint=f"rdm data avatars FOLDER --size {size}, with the seed that --truth names",
        )


def truth_cases(subject: Subject, plan: TruthPlan) -> tuple[list[Case], list[str]]:
    """What is to be edited, and why something is not.

    Raises UsageError for an attribute that the user named and the bundle or the renderer does not have.
    """
    directions, lacking = subject.movable(plan.attributes)
    if directions is None:
        return [], lacking
    for name in plan.attributes or ():
        counterfactuals(plan.avatars[0], name)
    cases, notes = [], []
    for name in plan.attributes or [name for name in ATTRIBUTES if name in directions.names]:
        sides: dict[bool, list[int]] = {False: [], True: []}
        for row, avatar in enumerate(plan.avatars):
            if counterfactuals(avatar, name):
                sides[bool(avatar.labels()[name])].append(row)
        for value in (True, False):
            rows = sides[not value][: plan.num]
            if len(rows) < 2:
                side = "lack" if value else "have"
                notes.append(f"{subject.name}: {len(rows)} faces {side} {name}, and two are needed")
            else:
                cases.append(Case(attribute=name, value=value, rows=rows, real=sides[value]))
    return cases, notes


def truth_work(subject: Subject, plan: TruthPlan) -> float:
    """How many images' worth of work :func:`measure_truth` is."""
    cases, _ = truth_cases(subject, plan)
    encoded = len({row for case in cases for row in case.rows})
    return float(max(1, encoded + sum(len(case.rows) for case in cases) * _work_of_a_face(plan)))


def _work_of_a_face(plan: TruthPlan) -> int:
    """In images: the fixed scale and the oracle, and by each editor those before and one a round."""
    return 2 + (2 + NUM_ROUNDS) * len(plan.editors)


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """Pictures made in one way, uint8 (N, 3, H, W), and the true one nearest to each.

    ``counted`` (N, K), bool: which of the judge's names the true face answers as the unedited one does.
    """

    pictures: Tensor
    truths: Tensor
    counted: Tensor

    @staticmethod
    def joined(parts: Sequence[_Compared]) -> _Compared:
        """All of ``parts``, one after the other."""
        names = ("pictures", "truths", "counted")
        return _Compared(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def measure_truth(
    subject: Subject,
    court: Court,
    plan: TruthPlan,
    *,
    distances: Sequence[PictureDistance],
    extractor: FeatureExtractor | None,
    seed: int,
    advance: Advance,
) -> Part:
    """Each change by each way, against the judge, the bundle's classifiers and the nearest true pictures.

    Raises UsageError for unknown editors, and OccupiedError where a sheet would replace a user's file.
    """
    for name in plan.editors:
        if name not in EDITORS:
            raise UsageError(f"there is no editor {name!r}", hint=nearest(name, EDITORS))
    cases, notes = truth_cases(subject, plan)
    if not cases:
        return Part(notes=notes)
    pipeline = subject.pipeline
    x_0, labels = court.edited.images(pipeline), court.edited.known()
    judge = court.judge(subject)
    if unknown := sorted({case.attribute for case in cases} - set(judge.names)):
        notes.append(f"too few examples for a judge to learn {', '.join(unknown)}")
        cases = [case for case in cases if case.attribute not in unknown]
    if not cases:
        return Part(notes=notes)
    names = list(dict.fromkeys(case.attribute for case in cases))
    figures, doubts = judge_figures(subject.name, judge, x_0, labels, names, seed)
    able, blind = usable(distances, subject)
    rows = sorted({row for case in cases for row in case.rows})
    codes = court.edited.select(rows).encoded(pipeline, x_0[rows], advance=advance)
    yardstick = _Yardstick(
        subject=subject,
        judge=judge,
        plan=plan,
        distances=able,
        extractor=extractor,
        real=None if extractor is None else features(extractor, x_0, pipeline.device),
        seed=seed,
    )
    sheets: list[Sheet] = []
    found: list[Figure] = []
    for case in cases:
        part = codes.select([rows.index(row) for row in case.rows])
        measured, shown = yardstick.measure(case, x_0, part, advance)
        found += measured
        sheets += shown
    lines = [*notes, *blind, *doubts, *(f"{subject.name}: {line}" for line in yardstick.left_out.values())]
    return Part(figures=[*figures, *found, *summary(found)], sheets=sheets, notes=lines)


@dataclass(frozen=True, kw_only=True)
class _Yardstick:
    subject: Subject
    judge: PixelJudge
    plan: TruthPlan
    distances: Sequence[PictureDistance]
    extractor: FeatureExtractor | None
    real: Tensor | None  # features of all images
    seed: int
    left_out: dict[tuple[str, str], str] = field(default_factory=dict)  # attribute and editor, and why

    def measure(
        self, case: Case, x_0: Tensor, codes: Codes, advance: Advance
    ) -> tuple[list[Figure], list[Sheet]]:
        """The figures of one change; ``x_0`` are all images, ``codes`` those of the case's rows."""
        ways: dict[str, list[_Compared]] = {}
        mean = x_0[case.real].mean(dim=0) if case.real else None
        for start in range(0, len(case.rows), AT_ONCE):
            rows = case.rows[start : start + AT_ONCE]
            some = codes.select(list(range(start, start + len(rows))))
            made = {name: to_pixels(x) for name, x in self.made(case, x_0[rows], some, mean)}
            for name, part in self.compared(case, [self.plan.avatars[row] for row in rows], some, made):
                ways.setdefault(name, []).append(part)
            advance(float(len(rows) * _work_of_a_face(self.plan)))
        before = x_0[case.rows]
        figures, sheets = [], []
        for name, parts in ways.items():
            whole = _Compared.joined(parts)
            if len(whole.pictures) < len(before):
                continue  # an editor that was left out, but had nothing to do for some faces
            after, truths = to_unit_range(whole.pictures), to_unit_range(whole.truths)
            found, inside = self.figures(case, name, before, after, truths, whole.counted, codes)
            figures += found
            if name in self.plan.editors:
                sheets.append(self.sheet(case, name, before, after, truths, inside))
        if (floor := self.floor(case)) is not None:
            figures.append(floor)
        return figures, sheets

    def made(
        self, case: Case, x_0: Tensor, codes: Codes, mean: Tensor | None
    ) -> Iterator[tuple[str, Tensor]]:
        """Pictures by each way but the oracle's, (N, C, H, W), of images ``x_0`` and their codes."""
        pipeline = self.subject.pipeline
        yield UNEDITED, x_0
        if mean is not None:
            yield BLEND, (x_0 + mean) / 2
        moved = pipeline.manipulate(codes, {case.attribute: SCALE if case.value else -SCALE})
        yield FIXED, pipeline.decode(moved, advance=ignore_progress)
        wanted = {case.attribute: case.value}
        for editor in self.plan.editors:
            try:
                edited = pipeline.edit(codes, wanted, editor=editor, seed=self.seed, advance=ignore_progress)
            except RdmError as error:
                self.left_out[case.attribute, editor] = f"the editor {editor} is left out: {error}"
                continue
            yield editor, edited.pictures

    def compared(
        self, case: Case, avatars: Sequence[Avatar], codes: Codes, made: dict[str, Tensor]
    ) -> Iterator[tuple[str, _Compared]]:
        """Each way's pictures, uint8 (N, 3, H, W), with the nearest true ones; and the oracle's."""
        size = self.subject.pipeline.bundle.model.image_size
        truths = [Truths(counterfactuals(avatar, case.attribute), size) for avatar in avatars]
        chosen = {
            name: [true.nearest(picture) for true, picture in zip(truths, pictures, strict=True)]
            for name, pictures in made.items()
        }
        edited = [name for name in made if name in self.plan.editors] or [FIXED]
        candidates = [list(dict.fromkeys(found)) for found in zip(*(chosen[n] for n in edited), strict=True)]
        made[ORACLE], chosen[ORACLE] = self.oracle(codes, truths, candidates)
        for name, pictures in made.items():
            pairs = list(zip(truths, avatars, chosen[name], strict=True))
            yield (
                name,
                _Compared(
                    pictures=pictures,
                    truths=torch.stack([true.picture(one) for true, _, one in pairs]),
                    counted=torch.stack(
                        [self.counted(avatar, one, case.attribute) for _, avatar, one in pairs]
                    ),
                ),
            )

    def oracle(
        self, codes: Codes, truths: Sequence[Truths], candidates: Sequence[Sequence[Avatar]]
    ) -> tuple[Tensor, list[Avatar]]:
        """The true faces' z with the x_T of ``codes``: of each face's candidates the one that comes out best.

        The pictures, uint8 (N, 3, H, W), and which of the candidates they are.
        """
        pipeline = self.subject.pipeline
        rows = [row for row, found in enumerate(candidates) for _ in found]
        flat = [one for found in candidates for one in found]
        pictures = torch.stack([truths[row].picture(one) for row, one in zip(rows, flat, strict=True)])
        several = codes.select(rows)
        z = pipeline.encode_z(to_unit_range(pictures), several)
        decoded = to_pixels(pipeline.decode(several.replace(z=z), advance=ignore_progress))
        errors = (decoded.float() - pictures.float()).square().flatten(1).sum(dim=1).tolist()
        best = [
            min((k for k, of in enumerate(rows) if of == row), key=errors.__getitem__)
            for row in range(len(candidates))
        ]
        return decoded[best], [flat[k] for k in best]

    def counted(self, avatar: Avatar, truth: Avatar, attribute: str) -> Tensor:
        """Which of the judge's names the true face answers as the unedited one does, bool (K,)."""
        before, after = avatar.labels(), truth.labels()
        return torch.tensor(
            [
                name != attribute and before.get(name) is not None and before.get(name) == after.get(name)
                for name in self.judge.names
            ]
        )

    def figures(
        self,
        case: Case,
        name: str,
        before: Tensor,
        after: Tensor,
        truths: Tensor,
        counted: Tensor,
        codes: Codes,
    ) -> tuple[list[Figure], Tensor]:
        """The figures of one way, and the PSNR inside of each picture, (N,)."""
        how: dict[str, Scalar] = {"attribute": case.attribute, "edit": case.direction, "by": name}

        def mean(values: Tensor, called: str, **rest: object) -> Figure:
            about = {"bundle": self.subject.name, "name": called, "condition": how, "seed": self.seed}
            return mean_figure(values, **about, **rest)  # type: ignore[arg-type]

        def share(values: Tensor, called: str, computed_with: dict[str, Scalar]) -> Figure:
            return estimated(
                share_estimate(values),
                bundle=self.subject.name,
                name=called,
                condition=how,
                num=len(values),
                better="higher",
                computed_with=computed_with | {"interval": "Wilson (1927)"},
            )

        verdict = provenance_of(self.judge)
        target = self.judge.names.index(case.attribute)
        seen_before, seen = self.judge.labels(before), self.judge.labels(after)
        start = seen_before[:, target] != case.value
        figures = []
        if bool(start.any()):
            figures.append(share(seen[start, target] == case.value, "success", verdict))
        pipeline = self.subject.pipeline
        directions = pipeline.bundle.directions
        logits = directions.logits(pipeline.encode_z(after, codes).flatten(1))
        landed = (logits[:, directions.index(case.attribute)] > 0) == case.value
        figures.append(share(landed, "landed", {"classifier": "the bundle's own, on the picture's z"}))
        changed = ((seen != seen_before) & counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
        figures.append(
            mean(changed, "others changed", better="lower", bounds=(0.0, 1.0), computed_with=verdict)
        )

        region = (truths != before).any(dim=1)
        everywhere = torch.ones_like(region)
        inside = _decibels(after, truths, region)
        parts = [("PSNR", _decibels(after, truths, everywhere)), ("PSNR inside", inside)]
        if name != UNEDITED:  # which is the truth there
            parts.append(("PSNR outside", _decibels(after, truths, ~region)))
        against: dict[str, Scalar] = {"against": "the nearest true picture, 8 bits", "at most": EQUAL_DB}
        for called, values in parts:
            values = values[~values.isnan()]
            if len(values):
                figures.append(mean(values, called, unit="dB", better="higher", computed_with=against))
        for distance in self.distances:
            figures.append(
                mean(
                    distance(after, truths),
                    distance.name,
                    better="lower",
                    computed_with={**distance.computed_with, "against": "the nearest true picture"},
                )
            )
        if self.extractor is not None and self.real is not None and (real := self.real_of(case)) is not None:
            made = (
                self.real[case.rows]
                if name == UNEDITED
                else features(self.extractor, after, self.subject.pipeline.device)
            )
            figures.append(self.kernel(case, name, real, made))
        return figures, inside

    def real_of(self, case: Case) -> Tensor | None:
        """Features of real faces that are as wanted; None where they are too few."""
        enough = self.real is not None and len(case.real) >= 2 * LEAST_REAL
        return self.real[case.real] if self.real is not None and enough else None

    def floor(self, case: Case) -> Figure | None:
        """The distance of two halves of the real faces that are as wanted: what chance leaves."""
        real = self.real_of(case)
        return None if real is None else self.kernel(case, REAL, real[::2], real[1::2])

    def kernel(self, case: Case, name: str, real: Tensor, made: Tensor) -> Figure:
        """KD times 1000 of features ``made`` (M, d) against ``real`` (N, d)."""
        assert self.extractor is not None
        found = kernel_distance(real, made, seed=self.seed)
        return estimated(
            replace(found, value=1000 * found.value, low=1000 * found.low, high=1000 * found.high),
            bundle=self.subject.name,
            name=f"{distance_names(self.extractor)[1]} x 1000",
            condition={"attribute": case.attribute, "edit": case.direction, "by": name},
            num=len(made),
            better="lower",
            computed_with={**self.extractor.provenance, "num_reference": len(real)},
        )

    def sheet(
        self, case: Case, name: str, before: Tensor, after: Tensor, truths: Tensor, inside: Tensor
    ) -> Sheet:
        """The edits with the worst PSNR inside; as a picture file too, where a folder was named."""
        order = inside.nan_to_num(nan=EQUAL_DB).argsort()
        rows = [
            (called, pictures[order[:WORST]])
            for called, pictures in (("before", before), ("after", after), ("nearest truth", truths))
        ]
        caption = f"{self.subject.name}: {case.attribute} {case.direction} by {name}, worst first"
        if self.plan.sheets is not None:
            place = self.plan.sheets / f"{self.subject.name}-{case.attribute}-{case.direction}-{name}.png"
            record = new_record("sheet", edits=[{case.attribute: case.value}], bundle=self.subject.name)
            refuse_other(place, record)
            shown = [
                (called, [Tile(enlarged(to_pil(picture), TILE_PX)) for picture in some])
                for parts in zip(*(pictures.split(IN_A_ROW) for _, pictures in rows), strict=True)
                for (called, _), some in zip(rows, parts, strict=True)
            ]
            drawn_sheet = lay_out([tiles for _, tiles in shown], title=caption, names=[c for c, _ in shown])
            save_image(drawn_sheet, place, record)
        return Sheet(caption=caption, rows=[(called, pictures[:SHOWN]) for called, pictures in rows])


def _decibels(x: Tensor, y: Tensor, where: Tensor) -> Tensor:
    return psnr_within(x, y, where).clamp(max=EQUAL_DB)


def summary(figures: Sequence[Figure]) -> list[Figure]:
    """Of each way the mean of each figure over all changes, and the change that succeeds least."""
    found: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        found.setdefault((str(figure.condition["by"]), figure.name), []).append(figure)
    made = []
    for (way, name), several in found.items():
        if name == "success":
            worst = min(several, key=lambda figure: figure.value)
            made.append(replace(worst, name="success, worst attribute"))
        values = [figure.value for figure in several]
        made.append(
            replace(
                several[0],
                value=sum(values) / len(values),
                interval=None,
                num=sum(figure.num for figure in several),
                condition={"attribute": "all", "edit": "both", "by": way},
                computed_with={"mean_of": f"{len(values)} changes"},
            )
        )
    return made


def truth_plots(figures: Sequence[Figure]) -> list[Plot]:
    """Success and PSNR of each attribute, in a row of its own."""
    each = [figure for figure in figures if figure.condition.get("attribute") != "all"]
    return drawn(
        *(rows_of_points(each, name, "attribute") for name in ("success", "PSNR inside", "PSNR outside"))
    )
