"""Looking into bundles: what is there, and whether it works."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import nn

from rdm_cli.bundles.bundle import Bundle, open_bundle
from rdm_cli.bundles.listing import megabytes
from rdm_cli.bundles.places import find_bundle, sub_folders
from rdm_cli.data.io.tensor_files import first_not_finite
from rdm_cli.errors import BundleError, RdmError
from rdm_cli.pipeline.classes import known_classes
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.pipeline.sampling import sampling_way, way_up


def details(spec: str) -> dict[str, Any]:
    """Everything worth knowing about a bundle, from its opened parts."""
    bundle = open_bundle(spec)
    model, sampling = bundle.model, bundle.model.sampling
    facts: dict[str, Any] = {
        "bundle": bundle.name,
        "method": bundle.method.name,
        "title": bundle.method.title,
        "image_size": model.image_size,
        "parts": list(sub_folders(bundle.folder)),
        "z_shape": list(model.z_shape),
        "prediction": model.prediction,
        "sampling_steps": sampling.steps,
        "timesteps": sampling.spacing,
        "clip_x_0": sampling.clip_x_0,
        "inversion": asdict(way_up(bundle).sampling),
        "decoding_of_samples": asdict(sampling_way(bundle, None, None).sampling),
    }
    if classes := known_classes(bundle):
        facts["classes"] = list(classes)
    for name in bundle.method.components:
        if getattr(model, name) is not None:
            facts[f"{name}_parameters"] = _count(getattr(model, name))
    if "prior" in bundle.parts:
        facts["prior_parameters"] = _count(bundle.prior)
    if "attributes" in bundle.parts:
        facts["attributes"] = list(bundle.directions.names)
    if bundle.remarks:
        facts["remarks"] = list(bundle.remarks)
    return facts | {
        "digest": bundle.digest,
        "megabytes": megabytes(bundle.folder),
        "folder": str(bundle.folder),
    }


def read_card(spec: str) -> str:
    """A bundle's model card; raises BundleError where it has none."""
    path = find_bundle(spec) / "README.md"
    if not path.is_file():
        raise BundleError(f"{spec}: this bundle has no model card")
    return path.read_text(encoding="utf-8")


def check(spec: str) -> Iterator[tuple[str, str | None]]:
    """Open and run each part; yields (part, problem or None). Raises BundleError where there is none."""
    find_bundle(spec)
    try:
        bundle = open_bundle(spec)
    except RdmError as error:
        yield "networks", str(error)
        return
    yield "networks", _first_not_finite(bundle)
    yield "round trip", _round_trip(bundle)
    opens = {"prior": "prior", "attributes": "directions", "domain": "domain", "concepts": "concepts"}
    for part in (part for part in opens if part in bundle.parts):
        try:
            getattr(bundle, opens[part])
        except RdmError as error:
            yield part, str(error)
        else:
            yield part, None
    yield "model card", None if (bundle.folder / "README.md").is_file() else "README.md is missing"


def _first_not_finite(bundle: Bundle) -> str | None:
    name = first_not_finite(cast(nn.Module, bundle.model).named_parameters())
    return None if name is None else f"{name} holds values that are not finite"


def _round_trip(bundle: Bundle) -> str | None:
    pipeline = Pipeline(bundle=bundle, on_remark=lambda name, text: None)  # a grey image is no training image
    x_0 = torch.zeros(1, *bundle.model.image_shape)
    decoded = pipeline.decode(pipeline.encode(x_0, classes=known_classes(bundle)[:1] or None, steps=2))
    return None if bool(torch.isfinite(decoded).all()) else "decoding a grey image gives no finite picture"


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
