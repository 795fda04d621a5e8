"""Writes bundles: whole ones, and a prior or attributes into one that is there.

What is written appears complete or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import nn

from rdm_cli import __version__
from rdm_cli.bundles.bundle import SCHEDULER, Bundle
from rdm_cli.bundles.config_json import json_file, to_json
from rdm_cli.bundles.places import INDEX, copy_bundle, refuse_shipped, replace_bundle, replace_folder
from rdm_cli.bundles.reading import (
    CONCEPTS,
    DOMAIN,
    DOMAIN_FILE,
    TRANSPORT_PARTS,
    TRANSPORTS,
    WEIGHTS,
    read_directions,
    read_json,
    read_transports,
)
from rdm_cli.bundles.scheduler_json import scheduler_json
from rdm_cli.data.io.atomic import write_whole
from rdm_cli.data.io.tensor_files import first_not_finite, write_tensors
from rdm_cli.errors import BundleError, UsageError
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.domain import Domain
from rdm_cli.methods.method import Method, RepresentationModel
from rdm_cli.methods.transport import Transports
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


def refuse_read_only(bundle: Bundle) -> None:
    """Raise UsageError, and say how to copy it, where nothing is put into ``bundle``.

    That is one that comes with rdm, which every user of the installation shares, or a fetched one, which the
    hub's client may fetch again.
    """
    if bundle.name.startswith("hf:"):
        raise UsageError(
            f"{bundle.name}: what was fetched is kept as it was published",
            hint=f"copy it, and name the copy: rdm bundles copy {bundle.name} DIR",
        )
    refuse_shipped(bundle.folder)


def add_prior(bundle: Bundle, prior: LatentDDIM, dtype: torch.dtype = torch.float32) -> None:
    """Put ``prior`` into an existing bundle, in place of the one it had; UsageError for a read-only one."""
    refuse_read_only(bundle)
    with replace_folder(bundle.folder / "prior") as new:
        save_prior(new, prior, dtype)


def add_directions(
    bundle: Bundle,
    directions: Directions,
    transports: Transports | None = None,
    *,
    replace_all: bool = False,
) -> None:
    """Put ``directions`` into an existing bundle, in place of those of the same names; others stay.

    With them go the ``transports`` of these attributes, in place of the older ones. With ``replace_all`` the
    others are dropped. Raises UsageError for a read-only bundle, BundleError where what is stored cannot be
    read and so not be kept.
    """
    refuse_read_only(bundle)
    folder = bundle.folder / "attributes"
    transports = transports or Transports(exclusive=dict.fromkeys(directions.names, ()))
    if folder.is_dir() and not replace_all:
        directions = read_directions(folder).updated(directions)
        transports = read_transports(folder).updated(transports)
    with replace_folder(folder) as new:
        _save_attributes(new, directions, transports)


def write_attributes(
    bundle: Bundle,
    directions: Directions,
    transports: Transports,
    output: Path | None,
    *,
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Make these all attributes of the bundle, or of a copy of it at ``output``; returns that one's folder.

    A prior that was told of some that are ``renamed`` (new names by old ones) knows them by the new names.
    A copy appears whole or not at all; in the bundle itself first the attributes do, then the prior's names.
    Raises UsageError for a read-only bundle without ``output``, and for
    an ``output`` that is taken.
    """

    def change(folder: Path) -> None:
        with replace_folder(folder / "attributes") as new:
            _save_attributes(new, directions, transports)
        _rename_in_prior(folder / "prior", renamed)

    if output is None:
        refuse_read_only(bundle)
        change(bundle.folder)
        return bundle.folder
    copy_bundle(str(bundle.folder), output, change)
    return output


def _rename_in_prior(folder: Path, renamed: Mapping[str, str]) -> None:
    """Call the attributes that a prior was told by their new names, where it has some of the old ones.

    A new name that it was told of something else stays that one's.
    """
    path = folder / "config.json"
    if not renamed or not path.is_file():
        return
    config = read_json(path)
    told = list(config.get("attributes", ()))
    names = [renamed[n] if n in renamed and renamed[n] not in told else n for n in told]
    if names != told:
        write_whole(path, json_file(config | {"attributes": names}).encode())


