"""Which attributes drive a classifier: its scores of faces of which one attribute alone was moved.

The effect of an attribute on one face is the model's score of the picture that shows it less that of the one
that does not, whichever of the two was the face itself. Only edits count that the bundle's classifiers see in
the new picture, and in which they see nothing else changed. The mean over faces has an interval; which means
are more than chance is tested by :mod:`rdm_cli.metrics.effects`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rdm_cli.classifiers.classifier import Classifier
from rdm_cli.data.images.pixels import to_unit_range
from rdm_cli.errors import UsageError, setting
from rdm_cli.evaluation.figures import Scalar
from rdm_cli.evaluation.material import Labels, as_stored
from rdm_cli.evaluation.moved import Moved, MovedFaces
from rdm_cli.methods.concepts import MUCH_ALIKE
from rdm_cli.methods.directions import Directions
from rdm_cli.metrics.effects import NUM_FLIPS, sign_flip_p_values
from rdm_cli.metrics.intervals import Estimate, mean_estimate
from rdm_cli.pipeline.editing import untold
from rdm_cli.pipeline.running import ignore_progress

LEAST_FACES = 8  # with fewer nothing is said of an attribute
SIGNIFICANT = 0.05  # p, corrected for the number of attributes
LEAST_EFFECT = 0.05
"""In probability: what moves the score by less on average is not accused, however sure it is."""
SHARE_OF_TARGET = 0.1
"""Nor what moves it by less than this share of what the model's own subject does."""
AT_ONCE = 256  # pictures that the model is asked about


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What moving one attribute does to the score, a probability.

    ``effect`` is the mean over faces of having it, ``added`` and ``removed`` the same over those that lacked
    and had it; None where fewer than ``LEAST_FACES`` count. ``p`` is corrected for the number of attributes.
    ``differences`` (N,) are those of the faces of ``moved``, NaN where the edit does not count: in
    ``num_failed`` it does not show what was wanted, in ``num_not_alone`` something else changed, or the
    attribute could not be moved without the model's own subject, as hair goes below a hat.
    """

    name: str
    is_concept: bool
    is_target: bool
    effect: Estimate | None
    added: Estimate | None
    removed: Estimate | None
    p: float
    drives: bool
    moved: Moved
    differences: Tensor

    @property
    def num(self) -> int:
        """The faces that count."""
        return int((~self.differences.isnan()).sum())

    @property
    def num_failed(self) -> int:
        """Faces whose edited picture does not show what was wanted."""
        return int((~self.moved.holds).sum())

    @property
    def num_not_alone(self) -> int:
        """Faces of which something else changed too."""
        return len(self.moved.rows) - self.num_failed - self.num

    @property
    def accused(self) -> bool:
        """Whether it drives the score and is not the model's own subject."""
        return self.drives and not self.is_target

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.effect is None:
            return "not known"
        if self.is_target:
            return "own subject" if self.drives else "own subject, IGNORED"
        return "DRIVES IT" if self.drives else "no"

    def most_moved(self, num: int) -> list[int]:
        """The rows of ``moved`` whose score moved most, in the direction of the effect."""
        sign = 1.0 if self.effect is None or self.effect.value >= 0 else -1.0
        by_size = (self.differences * sign).nan_to_num(-math.inf).argsort(descending=True).tolist()
        return by_size[: min(num, self.num)]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What a model was found to look at: ``findings``, the strongest first.

    ``target`` is the attribute that is its own subject (None: not known) and ``target_from`` says why;
    ``threshold`` is the least effect that is accused. ``fidelity`` is the mean difference of the scores of
    images and of what their codes decode to. ``settings`` hold for all, ``notes`` say what was passed over.
    """

    model: Classifier
    class_name: str
    bundle: str
    target: str | None
    target_from: str
    threshold: float
    fidelity: float
    num_images: int
    findings: tuple[Finding, ...]
    settings: Mapping[str, Scalar]
    notes: tuple[str, ...]

    @property
    def accused(self) -> list[Finding]:
        """What drives the score besides the model's own subject, the strongest first."""
        return [finding for finding in self.findings if finding.accused]

    @property
    def summary(self) -> str:
        """One sentence."""
        who = f"{self.model.name} ({self.class_name})"
        if self.accused:
            named = ", ".join(
                f"{f.name} ({f.effect.value:+.2f})" for f in self.accused if f.effect is not None
            )
            besides = f" besides {self.target}" if self.target else ""
            return f"{who} looks at{besides}: {named}"
        return f"{who}: nothing{f' besides {self.target}' if self.target else ''} that was moved drives it"


