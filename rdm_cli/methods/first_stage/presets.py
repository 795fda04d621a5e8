"""Presets of first stages: each size as a "kl", of Gaussian latents, and as a "vq", of quantised ones."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from rdm_cli.methods.presets import SMALL_RECIPE, Preset, Presets, Recipe

if TYPE_CHECKING:
    from rdm_cli.models.first_stage import FirstStageConfig


def _preset(size: int, first_stage: FirstStageConfig, recipe: Recipe, **weights: float) -> Preset:
    from rdm_cli.methods.first_stage.model import FirstStageTrainingConfig

    config = FirstStageTrainingConfig(first_stage=first_stage, image_size=size)
    return Preset(config=replace(config, **cast(Any, weights)), prior=None, recipe=recipe)


def _f4(
    kind: str, size: int, widths: tuple[int, ...], recipe: Recipe, *, layers: int, num_codes: int
) -> Preset:
    from rdm_cli.models.first_stage import f4

    return _preset(size, f4(kind, widths, layers=layers, num_codes=num_codes), recipe)


def _small_kl(size: int) -> Preset:
    from rdm_cli.models.first_stage import small_kl

    return _preset(size, small_kl(), _MUON, kl_weight=1e-3, squared_weight=5.0)


_SMALL = replace(SMALL_RECIPE, num_images=300_000)
_MUON = replace(_SMALL, lr=3e-3, warmup_steps=100, optimizer="muon")
_LARGE = Recipe(batch_size=32, num_images=10_000_000, lr=1e-4)

PRESETS = Presets(
    {f"kl-small{size}": partial(_small_kl, size) for size in (32, 64, 128)}
    | {f"vq-small{size}": partial(_f4, "vq", size, (32, 64, 64), _SMALL, layers=1, num_codes=512)
       for size in (32, 64)}
    | {f"{kind}-256": partial(_f4, kind, 256, (128, 256, 512), _LARGE, layers=2, num_codes=8192)
       for kind in ("kl", "vq")}
)  # fmt: skip
