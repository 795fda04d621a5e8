"""PDAE's configuration: a frozen UNet, an encoder, the shift branch between them."""

from __future__ import annotations

from dataclasses import dataclass, field

from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.models.backbones import Backbone
from rdm_cli.models.shift_branch import ShiftConfig
from rdm_cli.models.strided_encoder import StridedEncoderConfig, published_channels


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


def pdae_config(
    unet: Backbone,
    *,
    z_width: int,
    prediction: Prediction,
    sampling: SamplingSpec,
    gamma: float | None,
    channels: tuple[int, ...] | None = None,
    sees_prediction: bool = False,
) -> PDAEConfig:
    """The networks around a frozen ``unet``; raises ValueError for a size that no encoder takes.

    ``channels`` of the encoder None: the published ones, and the like at other sizes.
    """
    return PDAEConfig(
        unet=unet,
        encoder=StridedEncoderConfig(
            image_size=unet.image_size,
            channels=channels or published_channels(unet.image_size),
            z_width=z_width,
            image_channels=unet.image_channels,
        ),
        shift=ShiftConfig(unet=unet, z_width=z_width, gamma=gamma, sees_prediction=sees_prediction),
        prediction=prediction,
        sampling=sampling,
    )
