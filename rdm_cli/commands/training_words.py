"""What can be chosen in ``rdm train METHOD``, by name, and which methods have which option."""

from __future__ import annotations

from enum import StrEnum

AROUND = {
    "dpm": ("dpm", "gamma"),
    "first-stage": ("first_stage", "kl_weight", "predict", "weighting", "classes", "cache_latents"),
    "nothing": ("kind", "perceptual_weight"),
}
"""The options of methods that are trained around something pretrained, by what that is, or are that thing."""


class FirstStageKind(StrEnum):
    """What a first stage makes of its latents."""

    kl = "kl"
    vq = "vq"


class Predicted(StrEnum):
    """What an LRDM's UNet predicts."""

    x_0 = "x_0"
    eps = "eps"
    v = "v"


class LossWeighting(StrEnum):
    """How an LRDM's loss is weighed over t."""

    none = "none"
    likelihood = "likelihood"
    other = "other"


class Tracker(StrEnum):
    """Where else a run logs to."""

    tensorboard = "tensorboard"
