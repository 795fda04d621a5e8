"""Diff-AE's configuration: an encoder, a UNet, what it predicts, and how it samples."""

from __future__ import annotations

from dataclasses import dataclass, field

from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.models.encoder import EncoderConfig
from rdm_cli.models.foreign_config import LATER
from rdm_cli.models.generator import GeneratorConfig
from rdm_cli.models.unet import UNetConfig


@dataclass(frozen=True, kw_only=True)
class DiffAEConfig:
    """A Diff-AE; ``encoder.z_width`` and ``unet.z_width`` are equal.

    With a ``generator``, z gives a guess of the image, which the UNet is shown and corrects; see
    :mod:`rdm_cli.methods.diffae.model`. None: as published.
    """

    encoder: EncoderConfig
    unet: UNetConfig
    prediction: Prediction = "eps"
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    generator: GeneratorConfig | None = field(default=None, metadata={LATER: True})

    def __post_init__(self) -> None:
        if self.encoder.z_width != self.unet.z_width:
            raise ValueError("the encoder and the UNet disagree about the width of z")
        if (self.generator is None) != (self.unet.guess_channels is None):
            raise ValueError(
                "a UNet that is shown a guess goes with a generator, and a generator with such a UNet"
            )
        if (generator := self.generator) is None:
            return
        if generator.z_width != self.encoder.z_width:
            raise ValueError("the encoder and the generator disagree about the width of z")
        if (generator.image_size, generator.patch_size) != (self.unet.image_size, self.unet.patch_size):
            raise ValueError("the generator and the UNet disagree about the image or its patches")
        num = len(self.unet.channel_mult)
        if generator.channels[::-1][:num] != self.unet.guess_channels or self.prediction != "v":
            raise ValueError(
                "the UNet is to be shown the generator's finest maps, one a level, and predict v"
            )
