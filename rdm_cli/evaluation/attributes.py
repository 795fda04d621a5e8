"""What a linear probe reads off z, attribute by attribute, beside what it reads off pixels and chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from rdm_cli.evaluation.figures import Figure, Part, Scalar, drawn, estimated, rows_of_points
from rdm_cli.evaluation.material import Material, Subject, as_rgb
from rdm_cli.metrics.features import features_of, open_random_network
from rdm_cli.metrics.linear_probes import hold_out, linear_probes, pixel_components
from rdm_cli.metrics.ranking import Separation
from rdm_cli.pipeline.running import Advance
from rdm_cli.reports.plots import Plot

LEAD = (
    "A linear classifier for each attribute is fitted on some of the codes and scored on the rest. The same "
    "classifiers on as many principal components of the pixels, and on as many features of a network that "
    "never learned, say how much of that is the code's merit. Chance is 0.5 for AUROC, and the share of "
    "positives for average precision."
)
AT_ONCE = 64
MEAN = "mean"
SPREAD_ROWS = 12  # attributes up to which each is shown on the terminal, not the mean alone


def codes_of(subject: Subject, material: Material, x_0: Tensor, advance: Advance) -> Tensor:
    """z of each image, float32 (N, d), as the bundle encodes it by itself."""
    pipeline = subject.pipeline
    codes = material.encoded(pipeline, x_0, with_x_T=False, advance=advance)
    return codes.z.flatten(1)


def measure_attributes(subject: Subject, material: Material, *, seed: int, advance: Advance) -> Part:
    """Probes of all labels on z and on both baselines, on one split; a line in its place without z.

    Raises UsageError where scikit-learn is absent.
    """
    if not subject.pipeline.bundle.has_z:
        return Part(notes=[f"{subject.name}: a plain DPM has no z to probe"])
    labels = material.known()
    x_0 = material.images(subject.pipeline)
    z = codes_of(subject, material, x_0, advance)
    held_out = hold_out(len(z), seed=seed)
    network = open_random_network(seed=seed, num_features=z.shape[1])
    components = pixel_components(x_0, held_out=held_out, num_components=z.shape[1], seed=seed)
    split: dict[str, Scalar] = {"num_train": int((~held_out).sum()), "num_held_out": int(held_out.sum())}
    kinds: dict[str, tuple[Tensor, Mapping[str, Scalar]]] = {
        "z": (z, {}),
        "PCA of pixels": (components, {}),
        "random network": (
            features_of(network, (as_rgb(part) for part in x_0.split(AT_ONCE))),
            network.provenance,
        ),
    }
    figures: list[Figure] = []
    skipped: dict[str, str] = {}
    for kind, (features, made_with) in kinds.items():
        try:
            probes = linear_probes(features, labels.values, labels.names, held_out=held_out, seed=seed)
        except ValueError as error:  # too few examples of every attribute
            return Part(notes=[f"{subject.name}: {error}"])
        computed_with = {**split, "num_features": features.shape[1], **made_with}
        many = len(probes.by_name) > SPREAD_ROWS
        for name, found in {MEAN: probes.mean, **probes.by_name}.items():
            how: dict[str, Scalar] = {"attribute": name, "features": kind}
            num = int(held_out.sum()) if name == MEAN else found.num_scored
            figures += _figures(subject.name, how, found, num, computed_with, name != MEAN, many=many)
        skipped |= probes.skipped
    return Part(figures=figures, notes=left_out(skipped))


def left_out(reasons: Mapping[str, str]) -> list[str]:
    """One line on the attributes that could not be measured, if any."""
    told = "; ".join(f"{name} ({why})" for name, why in reasons.items())
    return [f"attributes left out: {told}"] if told else []


def attributes_plots(figures: Sequence[Figure]) -> list[Plot]:
    """AUROC and average precision, attribute by attribute."""
    return drawn(*(rows_of_points(figures, name, "attribute") for name in ("AUROC", "average precision")))


def _figures(
    bundle: str,
    how: dict[str, Scalar],
    found: Separation,
    num: int,
    computed_with: Mapping[str, Scalar],
    detail: bool,
    *,
    many: bool,
) -> list[Figure]:
    about: dict[str, Any] = {"bundle": bundle, "condition": how, "num": num, "better": "higher"}
    with_counts = {**computed_with, "num_positive": found.num_positive} if detail else computed_with
    named = {
        "AUROC": (found.auroc, detail and many),
        "average precision": (found.average_precision, detail),
        "F1": (found.f1, detail),
    }
    return [
        estimated(estimate, name=name, detail=hidden, computed_with=with_counts, **about)
        for name, (estimate, hidden) in named.items()
    ]
