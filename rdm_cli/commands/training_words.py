"""What can be chosen in ``rdm train METHOD``, by name, and which methods have which option."""

from __future__ import annotations

from typing import Literal

AROUND = {
    "dpm": ("dpm", "gamma"),
    "first-stage": ("first_stage", "kl_weight", "predict", "weighting", "classes", "cache_latents"),
    "nothing": ("kind", "perceptual_weight"),
}
"""The options of methods that are trained around something pretrained, by what that is, or are that thing."""


PRESETS = {
    "diffae": "small32, small64, celeba64, ffhq128, ffhq256, horse128, bedroom128",
    "dpm": "small32, small64",
    "pdae": "small32, small64, published",
    "lrdm": "small32, small64, small64-vector, small32-t, small64-t, small32-style, small64-style, r64x8x8, "
    "r16x16x16, t-r16x16x16, style",
    "first-stage": "small32, small64, 256",
}
"""Each method's presets, for its help, which must not wait for torch."""


FirstStageKind = Literal["kl", "vq"]
"""What a first stage makes of its latents."""
Predicted = Literal["x_0", "eps", "v"]
"""What an LRDM's UNet predicts."""
LossWeighting = Literal["none", "likelihood", "other"]
"""How an LRDM's loss is weighed over t."""
Tracker = Literal["tensorboard"]
"""Where else a run logs to."""
