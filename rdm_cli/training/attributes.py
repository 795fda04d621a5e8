"""Attribute probes: one linear classifier for each attribute on standardised codes, scored honestly.

Three parts of the codes, all keyed by the seed: on the first a classifier is fitted, on the second (the
inner validation part) its regularisation is chosen, and the third (held out) gives the scores. What is
stored is the classifier that was scored: fitted on the first two parts, never on the third. Its weight and
bias are scaled so that its logits are those of probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from rdm_cli.errors import RdmError
from rdm_cli.kernels.randomness import keyed_generator
from rdm_cli.kernels.standardise import mean_and_std
from rdm_cli.methods.directions import AttributeScales, AttributeScore, Directions
from rdm_cli.metrics.ranking import auroc, average_precision
from rdm_cli.training.logistic import fit_logistic

# Weak regularisation gives (nearly) the inverse covariance times the difference of the class means: it
# discriminates best, and gets there by leaning on combinations of z which hardly vary. Strong regularisation
# turns the weights towards the plain difference of the means, which stays among codes that exist. The
# strongest penalty that costs next to nothing wins. Edits follow the difference of the means itself.
L2_GRID = (1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)
AUROC_TOLERANCE = 0.002
DEFAULT_L2 = 0.03  # where the inner part has too few examples to choose by
INNER_FRACTION = 0.2
MIN_EXAMPLES = 2  # of each class, in each part


@dataclass(frozen=True, kw_only=True)
class AttributeFit:
    """K classifiers that could be fitted and scored, and why the other attributes could not.

    ``directions`` are what a bundle stores and an edit uses; their pattern is the mean of standardised codes
    with the attribute less the mean of those without. ``l2`` by name; ``skipped`` maps a name to the reason.
    """

    directions: Directions
    l2: dict[str, float]
    skipped: dict[str, str]


def fit_attributes(
    z: Tensor,
    labels: Tensor,
    names: Sequence[str],
    *,
    held_out: float = 0.2,
    seed: int,
    l2: float | None = None,
) -> AttributeFit:
    """Fit and score a classifier for each attribute that has examples enough.

    ``z`` (N, ...), flattened; ``labels`` float (N, K): positive where > 0, NaN where unknown. ``held_out``
    is the fraction that scores; ``l2`` None chooses each attribute's penalty on an inner validation part.
    Raises ValueError for shapes that disagree, RdmError where no attribute is left.
    """
    z = z.flatten(1).cpu()
    labels = labels.cpu()
    if labels.shape != (len(z), len(names)):
        raise ValueError(f"labels must be ({len(z)}, {len(names)}), not {tuple(labels.shape)}")
    if len(set(names)) != len(names):
        raise ValueError("attribute names must differ")
    if not 0 < held_out < 1:
        raise ValueError(f"the held-out fraction must lie strictly between 0 and 1, not {held_out}")
    inner_train, inner_validation, test = _parts(len(z), held_out, seed)
    train = inner_train | inner_validation
    skipped = check_examples(labels, names, held_out=held_out, seed=seed)
    kept = [i for i, name in enumerate(names) if name not in skipped]
    labels, kept_names = labels[:, kept], tuple(names[i] for i in kept)
    z_mean, z_std = mean_and_std(z[train].float())
    x = (z.double() - z_mean.double()) / z_std.double()
    if l2 is None:
        penalties = _choose_l2(x, labels, inner_train, inner_validation)
    else:
        penalties = x.new_full((len(kept),), l2)
    fit = fit_logistic(x, _target(labels), _row_weight(labels, train), penalties)
    slope, offset = _calibration(fit.logits(x), labels, train)
    weight, bias = fit.weight * slope[:, None], fit.bias * slope + offset
    logits = x @ weight.T + bias
    directions = Directions(
        names=kept_names,
        weight=weight.float(),
        bias=bias.float(),
        z_mean=z_mean,
        z_std=z_std,
        pattern=_patterns(x, labels, train).float(),
    )
    scores = {
        name: _score(labels, logits, test, k, scales_of(directions, name, z[test], labels[test, k]))
        for k, name in enumerate(kept_names)
    }
    return AttributeFit(
        directions=replace(directions, scores=scores),
        l2=dict(zip(kept_names, penalties.tolist(), strict=True)),
        skipped=skipped,
    )


def scales_of(directions: Directions, name: str, z: Tensor, labels: Tensor) -> AttributeScales:
    """How far codes ``z`` (N, d) have to go along ``name``, those with ``labels`` (N,) > 0 away from it.

    NaN labels are left out; so is what nothing can be said of: a direction of zeros.
    """
    row = directions.index(name)
    if not directions.along[row].any() or not directions.weight[row].any():
        return {}
    needed = directions.scales_needed(z, name).double()
    added, removed = needed[labels <= 0], needed[labels > 0]
    return {
        "added_in_half": float(added.quantile(0.5)),
        "added_in_nine_tenths": float(added.quantile(0.9)),
        "removed_in_half": float(removed.quantile(0.5)),
        "removed_in_nine_tenths": float(removed.quantile(0.1)),
    }


def _calibration(logits: Tensor, labels: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset (K,) that make probabilities of ``logits`` (N, K), by Newton's method.

    A strong penalty keeps logits near 0, below which a rare attribute's examples may all stay. The targets
    are Platt's (1999, section 2.2): they leave a little doubt, so that separable classes have a finite slope.
    """
    slopes, offsets = [], []
    for k in range(labels.shape[1]):
        known = part & ~labels[:, k].isnan()
        x, has = logits[known, k].double(), labels[known, k] > 0
        num_with, num_without = int(has.sum()), int((~has).sum())
        target = torch.where(has, (num_with + 1) / (num_with + 2), 1 / (num_without + 2)).double()
        columns = torch.stack([x, torch.ones_like(x)], dim=1)
        found = torch.tensor([1.0, 0.0], dtype=torch.float64)

        def loss(at: Tensor, columns: Tensor = columns, target: Tensor = target) -> float:
            return float(F.binary_cross_entropy_with_logits(columns @ at, target))

        for _ in range(100):
            p = (columns @ found).sigmoid()
            gradient = columns.T @ (p - target) / len(x)
            hessian = (columns.T * (p * (1 - p))) @ columns / len(x) + 1e-12 * torch.eye(2).double()
            step, share = torch.linalg.solve(hessian, gradient), 1.0
            while loss(found - share * step) > loss(found) and share > 1e-6:
                share /= 2
            found = found - share * step
            if float(gradient.abs().max()) < 1e-9:
                break
        slopes.append(found[0])
        offsets.append(found[1])
    return torch.stack(slopes), torch.stack(offsets)


