"""Presets of first stages: each size as a "kl", of Gaussian latents, and as a "vq", of quantised ones."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from rdm_cli.methods.presets import SMALL_RECIPE, Preset, Presets, Recipe


def _preset(
    kind: str, size: int, widths: tuple[int, ...], recipe: Recipe, *, layers: int, num_codes: int
) -> Preset:
    from rdm_cli.methods.first_stage.model import FirstStageTrainingConfig
    from rdm_cli.models.first_stage import f4

    first_stage = f4(kind, widths, layers=layers, num_codes=num_codes)
    config = FirstStageTrainingConfig(first_stage=first_stage, image_size=size)
    return Preset(config=config, prior=None, recipe=recipe)


_SMALL = replace(SMALL_RECIPE, num_images=300_000)
_LARGE = Recipe(batch_size=32, num_images=10_000_000, lr=1e-4)

PRESETS = Presets(
    {f"{kind}-small{size}": partial(_preset, kind, size, (32, 64, 64), _SMALL, layers=1, num_codes=512)
     for kind in ("kl", "vq") for size in (32, 64)}
    | {f"{kind}-256": partial(_preset, kind, 256, (128, 256, 512), _LARGE, layers=2, num_codes=8192)
       for kind in ("kl", "vq")}
)  # fmt: skip
