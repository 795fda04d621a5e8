"""Bundles: a trained method as a folder in the diffusers layout.

    model_index.json                       method, and what lies in each sub-folder
    <component>/config.json                one folder a network, with its weights in
    <component>/diffusion_pytorch_model.safetensors
    scheduler/scheduler_config.json        noise schedule and sampler; diffusers' DDIMScheduler opens it
    prior/                                 latent prior, where there is one
    attributes/                            attribute directions, where there are some
    domain/                                what the codes of the training images look like
    concepts/                              what divides these codes, found without labels
    README.md                              the model card

The digest covers networks and scheduler: what a code depends on. Training a prior or attributes
later, or another sampler for what is drawn, leaves it, and every code, valid. A diffusers pipeline of
a UNet2DModel, on images or on latents, is opened as it is, as a plain DPM.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from rdm_cli import __version__
from rdm_cli.bundles.places import INDEX, find_bundle, sub_folders
from rdm_cli.bundles.reading import (
    CONCEPTS,
    DOMAIN,
    WEIGHTS,
    build_network,
    in_float32,
    load_weights,
    parse_config,
    read_directions,
    read_domain,
    read_json,
    read_transports,
    refuse_not_finite,
)
from rdm_cli.bundles.scheduler_json import read_scheduler, without_samplings
from rdm_cli.errors import BundleError, CheckpointError, UsageError, setting
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.domain import Domain
from rdm_cli.methods.dpm.pipelines import PipelineFiles, find_pipeline, read_pipeline
from rdm_cli.methods.method import Method, RepresentationModel
from rdm_cli.methods.transport import Transports
from rdm_cli.priors.gaussian import GaussianPrior
from rdm_cli.priors.latent_ddim import LatentDDIM, LatentDDIMConfig
from rdm_cli.registry import FIRST_STAGE, METHODS, load
from rdm_cli.runtime import Precision, memory_told, with_cast_weights

SCHEDULER = "scheduler/scheduler_config.json"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An open bundle; its networks are on ``device``, in evaluation mode and float32.

    ``remarks`` are what of a diffusers pipeline is not followed.
    """

    name: str
    folder: Path
    method: Method
    model: RepresentationModel
    digest: str
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Which bundle, in one line: no weights."""
        return f"<Bundle {self.name} ({self.method.name}) in {self.folder}, on {self.device}>"

    def move_to(self, device: torch.device) -> None:
        """Move the networks to ``device``, where they stay; raises RdmError where it has not the memory."""
        networks = [*self._models.values(), *([self.prior] if "prior" in self.__dict__ else [])]
        with memory_told(f"{self.name} on {device}", f"take another {setting('device')}"):
            for network in networks:
                cast(nn.Module, network).to(device)
        object.__setattr__(self, "device", device)

    @property
    def has_z(self) -> bool:
        """Whether codes have a z: those of a plain DPM are x_T alone."""
        return self.z_width > 0

    @property
    def z_width(self) -> int:
        """Number of values in a code's z."""
        return math.prod(self.model.z_shape)

    @cached_property
    def _models(self) -> dict[Precision, RepresentationModel]:
        return {"fp32": self.model}

    def model_in(self, precision: Precision) -> RepresentationModel:
        """The networks with weights as autocast to ``precision`` would have them; fp32: ``model`` itself."""
        if precision not in self._models:
            cast_model = with_cast_weights(cast(nn.Module, self.model), precision)
            self._models[precision] = cast(RepresentationModel, cast_model)
        return self._models[precision]

    def require_z(self, purpose: str) -> None:
        """Raise UsageError, naming ``purpose``, where codes have no z."""
        if not self.has_z:
            raise UsageError(
                f"{self.name}: {purpose}: a plain DPM has no z, its codes are x_T alone",
                hint=f"name another {setting('bundle')}",
            )

    def require_one_z(self, purpose: str) -> None:
        """Raise UsageError, naming ``purpose``, where codes have no z, or one for each timestep."""
        self.require_z(purpose)
        if self.model.time_dependent:
            raise UsageError(f"{self.name}: {purpose}: its z is one for each timestep")

    def _check_width(self, folder: Path, width: int) -> None:
        """Raise BundleError where what lies in ``folder`` is for a z of another ``width``."""
        if width != self.z_width:
            raise BundleError(f"{folder}: made for codes of {width} values, not {self.model.z_shape}")

    @cached_property
    def prior(self) -> LatentDDIM:
        """The latent prior; raises BundleError where the bundle has none, UsageError without z."""
        self.require_z("a prior over z")
        folder = self.folder / "prior"
        if not folder.is_dir():
            raise BundleError(
                f"{self.name}: this bundle has no latent prior",
                hint=f"train one: rdm train prior CODES --bundle {self.name}",
            )
        config = parse_config(LatentDDIMConfig, read_json(folder / "config.json"), folder)
        prior: LatentDDIM = build_network(folder, [folder / WEIGHTS], lambda: LatentDDIM(config))
        load_weights(prior, folder)
        refuse_not_finite(prior.state_dict().items(), folder / WEIGHTS)
        self._check_width(folder, prior.z_width)
        return in_float32(prior).to(self.device).eval()

    @property
    def prior_digest(self) -> str:
        """SHA-256 over the latent prior's files, which the bundle's digest does not cover."""
        return _digest({name: self.folder / "prior" / name for name in ("config.json", WEIGHTS)})

    def prior_named(self, name: str | None) -> LatentDDIM | GaussianPrior:
        """The prior ``name``; None: one that was trained for the bundle, or else the method's own.

        Raises UsageError where z is not trained for it.
        """
        is_there = (self.folder / "prior").is_dir()
        if (name or ("latent-ddim" if is_there else self.method.prior)) == "latent-ddim":
            return self.prior
        self.require_z("a prior over z")
        if self.method.prior != "gaussian":
            raise UsageError(
                f"{self.name}: {setting('prior')} gaussian: nothing in its training makes z normal",
                hint=f"use {setting('prior')} latent-ddim",
            )
        return GaussianPrior(z_width=self.z_width)

    @cached_property
    def directions(self) -> Directions:
        """The attribute directions; raises BundleError where the bundle has none, UsageError without z."""
        self.require_z("attributes")
        folder = self.folder / "attributes"
        if not folder.is_dir():
            raise BundleError(
                f"{self.name}: this bundle has no attributes",
                hint=f"train some: rdm train attributes CODES --labels FILE --bundle {self.name}",
            )
        directions = read_directions(folder)
        self._check_width(folder, directions.width)
        return directions

    @cached_property
    def transports(self) -> Transports:
        """Edits of attributes by transport, as far as it has some. Raises BundleError for damaged ones."""
        found = read_transports(self.folder / "attributes")
        for one in found.maps.values():
            self._check_width(self.folder / "attributes", len(one.mean_from))
        return found

    @cached_property
    def attributes(self) -> tuple[Directions | None, Transports]:
        """Directions and transports, where it has some. Raises BundleError for damaged ones."""
        return (self.directions if "attributes" in self.parts else None), self.transports

    @cached_property
    def concepts(self) -> Directions | None:
        """What divides its codes, found without labels; None where nobody looked. Raises BundleError."""
        folder = self.folder / CONCEPTS
        if not folder.is_dir():
            return None
        concepts = read_directions(folder)
        self._check_width(folder, concepts.width)
        return concepts

    @cached_property
    def seen(self) -> Counter[str]:
        """Of its "images" since it was opened: how many are "outside" its domain, and if that was "told"."""
        return Counter()

    @cached_property
    def domain(self) -> Domain | None:
        """What its training images look like; None where it does not say. Raises BundleError."""
        folder = self.folder / DOMAIN
        if not folder.is_dir():
            return None
        domain = read_domain(folder)
        self._check_width(folder, len(domain.mean))
        return domain

    @property
    def parts(self) -> tuple[str, ...]:
        """The sub-folders that are there."""
        return sub_folders(self.folder)