def class_asked(model: Classifier, name: str | None) -> str:
    """The class whose score is asked for: ``name``, else the only one, or the second of two.

    Raises UsageError for an unknown one, and where there are several and none is named.
    """
    if name is not None:
        return model.classes[model.index(name)]
    if len(model.classes) > 2 or (len(model.classes) == 2 and not model.exclusive):
        shown = ", ".join(model.classes[:10]) + (", ..." if len(model.classes) > 10 else "")
        raise UsageError(
            f"{model.name}: it has {len(model.classes)} classes",
            hint=f"name the one to ask about, {setting('class_name')}: {shown}",
        )
    return model.classes[-1]


def audit(
    faces: MovedFaces,
    model: Classifier,
    *,
    class_name: str | None = None,
    target: str | None = None,
    label: str | None = None,
    attributes: Sequence[str] | None = None,
    num_concepts: int = 0,
    settings: Mapping[str, Scalar] | None = None,
    advance: Callable[[float], None] = ignore_progress,
) -> Audit:
    """Move ``attributes`` of ``faces`` (None: all that the bundle knows), and see what ``model`` says.

    ``class_name`` is the class asked about, see :func:`class_asked`. ``target`` is the attribute that is the
    model's own subject; with None, and labels of the faces, it is the one that agrees best with the column
    ``label`` (None: the only column, or the one that the model's score agrees best with). ``num_concepts``
    directions without a name are moved too: those that go most with what of the score no attribute explains.
    ``advance`` is told of each attribute. Raises UsageError for unknown names, ClassifierError where the
    model fails, BundleError for a bundle without attributes.
    """
    bundle = faces.pipeline.bundle
    known = bundle.directions
    class_name = class_asked(model, class_name)
    column = model.index(class_name)
    if target is not None:
        known.index(target)

    @torch.no_grad()
    def score(x: Tensor) -> Tensor:
        """Of pictures in [-1, 1], (N, C, H, W), (N,)."""
        return torch.cat([model.scores(part)[:, column].cpu() for part in x.split(AT_ONCE)])

    of_images = score(as_stored(faces.material.images(faces.pipeline)))
    notes = []
    target_from = "named by hand" if target is not None else "not named"
    if target is None and faces.material.labels is not None:
        target, target_from = _subject(faces, known, faces.material.labels, label, of_images)
    concepts = _concepts_to_move(faces, of_images, num_concepts)
    if num_concepts and not concepts:
        notes.append(f"{bundle.name} has no directions without a name that say more than its attributes do")
    names = [*dict.fromkeys([*(attributes or known.names), *([] if target is None else [target])]), *concepts]
    moves: list[Moved] = []
    for name in names:
        moves.append(faces.moved(name, bundle.concepts if name in concepts else None))
        advance(1)
    differences = torch.full((len(faces.material), len(names)), math.nan)
    before_edits: dict[int, float] = {}
    for k, moved in enumerate(moves):
        if not len(moved.rows):
            continue
        first, then = (score(to_unit_range(pictures)) for pictures in (moved.before, moved.after))
        before_edits.update(zip(moved.rows.tolist(), first.tolist(), strict=True))
        gain = torch.where(moved.added, then - first, first - then)
        counts = moved.alone & _without_subject(faces, moved, target)
        differences[moved.rows, k] = torch.where(counts, gain, math.nan)
    asked = ((~differences.isnan()).sum(dim=0) >= LEAST_FACES).nonzero()[:, 0]
    p = torch.ones(len(names), dtype=torch.float64)
    p[asked] = sign_flip_p_values(differences[:, asked], seed=faces.seed)
    effects = [_mean(differences[:, k], faces.seed) for k in range(len(names))]
    own = None if target is None else effects[names.index(target)]
    threshold = max(LEAST_EFFECT, SHARE_OF_TARGET * abs(own.value) if own is not None else 0.0)
    findings = []
    for k, (name, moved) in enumerate(zip(names, moves, strict=True)):
        of_face, effect = differences[moved.rows, k], effects[k]
        findings.append(
            Finding(
                name=name,
                is_concept=name in concepts,
                is_target=name == target,
                effect=effect,
                added=_mean(of_face[moved.added], faces.seed),
                removed=_mean(of_face[~moved.added], faces.seed),
                p=float(p[k]),
                drives=effect is not None and float(p[k]) < SIGNIFICANT and abs(effect.value) >= threshold,
                moved=moved,
                differences=of_face,
            )
        )
    if few := [finding.name for finding in findings if finding.effect is None]:
        notes.append(f"fewer than {LEAST_FACES} edits count, so nothing is said of: {', '.join(few)}")
    rows = list(before_edits)
    fidelity = (
        (torch.tensor(list(before_edits.values())) - of_images[rows]).abs().mean() if rows else math.nan
    )
    return Audit(
        model=model,
        class_name=class_name,
        bundle=bundle.name,
        target=target,
        target_from=target_from,
        threshold=threshold,
        fidelity=float(fidelity),
        num_images=len(faces.material),
        findings=tuple(sorted(findings, key=_by_effect)),
        settings={
            **(settings or {}),
            "bundle_digest": bundle.digest,
            "faces_each": faces.num,
            "test": f"sign flips ({NUM_FLIPS}), the largest of {len(asked)} statistics",
        },
        notes=tuple(notes),
    )


