"""PDAE's configuration: a frozen UNet, an encoder, the shift branch between them."""

from __future__ import annotations

from dataclasses import dataclass, field

from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.models.backbones import Backbone
from rdm_cli.models.shift_branch import ShiftConfig
from rdm_cli.models.strided_encoder import StridedEncoderConfig


@dataclass(frozen=True, kw_only=True)
class PDAEConfig:
    """A PDAE on the frozen ``unet``, which predicts ``prediction``.

    The shift branch is built for that UNet, and the encoder for its images; raises ValueError where they
    disagree.
    """

    unet: Backbone
    encoder: StridedEncoderConfig
    shift: ShiftConfig
    prediction: Prediction = "eps"
    sampling: SamplingSpec = field(default_factory=lambda: SamplingSpec(spacing="linspace"))

    def __post_init__(self) -> None:
        if self.unet.z_width is not None:
            raise ValueError("the frozen UNet takes no z")
        if self.shift.unet != self.unet:
            raise ValueError("the shift branch is built for another UNet")
        if self.encoder.z_width != self.shift.z_width:
            raise ValueError("the encoder and the shift branch disagree about the width of z")
        if self.encoder.image_size != self.unet.image_size:
            raise ValueError("the encoder and the UNet disagree about the size of images")