def open_bundle(spec: str | Path, device: torch.device | str = "cpu", *, fetches: bool = True) -> Bundle:
    """Open a shipped name, a folder or ``hf:owner/name[@revision]``; of a bundle, or of a diffusers pipeline.

    Without ``fetches`` the network is not asked. Raises BundleError where it is not there, incomplete or
    damaged, RdmError where the device has not the memory for it.
    """
    spec = os.fspath(spec)
    with memory_told(f"{spec} on {device}", f"close other programs, or take another {setting('device')}"):
        return _open_found(spec, torch.device(device), fetches=fetches)


def _open_found(spec: str, device: torch.device, *, fetches: bool) -> Bundle:
    folder = find_bundle(spec, fetches=fetches)
    called = spec if spec.startswith("hf:") else folder.name
    index = read_json(folder / INDEX) if (folder / INDEX).is_file() else {}
    if "method" not in index and (pipeline := find_pipeline(folder)) is not None:
        return _open_pipeline(folder, called, pipeline, device)
    try:
        return _open(folder, called, index, device)
    except BundleError as error:
        by = index.get("_rdm_version", __version__)
        if by == __version__ or error.hint is not None:
            raise
        raise BundleError(
            error.message, hint=f"it was written by rdm {by}, and this is {__version__}"
        ) from error