def check_examples(
    labels: Tensor, names: Sequence[str], *, held_out: float = 0.2, seed: int
) -> dict[str, str]:
    """Which attributes cannot be fitted to ``labels`` (N, K), and why; RdmError where none can."""
    inner_train, inner_validation, test = _parts(len(labels), held_out, seed)
    skipped = _too_few(labels, names, {"training": inner_train | inner_validation, "held-out": test})
    if len(skipped) == len(names):
        raise RdmError(
            "no attribute has enough examples: " + "; ".join(f"{n}: {why}" for n, why in skipped.items()),
            hint="label more images",
        )
    return skipped


def _parts(num_codes: int, held_out: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(inner training, inner validation, held-out) as disjoint bool masks (N,)."""
    order = torch.randperm(num_codes, generator=keyed_generator(seed, "attribute-parts"))
    place = torch.empty(num_codes)
    place[order] = torch.arange(num_codes) / num_codes
    inner = held_out + INNER_FRACTION * (1 - held_out)
    return place >= inner, (place >= held_out) & (place < inner), place < held_out


def _patterns(x: Tensor, labels: Tensor, part: Tensor) -> Tensor:
    """Mean of ``x`` (N, d) where each label is positive, less that where it is not: (K, d)."""
    weights = _row_weight(labels, part)
    positive = weights * _target(labels)
    negative = weights - positive
    means = [w.T @ x / w.sum(dim=0).clamp(min=1e-12)[:, None] for w in (positive, negative)]
    return means[0] - means[1]


def _target(labels: Tensor) -> Tensor:
    return (labels > 0).double()


def _row_weight(labels: Tensor, part: Tensor) -> Tensor:
    """Equal weights over the rows of ``part`` that know the attribute, (N, K), each column summing to 1."""
    known = (part[:, None] & ~labels.isnan()).double()
    return known / known.sum(dim=0).clamp(min=1)


def _class_counts(labels: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
    """Positives and negatives of each attribute within ``part``, each (K,); NaN is neither."""
    return (labels[part] > 0).sum(dim=0), (labels[part] <= 0).sum(dim=0)


def _too_few(labels: Tensor, names: Sequence[str], parts: dict[str, Tensor]) -> dict[str, str]:
    """Which attributes cannot be fitted or scored, and why."""
    reasons: dict[str, str] = {}
    for part_name, part in parts.items():
        for kind, counts in zip(("positive", "negative"), _class_counts(labels, part), strict=True):
            for name, count in zip(names, counts.tolist(), strict=True):
                if count < MIN_EXAMPLES:
                    reasons.setdefault(
                        name, f"{count} {kind} in the {part_name} part, at least {MIN_EXAMPLES} needed"
                    )
    return reasons


def _choose_l2(x: Tensor, labels: Tensor, train: Tensor, validation: Tensor) -> Tensor:
    """For each attribute the strongest penalty within AUROC_TOLERANCE of the best, (K,)."""
    counts = torch.stack([*_class_counts(labels, train), *_class_counts(labels, validation)])
    enough = (counts >= 1).all(dim=0)  # (K,)
    found = torch.zeros(len(L2_GRID), labels.shape[1], dtype=torch.float64)
    fit = None
    for i, penalty in enumerate(L2_GRID):
        l2 = x.new_full((labels.shape[1],), penalty)
        fit = fit_logistic(x, _target(labels), _row_weight(labels, train), l2, start=fit)
        logits = fit.logits(x[validation])
        for k in enough.nonzero()[:, 0].tolist():
            known = ~labels[validation, k].isnan()
            found[i, k] = auroc(logits[known, k], labels[validation, k][known] > 0)
    good = found >= found.max(dim=0).values - AUROC_TOLERANCE
    strongest = good.double().argmax(dim=0)  # the grid falls, so the first is the strongest
    chosen = torch.tensor(L2_GRID, dtype=torch.float64)[strongest]
    return torch.where(enough, chosen, torch.full_like(chosen, DEFAULT_L2))


def _score(labels: Tensor, logits: Tensor, test: Tensor, k: int, scales: AttributeScales) -> AttributeScore:
    known = ~labels[:, k].isnan()
    scored = test & known
    target = labels[scored, k] > 0
    return {
        **scales,
        "auroc": auroc(logits[scored, k], target),
        "average_precision": average_precision(logits[scored, k], target),
        "num_positive": int((labels[known, k] > 0).sum()),
        "num_labelled": int(known.sum()),
    }
