"""Opens what a method is trained around: another bundle's model, or a first stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from rdm_cli.core.bundle_folders import fetch
from rdm_cli.core.bundle_parts import WEIGHTS
from rdm_cli.core.bundles import open_bundle
from rdm_cli.data.json_text import read_object
from rdm_cli.errors import BundleError
from rdm_cli.methods.method import Pretrained
from rdm_cli.models.first_stage import FirstStageConfig, quiet_diffusers

FIRST_STAGE_FOLDERS = ("", "first_stage", "vae", "vqvae")
FIRST_STAGE_FILES = [str(Path(f) / n) for f in FIRST_STAGE_FOLDERS for n in ("config.json", WEIGHTS)]
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
    import diffusers

    config = cast(FirstStageConfig, FirstStageConfig.from_values(read_object(path)))
    if not (path.parent / WEIGHTS).is_file():
        raise BundleError(f"{path.parent / WEIGHTS}: the weights are missing; rdm reads safetensors alone")
    try:
        with quiet_diffusers():
            network = getattr(diffusers, config.class_name).from_pretrained(
                str(path.parent), use_safetensors=True, local_files_only=True
            )
    except Exception as error:  # diffusers raises many kinds for configs and weights that do not fit
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"{path.parent}: not a network that diffusers opens ({reason})") from error
    return FirstStage(config=config, network=network.eval().requires_grad_(False))
