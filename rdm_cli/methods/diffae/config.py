"""Diff-AE's configuration: an encoder, a UNet, what it predicts, and how it samples."""

from __future__ import annotations

from dataclasses import dataclass, field

from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.models.encoder import EncoderConfig
from rdm_cli.models.unet import UNetConfig


@dataclass(frozen=True, kw_only=True)
class DiffAEConfig:
    """A Diff-AE; ``encoder.z_width`` and ``unet.z_width`` are equal."""

    encoder: EncoderConfig
    unet: UNetConfig
    prediction: Prediction = "eps"
    sampling: SamplingSpec = field(default_factory=SamplingSpec)

    def __post_init__(self) -> None:
        if self.encoder.z_width != self.unet.z_width:
            raise ValueError("the encoder and the UNet disagree about the width of z")