def _open(folder: Path, called: str, index: Mapping[str, Any], device: torch.device | str) -> Bundle:
    if index.get("method") == FIRST_STAGE:
        raise BundleError(
            f"{folder}: a first stage, which encodes nothing by itself",
            hint=f"rdm train lrdm IMAGES -o my-lrdm --first-stage {folder}",
        )
    pipeline = index.get("_class_name")
    if "method" not in index and isinstance(pipeline, str) and pipeline != "RdmBundle":
        raise BundleError(
            f"{folder}: a diffusers {pipeline}, without a UNet2DModel in unet/",
            hint="rdm opens pipelines of a UNet2DModel and a scheduler, with a vqvae or vae or without",
        )
    if not isinstance(index.get("method"), str) or index["method"] not in METHODS:
        raise BundleError(
            f"{folder}: {INDEX} names no method that this rdm knows", hint=f"known: {', '.join(METHODS)}"
        )
    method: Method = load(METHODS, "method", index["method"])
    present = [n for n in method.components if n not in method.optional or (folder / n).is_dir()]
    parts: dict[str, Any] = dict.fromkeys(method.components)
    for name in present:
        where = folder / name
        parts[name] = parse_config(method.components[name], read_json(where / "config.json"), where)
    scheduler = folder / SCHEDULER
    try:
        sampling, prediction = read_scheduler(read_json(scheduler))
    except ValueError as error:
        raise BundleError(f"{scheduler}: {error}") from error
    weights = [folder / name / WEIGHTS for name in present]
    whole = {**parts, "sampling": sampling, "prediction": prediction}
    model = build_network(folder, weights, lambda: method.model(method.config(**whole)))
    for name in present:
        load_weights(getattr(model, name), folder / name)
    in_float32(model).to(device).eval().requires_grad_(False)
    return Bundle(
        name=called,
        folder=folder,
        method=method,
        model=cast(RepresentationModel, model),
        digest=bundle_digest(folder, present),
        device=torch.device(device),
    )


def _open_pipeline(folder: Path, name: str, files: PipelineFiles, device: torch.device | str) -> Bundle:
    try:
        with torch.random.fork_rng(devices=[]):
            model = read_pipeline(files)
    except CheckpointError as error:
        raise BundleError(error.message, hint=error.hint) from error
    in_float32(model).to(device).eval().requires_grad_(False)
    parts = {"unet/config.json": files.config}
    parts |= {f"unet/{path.name}": path for path in files.weights.files}
    parts |= {SCHEDULER: files.scheduler}
    if files.first_stage is not None and files.first_stage_weights is not None:
        stage = [files.first_stage, *files.first_stage_weights.files]
        parts |= {f"first_stage/{path.name}": path for path in stage}
    return Bundle(
        name=name,
        folder=folder,
        method=load(METHODS, "method", "dpm"),
        model=model,
        digest=_digest(parts),
        device=torch.device(device),
        remarks=files.remarks,
    )


def bundle_digest(folder: Path, components: Iterable[str]) -> str:
    """SHA-256 over the networks in ``components`` and the scheduler, 64 hexadecimal digits."""
    names = [f"{c}/{file}" for c in sorted(components) for file in ("config.json", WEIGHTS)]
    return _digest({name: folder / name for name in [*names, SCHEDULER]})


def _digest(files: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in files.items():
        digest.update(name.encode())
        if name == SCHEDULER:
            digest.update(hashlib.sha256(without_samplings(path.read_bytes())).digest())
            continue
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
