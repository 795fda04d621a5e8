"""LRDM's entry in the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.lrdm.config import LRDMConfig
from rdm_cli.methods.lrdm.convert import read_lrdm
from rdm_cli.methods.lrdm.model import LRDM
from rdm_cli.methods.lrdm.presets import PRESETS
from rdm_cli.methods.method import Converted, Method
from rdm_cli.models.first_stage import FirstStageConfig
from rdm_cli.models.latent_unet import LatentUNetConfig
from rdm_cli.models.representation import RepresentationConfig
from rdm_cli.models.style_shape import StyleShapeConfig


def build(parts: Mapping[str, Any], sampling: SamplingSpec, prediction: Prediction) -> nn.Module:
    """An LRDM from its networks' configs."""
    return LRDM(LRDMConfig(**parts, prediction=prediction, sampling=sampling))


def convert(files: Sequence[Path]) -> Converted:
    """Read the authors' checkpoint and settings; see :mod:`rdm_cli.methods.lrdm.convert`."""
    official = read_lrdm(files)
    model = LRDM(official.config)
    model.load_state_dict(official.state)
    num_parameters = sum(p.numel() for p in model.parameters())
    size = " x ".join(map(str, model.z_shape))
    summary = f"{model.image_size} px, z of {size}, {num_parameters:,} parameters"
    return Converted(model=model, prior=None, directions=None, summary=summary)


METHOD = Method(
    name="lrdm",
    title="LRDM (Traub 2022, arXiv 2210.11058)",
    components={
        "first_stage": FirstStageConfig,
        "unet": LatentUNetConfig,
        "representation": RepresentationConfig | StyleShapeConfig,
    },
    build=build,
    presets=PRESETS,
    convert=convert,
    prior="gaussian",
    averaged="unet",
    optional=frozenset({"first_stage", "representation"}),
)