def _save_attributes(folder: Path, directions: Directions, transports: Transports) -> None:
    """Write directions, and the transports of the same attributes, where there are some."""
    save_directions(folder, directions)
    kept = transports.select({name: name for name in directions.names})
    if kept.maps or any(kept.exclusive.values()) or any(kept.hidden.values()):
        tensors, told = transport_parts(directions.names, kept)
        write_tensors(folder / TRANSPORTS, tensors, {"rdm": json.dumps(told, sort_keys=True)})


def transport_parts(
    names: Sequence[str], transports: Transports
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The transports of attributes ``names`` as tensors in half precision, and what JSON says of them."""
    tensors = {
        f"{names.index(name)}.{int(value)}.{part}": getattr(one, part).half().contiguous()
        for (name, value), one in transports.maps.items()
        for part in TRANSPORT_PARTS
    }
    told = {"names": list(names), "exclusive": transports.exclusive, "hidden": transports.hidden}
    return tensors, told


FIGURES, END_OF_FIGURES = "<!-- figures: rdm train all -->", "<!-- end of figures: rdm train all -->"


def write_figures(bundle: Bundle, figures: str) -> None:
    """Put ``figures``, in Markdown, into the bundle's card, in place of those of the same maker.

    Raises UsageError for a read-only bundle.
    """
    refuse_read_only(bundle)
    card = bundle.folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else f"# {bundle.name}\n"
    before, _, rest = text.partition(FIGURES)
    after = rest.partition(END_OF_FIGURES)[2].lstrip("\n")
    parts = [before.rstrip("\n"), f"{FIGURES}\n\n{figures}\n\n{END_OF_FIGURES}", after.rstrip("\n")]
    write_whole(card, ("\n\n".join(filter(None, parts)) + "\n").encode())


def add_concepts(bundle: Bundle, concepts: Directions) -> None:
    """Put what divides a bundle's codes into it; UsageError for a read-only one.

    The classifiers alone, in half precision: nothing is edited along a concept before it is an attribute.
    """
    refuse_read_only(bundle)
    with replace_folder(bundle.folder / CONCEPTS) as new:
        save_directions(new, replace(concepts, pattern=None), torch.float16)


def add_domain(bundle: Bundle, domain: Domain) -> None:
    """Put what training images look like into an existing bundle; UsageError for a read-only one."""
    refuse_read_only(bundle)
    whitening = domain.whitening.half().contiguous()
    tensors = {"mean": domain.mean, "whitening": whitening, "limit": torch.tensor([domain.limit])}
    with replace_folder(bundle.folder / DOMAIN) as new:
        new.mkdir(parents=True, exist_ok=True)
        write_tensors(new / DOMAIN_FILE, tensors, {"format": "pt"})


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


def direction_tensors(directions: Directions, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Attribute directions as tensors by name; raises BundleError for values that are not finite."""
    names = ("weight", "bias", "z_mean", "z_std", "pattern")
    given = {name: getattr(directions, name) for name in names}
    tensors = {name: t.to(dtype).contiguous().cpu() for name, t in given.items() if t is not None}
    if (name := first_not_finite(tensors.items())) is not None:
        raise BundleError(f"attributes: {name} holds values that are not finite, so they are not written")
    return tensors


def save_directions(folder: Path, directions: Directions, dtype: torch.dtype = torch.float32) -> None:
    """Write attribute directions: tensors, and names with their held-out scores."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = direction_tensors(directions, dtype)
    write_tensors(folder / "attributes.safetensors", tensors, {"format": "pt"})
    _write_json(folder / "attributes.json", {"names": list(directions.names), "scores": directions.scores})


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json_file(values), encoding="utf-8")
