"""Writes bundles: whole ones, and a prior or attributes into one that is there.

What is written appears complete or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from rdm_cli import __version__
from rdm_cli.core.bundle_folders import INDEX, replace_bundle, replace_folder
from rdm_cli.core.bundle_parts import WEIGHTS
from rdm_cli.core.bundles import SCHEDULER, Bundle
from rdm_cli.core.configs import json_file, to_json
from rdm_cli.core.schedulers import scheduler_json
from rdm_cli.data.tensor_files import first_not_finite, write_tensors
from rdm_cli.errors import BundleError
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.method import Method, RepresentationModel
from rdm_cli.models.foreign_config import ForeignConfig
from rdm_cli.priors.latent_ddim import LatentDDIM


def save_bundle(
    folder: Path,
    method: Method,
    model: nn.Module,
    *,
    card: str,
    prior: LatentDDIM | None = None,
    directions: Directions | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a whole bundle; ``folder`` appears complete, or stays as it was.

    Raises UsageError where ``folder`` holds something else than a bundle: that is not replaced.
    """
    described = cast(RepresentationModel, model)
    index: dict[str, Any] = {
        "_class_name": "RdmBundle",
        "_rdm_version": __version__,
        "method": method.name,
    }
    with replace_bundle(folder) as new:
        for name in method.components:
            config = described.component_config(name)
            network = getattr(model, name)
            if network is None:
                continue
            save_component(new / name, config, network, dtype)
            if isinstance(config, ForeignConfig):
                index[name] = ["diffusers", config.class_name]
            else:
                index[name] = [type(network).__module__, type(network).__name__]
        if method.samples:
            index["image_size"] = described.image_size
            index["scheduler"] = ["diffusers", "DDIMScheduler"]
            _write_json(new / SCHEDULER, scheduler_json(described.sampling, described.prediction))
        if prior is not None:
            save_prior(new / "prior", prior, dtype)
        if directions is not None:
            save_directions(new / "attributes", directions)
        _write_json(new / INDEX, index)
        (new / "README.md").write_text(card, encoding="utf-8")


def add_prior(bundle: Bundle, prior: LatentDDIM, dtype: torch.dtype = torch.float32) -> None:
    """Put ``prior`` into an existing bundle, in place of the one it had."""
    with replace_folder(bundle.folder / "prior") as new:
        save_prior(new, prior, dtype)


def add_directions(bundle: Bundle, directions: Directions) -> None:
    """Put ``directions`` into an existing bundle, in place of those it had."""
    with replace_folder(bundle.folder / "attributes") as new:
        save_directions(new, directions)


def save_component(folder: Path, config: Any, network: nn.Module, dtype: torch.dtype) -> None:
    """Write one network's ``config.json`` and weights, floating-point ones in ``dtype``."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", {"_class_name": type(network).__name__, **to_json(config)})
    tensors = {
        name: (value.to(dtype) if value.is_floating_point() else value).contiguous().cpu()
        for name, value in network.state_dict().items()
    }
    floats = ((name, value) for name, value in tensors.items() if value.is_floating_point())
    if (name := first_not_finite(floats)) is not None:
        raise BundleError(
            f"{folder.name}: {name} holds values that are not finite in {dtype}, so it is not written"
        )
    write_tensors(folder / WEIGHTS, tensors, {"format": "pt"})


def save_prior(folder: Path, prior: LatentDDIM, dtype: torch.dtype) -> None:
    """Write a latent prior as a component."""
    save_component(folder, prior.config, prior, dtype)


def save_directions(folder: Path, directions: Directions) -> None:
    """Write attribute directions: tensors, and names with their held-out scores."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("weight", "bias", "z_mean", "z_std", "pattern")
    given = {name: getattr(directions, name) for name in names}
    tensors = {name: t.float().contiguous().cpu() for name, t in given.items() if t is not None}
    if (name := first_not_finite(tensors.items())) is not None:
        raise BundleError(f"attributes: {name} holds values that are not finite, so they are not written")
    write_tensors(folder / "attributes.safetensors", tensors, {"format": "pt"})
    _write_json(folder / "attributes.json", {"names": list(directions.names), "scores": directions.scores})


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json_file(values), encoding="utf-8")
