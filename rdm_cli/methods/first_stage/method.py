"""First stages, as what ``rdm train first-stage`` trains; no command decodes with one alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rdm_cli.errors import UsageError
from rdm_cli.methods.first_stage.model import FirstStageTraining, FirstStageTrainingConfig
from rdm_cli.methods.first_stage.presets import PRESETS
from rdm_cli.methods.method import Converted, Method
from rdm_cli.models.first_stage import FirstStageConfig
from rdm_cli.registry import FIRST_STAGE


def adopt(
    config: FirstStageTrainingConfig, pretrained: None, perceptual_weight: float | None = None
) -> FirstStageTrainingConfig:
    """``config`` with ``perceptual_weight``, unless that is None; it is trained around nothing."""
    return config if perceptual_weight is None else replace(config, perceptual_weight=perceptual_weight)


def adopted(config: FirstStageTrainingConfig) -> dict[str, Any]:
    """Which options of :func:`adopt` make ``config``."""
    return {"perceptual_weight": config.perceptual_weight}


def convert(files: Sequence[Path]) -> Converted:
    """None: LRDM's checkpoints bring theirs along."""
    raise UsageError("first stages need no conversion", hint="name a diffusers folder where one is needed")


METHOD = Method(
    name=FIRST_STAGE,
    title="a first stage (Esser et al. 2021, arXiv 2012.09841; Rombach et al. 2022, arXiv 2112.10752)",
    components={"first_stage": FirstStageConfig},
    config=FirstStageTrainingConfig,
    model=FirstStageTraining,
    presets=PRESETS,
    convert=convert,
    adopt=adopt,
    adopted=adopted,
    samples=False,
    usual_preset="kl-small64",
)
