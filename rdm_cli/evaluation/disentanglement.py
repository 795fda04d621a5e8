"""Does each dimension of z serve one attribute? DCI, MIG and TAD, of z and of components of the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rdm_cli.evaluation.attributes import codes_of, left_out
from rdm_cli.evaluation.figures import Figure, Part, Scalar, drawn, estimated, rows_of_points
from rdm_cli.evaluation.material import Labels, Material, Subject
from rdm_cli.kernels.randomness import keyed_generator
from rdm_cli.metrics.dci import Predictor, dci
from rdm_cli.metrics.disentanglement import GapScore, mutual_information_gap, total_auroc_difference
from rdm_cli.metrics.linear_probes import hold_out, pixel_components, too_few
from rdm_cli.pipeline.running import Advance
from rdm_cli.reports.plots import Plot

LEAD = (
    "DCI asks which dimensions a classifier needs for an attribute, MIG and TAD how far the best dimension "
    "is ahead of the second best. The same figures of as many components of the pixels stand beside. "
    "Where informativeness is low, the other two of DCI mean little: who knows nothing needs few dimensions. "
    "A code that nobody trained to be disentangled has MIG and TAD near 0 however linear it is. The best "
    "dimension is chosen and scored on the same images, which chance alone rewards: beside MIG and TAD "
    "stands what they are on labels that were shuffled among the images."
)
SHUFFLED = "labels shuffled"
NUM_SHUFFLES = 5


def measure_disentanglement(
    subject: Subject, material: Material, *, predictor: Predictor, seed: int, advance: Advance
) -> Part:
    """DCI by ``predictor``, MIG and TAD of z and of the baseline; a line in their place without z.

    Raises UsageError where scikit-learn is absent.
    """
    if not subject.pipeline.bundle.has_z:
        return Part(notes=[f"{subject.name}: a plain DPM has no z to be disentangled"])
    x_0 = material.images(subject.pipeline)
    z = codes_of(subject, material, x_0, advance)
    held_out = hold_out(len(z), seed=seed)
    labels, notes = _usable(material.known(), held_out)
    if len(labels.names) < 2:
        told = "; ".join(notes) or "one attribute alone"
        return Part(notes=[f"{subject.name}: two attributes or more are needed: {told}"])
    components = pixel_components(x_0, held_out=held_out, num_components=z.shape[1], seed=seed)
    figures: list[Figure] = []
    for kind, features in {"z": z, "PCA of pixels": components}.items():
        if features.shape[1] < 2:
            notes.append(f"{subject.name}: {kind} has one dimension alone, and a gap needs two")
            continue
        figures += _figures(subject.name, kind, features, labels, held_out, predictor, seed)
    return Part(figures=figures, notes=notes)


def disentanglement_plots(figures: Sequence[Figure]) -> list[Plot]:
    """The lead of the best dimension, attribute by attribute."""
    return drawn(
        *(rows_of_points(figures, name, "attribute") for name in ("lead in information", "lead in AUROC"))
    )


def _usable(labels: Labels, held_out: Tensor) -> tuple[Labels, list[str]]:
    """The attributes with examples enough for every figure, so that all rest on the same ones."""
    why = {name: too_few(labels.values[:, k], held_out) for k, name in enumerate(labels.names)}
    enough = [name for name, reason in why.items() if not reason]
    return labels.only(enough), left_out({name: reason for name, reason in why.items() if reason})


def _figures(
    bundle: str,
    kind: str,
    features: Tensor,
    labels: Labels,
    held_out: Tensor,
    predictor: Predictor,
    seed: int,
) -> list[Figure]:
    names, values = labels.names, labels.values
    about: dict[str, Any] = {"bundle": bundle, "num": len(features), "better": "higher"}
    whole: dict[str, Scalar] = {"features": kind}
    sizes = {"num_dimensions": features.shape[1], "num_attributes": len(names)}
    fitted = sizes | {"predictor": predictor, "num_train": int((~held_out).sum())}
    parts = dci(features, values, names, held_out=held_out, seed=seed, predictor=predictor)
    mig = mutual_information_gap(features, values, names, seed=seed)
    tad = total_auroc_difference(features, values, names, seed=seed)
    scored = about | {"num": int(held_out.sum())}
    found = [
        Figure(
            name=f"DCI {name}",
            value=value,
            condition=whole,
            computed_with=fitted | {"interval": "none, every replicate would fit all classifiers anew"},
            **about,
        )
        for name, value in (
            ("disentanglement", parts.disentanglement),
            ("completeness", parts.completeness),
        )
    ]
    found += [
        estimated(
            parts.informativeness, name="DCI informativeness", condition=whole, computed_with=fitted, **scored
        ),
        estimated(mig.score, name="MIG", condition=whole, computed_with=sizes | {"bins": 20}, **about),
        estimated(
            tad.score,
            name="TAD",
            condition=whole,
            computed_with=sizes | {"num_captured": tad.num_captured or 0},
            **about,
        ),
    ]
    for name, gaps in (("lead in information", mig), ("lead in AUROC", tad)):
        found += _leads(name, gaps, kind, about)
    return found + _by_chance(features, labels, kind, about, seed)


def _by_chance(features: Tensor, labels: Labels, kind: str, about: dict[str, Any], seed: int) -> list[Figure]:
    """MIG and TAD of labels that belong to other images: the mean over NUM_SHUFFLES orders."""
    chance: dict[str, list[float]] = {"MIG": [], "TAD": []}
    for k in range(NUM_SHUFFLES):
        order = torch.randperm(len(features), generator=keyed_generator(seed, SHUFFLED, k))
        for name, metric in (("MIG", mutual_information_gap), ("TAD", total_auroc_difference)):
            gaps = metric(features, labels.values[order], labels.names, seed=seed, num_resamples=2)
            chance[name].append(gaps.score.value)
    return [
        Figure(
            name=f"{name}, {SHUFFLED}",
            value=sum(values) / NUM_SHUFFLES,
            condition={"features": kind},
            computed_with={"num_shuffles": NUM_SHUFFLES},
            **about | {"better": ""},
        )
        for name, values in chance.items()
    ]


def _leads(name: str, gaps: GapScore, kind: str, about: dict[str, Any]) -> list[Figure]:
    return [
        Figure(
            name=name,
            value=gap.gap,
            condition={"features": kind, "attribute": attribute},
            computed_with={"best_dimension": gap.best, "its_score": round(gap.value, 4)},
            detail=True,
            **about,
        )
        for attribute, gap in gaps.by_name.items()
    ]