def _without_subject(faces: MovedFaces, moved: Moved, target: str | None) -> Tensor:
    """On which faces the ``target`` stayed as it was, bool (N,).

    What rules it out or hides it is added to faces that do not show it; what hides it is not taken away, for
    nobody knows what was below.
    """
    bundle = faces.pipeline.bundle
    if target is None or moved.name == target or target not in untold(bundle, {moved.name: True}):
        return torch.ones(len(moved.rows)).bool()
    shown = (bundle.directions.logits(faces.z[moved.rows])[:, bundle.directions.index(target)] > 0).cpu()
    hides = target in bundle.transports.hidden.get(moved.name, ())
    return torch.where(moved.added, ~shown, not hides)


def _by_effect(finding: Finding) -> float:
    return math.inf if finding.effect is None else -abs(finding.effect.value)


def _mean(differences: Tensor, seed: int) -> Estimate | None:
    """Of those that count, where they are enough."""
    counted = differences[~differences.isnan()]
    return mean_estimate(counted, seed=seed, bounds=(-1, 1)) if len(counted) >= LEAST_FACES else None


def _subject(
    faces: MovedFaces, known: Directions, labels: Labels, label: str | None, score: Tensor
) -> tuple[str, str]:
    """The attribute that agrees best with the label column, and how it was found."""
    if label is not None:
        labels = labels.only([label])
    answers = labels.values
    agree = [_correlation(score, answers[:, k]) for k in range(len(labels.names))]
    column = max(range(len(agree)), key=lambda k: abs(agree[k]))
    shows = (known.logits(faces.z) > 0).float().cpu()
    alike = [abs(_correlation(shows[:, k], answers[:, column])) for k in range(len(known.names))]
    best = max(range(len(alike)), key=alike.__getitem__)
    return known.names[best], (
        f"it agrees best with the labels {labels.names[column]} (correlation {alike[best]:.2f}); "
        f"the model's score has correlation {agree[column]:.2f} with them"
    )


