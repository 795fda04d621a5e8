"""Bundles: a trained method as a folder in the diffusers layout.

    model_index.json                       method, and what lies in each sub-folder
    <component>/config.json                one folder a network, with its weights in
    <component>/diffusion_pytorch_model.safetensors
    scheduler/scheduler_config.json        noise schedule and sampler; diffusers' DDIMScheduler opens it
    prior/                                 latent prior, where there is one
    attributes/                            attribute directions, where there are some
    README.md                              the model card

The digest covers networks and scheduler: what a code depends on. Training a prior or attributes
later leaves it, and every code, valid.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from rdm_cli import __version__
from rdm_cli.core.bundle_folders import INDEX, find_bundle, replace_bundle, replace_folder, sub_folders
from rdm_cli.core.configs import from_json, to_json
from rdm_cli.core.schedulers import read_scheduler, scheduler_json
from rdm_cli.core.tensor_files import write_tensors
from rdm_cli.errors import BundleError, UsageError
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.method import Method, RepresentationModel
from rdm_cli.priors.latent_ddim import LatentDDIM, LatentDDIMConfig
from rdm_cli.registry import METHODS, load

WEIGHTS = "diffusion_pytorch_model.safetensors"


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
        return math.prod(self.model.z_shape) > 0

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
        if (prior.z_width,) != self.model.z_shape:
            raise BundleError(f"{folder}: made for codes of {prior.z_width} values, not {self.model.z_shape}")
        return prior.to(self.device).eval()

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
        if directions.z_mean.shape != self.model.z_shape:
            width = directions.z_mean.numel()
            raise BundleError(f"{folder}: made for codes of {width} values, not {self.model.z_shape}")
        return directions

    @property
    def parts(self) -> tuple[str, ...]:
        """The sub-folders that are there."""
        return sub_folders(self.folder)


def open_bundle(spec: str, device: torch.device | str = "cpu") -> Bundle:
    """Open a shipped name, a folder or ``hf:owner/name[@revision]``.

    Raises BundleError where it is not there, incomplete or damaged.
    """
    folder = find_bundle(spec)
    index = _read_json(folder / INDEX)
    if not isinstance(index.get("method"), str) or index["method"] not in METHODS:
        raise BundleError(
            f"{folder}: {INDEX} names no method that this rdm knows", hint=f"known: {', '.join(METHODS)}"
        )
    method: Method = load(METHODS, "method", index["method"])
    parts = {
        name: _parse(config, _read_json(folder / name / "config.json"), folder / name)
        for name, config in method.components.items()
    }
    scheduler = folder / "scheduler" / "scheduler_config.json"
    try:
        sampling, prediction = read_scheduler(_read_json(scheduler))
    except ValueError as error:
        raise BundleError(f"{scheduler}: {error}") from error
    model = _build(folder, lambda: method.build(parts, sampling, prediction))
    for name in method.components:
        _load_weights(getattr(model, name), folder / name)
    model.to(device).eval().requires_grad_(False)
    return Bundle(
        name=spec if spec.startswith("hf:") else folder.name,
        folder=folder,
        method=method,
        model=cast(RepresentationModel, model),
        digest=bundle_digest(folder, method),
        device=torch.device(device),
    )


def bundle_digest(folder: Path, method: Method) -> str:
    """SHA-256 over the networks and the scheduler, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    names = [f"{c}/{file}" for c in sorted(method.components) for file in ("config.json", WEIGHTS)]
    for name in [*names, "scheduler/scheduler_config.json"]:
        digest.update(name.encode())
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


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
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    with replace_bundle(folder) as new:
        for name in method.components:
            network = getattr(model, name)
            save_component(new / name, described.component_config(name), network, dtype)
            index[name] = [type(network).__module__, type(network).__name__]
        _write_json(
            new / "scheduler" / "scheduler_config.json",
            scheduler_json(described.sampling, described.prediction),
        )
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
    write_tensors(folder / "attributes.safetensors", tensors, {"format": "pt"})
    _write_json(folder / "attributes.json", {"names": list(directions.names), "scores": directions.scores})


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


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
