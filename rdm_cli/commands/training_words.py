"""What can be chosen in ``rdm train METHOD``, by name, and which methods have which option."""

from __future__ import annotations

from typing import Literal

AROUND = {
    "dpm": ("dpm", "gamma"),
    "first-stage": ("first_stage", "kl_weight", "predict", "weighting", "classes", "cache_latents"),
    "nothing": ("kind", "perceptual_weight"),
}
"""The options of methods that are trained around something pretrained, by what that is, or are that thing."""


FirstStageKind = Literal["kl", "vq"]
"""What a first stage makes of its latents."""
Predicted = Literal["x_0", "eps", "v"]
"""What an LRDM's UNet predicts."""
LossWeighting = Literal["none", "likelihood", "other"]
"""How an LRDM's loss is weighed over t."""
Tracker = Literal["tensorboard"]
"""Where else a run logs to."""
