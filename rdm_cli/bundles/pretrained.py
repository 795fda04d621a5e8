"""Opens what a method is trained around: another bundle's model, or a first stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.places import fetch
from rdm_cli.data.io.json_text import read_object
from rdm_cli.errors import BundleError, CheckpointError
from rdm_cli.methods.diffusers_networks import FILES, find_weights
from rdm_cli.methods.dpm.pipelines import open_first_stage_network, read_first_stage_config
from rdm_cli.methods.method import Pretrained
from rdm_cli.models.first_stage import FirstStageConfig

FIRST_STAGE_FOLDERS = ("", "first_stage", "vae", "vqvae")
FIRST_STAGE_FILES = [str(Path(folder) / name) for folder in FIRST_STAGE_FOLDERS for name in FILES]
"""What is fetched of a repository: a pipeline's other networks may be many gigabytes."""


@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """An opened diffusers autoencoder."""

    config: FirstStageConfig
    network: nn.Module


def open_pretrained(kind: Pretrained, spec: str) -> Any:
    """The model of a bundle, or a :class:`FirstStage`; raises BundleError where ``spec`` is none."""
    if kind.kind == "first-stage":
        return open_first_stage(spec)
    return open_bundle(spec).model


def open_first_stage(spec: str) -> FirstStage:
    """Open an autoencoder from a folder or ``hf:owner/name[@revision]``, by diffusers.

    The folder is the autoencoder's own or has it as ``first_stage``, ``vae`` or ``vqvae``, as bundles and
    pipelines do. Raises BundleError.
    """
    folder = fetch(spec.removeprefix("hf:"), only=FIRST_STAGE_FILES) if spec.startswith("hf:") else Path(spec)
    for name in FIRST_STAGE_FOLDERS:
        config = folder / name / "config.json"
        if config.is_file() and _class_name(config) in FirstStageConfig.CLASSES:
            return _opened(config)
    known = ", ".join(FirstStageConfig.CLASSES)
    raise BundleError(
        f"{spec}: holds no first stage", hint=f"name the folder of a diffusers autoencoder: {known}"
    )


def _class_name(config: Path) -> str | None:
    try:
        return cast("str | None", read_object(config).get("_class_name"))
    except (OSError, ValueError):
        return None


def _opened(path: Path) -> FirstStage:
    try:
        config = read_first_stage_config(path)
        network = open_first_stage_network(path, find_weights(path.parent))
    except CheckpointError as error:
        raise BundleError(error.message, hint=error.hint) from error
    return FirstStage(config=config, network=network.eval().requires_grad_(False))
