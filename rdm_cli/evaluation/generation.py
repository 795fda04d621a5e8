"""How like images a bundle's samples are: FD, KD, precision and recall at several T, for each prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rdm_cli.bundles.bundle import Bundle
from rdm_cli.errors import CodeError
from rdm_cli.evaluation.figures import Figure, Part, Scalar, Sheet, curves, drawn, estimated
from rdm_cli.evaluation.material import SHOWN, Material, Subject, as_rgb, as_stored
from rdm_cli.methods.conditions import of_images
from rdm_cli.metrics.distribution import frechet_distance, kernel_distance
from rdm_cli.metrics.features import FeatureExtractor, features_of
from rdm_cli.metrics.inception import NAME as INCEPTION
from rdm_cli.metrics.manifold import density_coverage, precision_recall
from rdm_cli.pipeline.running import Advance
from rdm_cli.reports.plots import Plot

LEAD = (
    "Samples of each bundle, decoded in T steps, against the images, on the features of a network. FD on the "
    "first principal axes of the images' features, KD (times 1000) on all features; precision says how many "
    "samples look like images, recall how many images have a sample like them. FD, precision and recall "
    "compare only between equal numbers of images."
)
AT_ONCE = 50
CPU = torch.device("cpu")
LEAST = 10  # images on each side, for one dimension of FD
NO_Z = "x_T alone"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What samples are compared with, by ``extractor``; ``known`` keeps features for each shape of images."""

    material: Material
    extractor: FeatureExtractor
    known: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    def features(self, subject: Subject) -> Tensor:
        """Features (N, d) of the images at the size of ``subject``'s; computed when first asked for."""
        shape = subject.pipeline.bundle.model.image_shape
        if shape not in self.known:
            self.known[shape] = features(
                self.extractor, self.material.images(subject.pipeline), subject.pipeline.device
            )
        return self.known[shape]


def priors_of(bundle: Bundle) -> list[str]:
    """What can draw this bundle's z: names of priors; a plain DPM has no z, and one entry that says so."""
    if not bundle.has_z:
        return [NO_Z]
    found = ["latent-ddim"] if (bundle.folder / "prior").is_dir() else []
    return found + (["gaussian"] if bundle.method.prior == "gaussian" else [])


def features(extractor: FeatureExtractor, x_0: Tensor, device: torch.device = CPU) -> Tensor:
    """Features (N, d), on the CPU, of pictures (N, C, H, W), rounded to the levels that a file would hold.

    The network runs on ``device``.
    """
    return features_of(extractor, (as_rgb(as_stored(part)).to(device) for part in x_0.split(AT_ONCE)))


def generation_work(subject: Subject, num: int, steps: Sequence[int]) -> float:
    """How many images' worth of work :func:`measure_generation` is."""
    return float(max(1, len(priors_of(subject.pipeline.bundle))) * num * len(steps))


def measure_generation(
    subject: Subject,
    reference: Reference,
    *,
    num: int,
    steps: Sequence[int],
    seed: int,
    advance: Advance,
) -> Part:
    """Distances of ``num`` samples from each prior at each of ``steps``, of the same draws at every T."""
    bundle = subject.pipeline.bundle
    for name in of_images(bundle.model.conditions):
        return Part(notes=[f"{subject.name}: draws nothing without a {name}, which only an image gives"])
    priors = priors_of(bundle)
    if not priors:
        hint = f"rdm train prior CODES --bundle {bundle.name}"
        return Part(notes=[f"{subject.name}: no prior over z, and so no samples; train one: {hint}"])
    figures: list[Figure] = []
    rows: list[tuple[str, Tensor]] = []
    notes: list[str] = []
    real = reference.features(subject)
    for prior in priors:
        pipeline = replace(subject.pipeline, prior=None if prior == NO_Z else prior)
        codes = pipeline.sample(num, seed=seed)
        for t in steps:
            try:
                pictures = pipeline.decode(codes, steps=t, advance=advance)
            except CodeError as error:  # a z that holds one step each, and no others
                notes.append(f"{subject.name}: T={t}: {error}")
                continue
            how: dict[str, Scalar] = {"prior": prior, "T": t}
            found = features(reference.extractor, pictures, bundle.device)
            figures += distance_figures(subject.name, how, real, found, reference.extractor, seed)
            rows.append((f"T={t}, {prior}", pictures[:SHOWN]))
    caption = f"{subject.name}: the same draws at each T, none picked"
    return Part(figures=figures, sheets=[Sheet(caption=caption, rows=rows)] if rows else [], notes=notes)


def generation_plots(figures: Sequence[Figure]) -> list[Plot]:
    """The distances, precision and recall over T."""
    shown = dict.fromkeys(f.name for f in figures if not f.detail)
    names = [name for name in shown if name not in ("density", "coverage")]
    return drawn(*(curves(figures, name, "T") for name in names))


def distance_names(extractor: FeatureExtractor) -> tuple[str, str]:
    """What the two distances on its features are called: FID and KID on Inception's alone."""
    if extractor.name == INCEPTION:
        return "FID", "KID"
    return f"FD-{extractor.name}", f"KD-{extractor.name}"


def distance_figures(
    bundle: str,
    how: Mapping[str, Scalar],
    real: Tensor,
    made: Tensor,
    extractor: FeatureExtractor,
    seed: int,
) -> list[Figure]:
    """FD, KD, precision, recall, density and coverage of features ``made`` (M, d) against ``real`` (N, d)."""
    frechet = frechet_distance(real, made, seed=seed)
    kernel = kernel_distance(real, made, seed=seed)
    near = precision_recall(real, made)
    dense = density_coverage(real, made, seed=seed)
    fd, kd = distance_names(extractor)
    with_network: dict[str, Scalar] = {**extractor.provenance, "num_reference": len(real)}
    whole = real.shape[1]
    if frechet.num_dimensions < whole:
        fd = f"{fd} ({frechet.num_dimensions} of {whole} dimensions)"
    about: dict[str, Any] = {"bundle": bundle, "condition": how, "num": len(made)}
    rests_on = {
        f"bias of {fd} from finite samples": frechet.bias,
        f"share of the images' features seen by {fd}": frechet.kept_reference,
        f"share of the samples' features seen by {fd}": frechet.kept_generated,
    }
    thousandfold = replace(kernel, value=1000 * kernel.value, low=1000 * kernel.low, high=1000 * kernel.high)
    manifold = with_network | {"neighbours": near.num_neighbours}
    counted = with_network | {"neighbours": dense.num_neighbours}
    return [
        estimated(frechet.distance, name=fd, better="lower", computed_with=with_network, **about),
        estimated(thousandfold, name=f"{kd} x 1000", better="lower", computed_with=with_network, **about),
        estimated(near.precision, name="precision", better="higher", computed_with=manifold, **about),
        estimated(near.recall, name="recall", better="higher", computed_with=manifold, **about),
        estimated(dense.density, name="density", better="higher", computed_with=counted, **about),
        estimated(dense.coverage, name="coverage", better="higher", computed_with=counted, **about),
        *(
            Figure(name=name, value=value, detail=True, computed_with=with_network, **about)
            for name, value in rests_on.items()
        ),
    ]
