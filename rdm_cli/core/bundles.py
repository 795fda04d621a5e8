"""Bundles: a trained method as a folder in the diffusers layout.

    model_index.json                       method, and what lies in each sub-folder
    <component>/config.json                one folder a network, with its weights in
    <component>/diffusion_pytorch_model.safetensors
    scheduler/scheduler_config.json        noise schedule and sampler; diffusers' DDIMScheduler opens it
    prior/                                 latent prior, where there is one
    attributes/                            attribute directions, where there are some
    README.md                              the model card

The digest covers networks and scheduler: what a code depends on. Training a prior or attributes
later leaves it, and every code, valid. A diffusers pipeline of a UNet2DModel is opened as it is, as a
plain DPM.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from rdm_cli.core.bundle_folders import INDEX, find_bundle, sub_folders
from rdm_cli.core.configs import from_json
from rdm_cli.core.runtime import Precision, with_cast_weights
from rdm_cli.core.schedulers import read_scheduler
from rdm_cli.errors import BundleError, CheckpointError, UsageError
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.dpm.pipelines import PipelineFiles, find_pipeline, read_pipeline
from rdm_cli.methods.method import Method, RepresentationModel
from rdm_cli.priors.gaussian import GaussianPrior
from rdm_cli.priors.latent_ddim import LatentDDIM, LatentDDIMConfig
from rdm_cli.registry import METHODS, load

WEIGHTS = "diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler/scheduler_config.json"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An open bundle; its networks are on ``device``, in evaluation mode and float32."""

    name: str
    folder: Path
    method: Method
    model: RepresentationModel
    digest: str
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

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
                hint="name another --bundle",
            )

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
        config = _parse(LatentDDIMConfig, _read_json(folder / "config.json"), folder)
        prior: LatentDDIM = _build(folder, lambda: LatentDDIM(config))
        _load_weights(prior, folder)
        if prior.z_width != self.z_width:
            raise BundleError(f"{folder}: made for codes of {prior.z_width} values, not {self.model.z_shape}")
        return prior.to(self.device).eval()

    def prior_named(self, name: str | None) -> LatentDDIM | GaussianPrior:
        """The prior ``name``, or the method's own; raises UsageError where z is not trained for it."""
        if (name or self.method.prior) == "latent-ddim":
            return self.prior
        self.require_z("a prior over z")
        if self.method.prior != "gaussian":
            raise UsageError(
                f"{self.name}: --prior gaussian: nothing in its training makes z normal",
                hint="use --prior latent-ddim",
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
        header = _read_json(folder / "attributes.json")
        tensors = _read_tensors(folder / "attributes.safetensors")
        try:
            directions = Directions(
                names=tuple(header["names"]),
                scores=dict(header["scores"]),
                **{name: value.float() for name, value in tensors.items()},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{folder}: not the attributes of a bundle ({error})") from error
        width = directions.z_mean.numel()
        if width != self.z_width:
            raise BundleError(f"{folder}: made for codes of {width} values, not {self.model.z_shape}")
        return directions

    @property
    def parts(self) -> tuple[str, ...]:
        """The sub-folders that are there."""
        return sub_folders(self.folder)


def open_bundle(spec: str, device: torch.device | str = "cpu") -> Bundle:
    """Open a shipped name, a folder or ``hf:owner/name[@revision]``; of a bundle, or of a diffusers pipeline.

    Raises BundleError where it is not there, incomplete or damaged.
    """
    folder = find_bundle(spec)
    called = spec if spec.startswith("hf:") else folder.name
    index = _read_json(folder / INDEX) if (folder / INDEX).is_file() else {}
    if "method" not in index and (pipeline := find_pipeline(folder)) is not None:
        return _open_pipeline(folder, called, pipeline, device)
    if not isinstance(index.get("method"), str) or index["method"] not in METHODS:
        raise BundleError(
            f"{folder}: {INDEX} names no method that this rdm knows", hint=f"known: {', '.join(METHODS)}"
        )
    method: Method = load(METHODS, "method", index["method"])
    present = [n for n in method.components if n not in method.optional or (folder / n).is_dir()]
    parts: dict[str, Any] = dict.fromkeys(method.components)
    for name in present:
        where = folder / name
        parts[name] = _parse(method.components[name], _read_json(where / "config.json"), where)
    scheduler = folder / SCHEDULER
    try:
        sampling, prediction = read_scheduler(_read_json(scheduler))
    except ValueError as error:
        raise BundleError(f"{scheduler}: {error}") from error
    model = _build(folder, lambda: method.build(parts, sampling, prediction))
    for name in present:
        _load_weights(getattr(model, name), folder / name)
    model.to(device).eval().requires_grad_(False)
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
        model = read_pipeline(files)
    except CheckpointError as error:
        raise BundleError(error.message, hint=error.hint) from error
    model.to(device).eval().requires_grad_(False)
    parts = {
        "unet/config.json": files.config,
        f"unet/{WEIGHTS}": files.weights,
        SCHEDULER: files.scheduler,
    }
    return Bundle(
        name=name,
        folder=folder,
        method=load(METHODS, "method", "dpm"),
        model=model,
        digest=_digest(parts),
        device=torch.device(device),
    )


def bundle_digest(folder: Path, components: Iterable[str]) -> str:
    """SHA-256 over the networks in ``components`` and the scheduler, 64 hexadecimal digits."""
    names = [f"{c}/{file}" for c in sorted(components) for file in ("config.json", WEIGHTS)]
    return _digest({name: folder / name for name in [*names, SCHEDULER]})


def _digest(files: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in files.items():
        digest.update(name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _parse(config: type[Any], values: Mapping[str, Any], where: Path) -> Any:
    try:
        return from_json(config, values)
    except ValueError as error:
        raise BundleError(f"{where / 'config.json'}: {error}") from error


def _build(folder: Path, build: Callable[[], Any]) -> Any:
    try:
        return build()
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # the values have the right types, so what is wrong with them only the networks can tell
        raise BundleError(f"{folder}: its config.json files describe no network ({error})") from error


def _load_weights(network: nn.Module, folder: Path) -> None:
    tensors = _read_tensors(folder / WEIGHTS)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise BundleError(f"{folder / WEIGHTS}: the weights do not fit config.json: {first[:200]}") from error


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise BundleError(f"{path}: this part of the bundle is missing") from None
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path}: damaged weights ({error})") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"{path}: this part of the bundle is missing", hint="rdm bundles list shows what there is"
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(values, dict):
        raise BundleError(f"{path}: an object was expected")
    return values