def _correlation(x: Tensor, y: Tensor) -> float:
    """Of what is known of both, (N,); 0 where one of them does not vary."""
    known = ~(x.isnan() | y.isnan())
    return float(torch.corrcoef(torch.stack([x[known], y[known]]))[0, 1].nan_to_num()) if known.any() else 0.0


def _concepts_to_move(faces: MovedFaces, score: Tensor, num: int) -> list[str]:
    """The ``num`` concepts of the bundle that go most with ``score`` (N,) where attributes are as they are.

    None that says of the faces much the same as an attribute, or as one that was chosen before it.
    """
    concepts = faces.pipeline.bundle.concepts
    if concepts is None or not num:
        return []
    known = (faces.pipeline.bundle.directions.logits(faces.z) > 0).double().cpu()
    said = concepts.logits(faces.z).sigmoid().double().cpu()
    alike = torch.corrcoef(torch.cat([known, said], dim=1).T).nan_to_num().abs()
    few, num_known = alike[:, : known.shape[1]], known.shape[1]
    others = torch.cat([torch.ones(len(known), 1).double(), known], dim=1)

    def unexplained(y: Tensor) -> Tensor:
        left = y - others @ torch.linalg.lstsq(others, y, driver="gelsd").solution
        left = left - left.mean(dim=0)
        return left / left.norm(dim=0).clamp(min=1e-9)

    goes_with = (unexplained(said) * unexplained(score.double()[:, None])).sum(dim=0).abs()
    chosen: list[int] = []
    for row in goes_with.argsort(descending=True).tolist():
        if (few[num_known + row] > MUCH_ALIKE).any():
            continue
        if not (alike[num_known + row, [num_known + one for one in chosen]] > MUCH_ALIKE).any():
            chosen.append(row)
        if len(chosen) == num:
            break
    return [concepts.names[row] for row in chosen]


def audit_record(found: Audit) -> dict[str, Any]:
    """All of it for JSON; None stands for what is not known."""
    return {
        "model": found.model.name,
        "class": found.class_name,
        "assumed": dict(found.model.assumed),
        "bundle": found.bundle,
        "num_images": found.num_images,
        "target": found.target,
        "target_from": found.target_from,
        "threshold": found.threshold,
        "fidelity": found.fidelity if math.isfinite(found.fidelity) else None,
        "accused": [finding.name for finding in found.accused],
        "findings": [finding_record(finding) for finding in found.findings],
        "settings": dict(found.settings),
        "notes": list(found.notes),
    }


def finding_record(finding: Finding) -> dict[str, Any]:
    """One attribute for JSON."""
    return {
        "attribute": finding.name,
        "kind": "direction" if finding.is_concept else "attribute",
        "verdict": finding.verdict,
        "accused": finding.accused,
        "is_target": finding.is_target,
        **_ends("effect", finding.effect),
        "p": finding.p,
        **_ends("effect_added", finding.added),
        **_ends("effect_removed", finding.removed),
        "num": finding.num,
        "num_failed": finding.num_failed,
        "num_not_alone": finding.num_not_alone,
    }


def _ends(name: str, found: Estimate | None) -> dict[str, float | None]:
    low, high = (found.low, found.high) if found is not None and found.has_ends else (None, None)
    return {name: None if found is None else found.value, f"{name}_low": low, f"{name}_high": high}


def blind_to(found: Audit, known: Sequence[str]) -> list[str]:
    """What an audit cannot see, a sentence each."""
    return [
        f"Only these were moved, of what {found.bundle} knows: {', '.join(known)}"
        + ("" if not any(f.is_concept for f in found.findings) else "; and some directions without a name")
        + ". A model that looks at something else, such as a watermark or the camera, is not accused.",
        "Attributes were moved one by one: what drives the model only together with another is not seen.",
        "Whether an edit worked is judged by the bundle's own classifiers, which can be wrong.",
        f"The model saw pictures as the bundle draws them. Its scores of images and of their unedited codes "
        f"differ by {found.fidelity:.3f} in the mean; an effect of that size may be the drawing's.",
    ]
