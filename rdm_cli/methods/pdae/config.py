"""PDAE's configuration: a frozen UNet, an encoder, the shift branch between them, and maybe a generator."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.models.backbones import Backbone
from rdm_cli.models.encoder import EncoderConfig
from rdm_cli.models.foreign_config import LATER
from rdm_cli.models.generator import GeneratorConfig
from rdm_cli.models.shift_branch import ShiftConfig
from rdm_cli.models.strided_encoder import StridedEncoderConfig, num_halvings, published_channels

EncoderKind = StridedEncoderConfig | EncoderConfig
LAST_SIDE = 4


@dataclass(frozen=True, kw_only=True)
class PDAEConfig:
    """A PDAE on the frozen ``unet``, which predicts ``prediction``.

    The shift branch is built for that UNet, and the encoder for its images. With a ``generator``, z gives a
    guess of the image, which the branch is shown and corrects; see :mod:`rdm_cli.methods.pdae.model`. None:
    as published. Raises ValueError where they disagree.
    """

    unet: Backbone
    encoder: EncoderKind
    shift: ShiftConfig
    prediction: Prediction = "eps"
    sampling: SamplingSpec = field(default_factory=lambda: SamplingSpec(spacing="linspace"))
    generator: GeneratorConfig | None = field(default=None, metadata={LATER: True})

    def __post_init__(self) -> None:
        if self.unet.z_width is not None:
            raise ValueError("the frozen UNet takes no z")
        if self.shift.unet != self.unet:
            raise ValueError("the shift branch is built for another UNet")
        if self.encoder.z_width != self.shift.z_width:
            raise ValueError("the encoder and the shift branch disagree about the width of z")
        if self.encoder.image_size != self.unet.image_size:
            raise ValueError("the encoder and the UNet disagree about the size of images")
        if self.shift.generator != self.generator:
            raise ValueError("the shift branch is built for another generator")
        if self.generator is not None:
            self._check(self.generator)

    def _check(self, generator: GeneratorConfig) -> None:
        if generator.z_width != self.encoder.z_width:
            raise ValueError("the encoder and the generator disagree about the width of z")
        images = (self.unet.image_size, self.unet.image_channels)
        if (generator.image_size, generator.image_channels) != images:
            raise ValueError("the generator and the UNet disagree about the image")


def fitted_encoder(encoder: EncoderKind, unet: Backbone) -> EncoderKind:
    """``encoder`` for the images of ``unet``: as many levels as it takes to come down to 4 x 4.

    The paper's is, at another size, the one that is usual there. Raises ValueError for a size that no
    encoder takes.
    """
    num_halvings(unet.image_size)
    if isinstance(encoder, StridedEncoderConfig):
        images = (unet.image_size, unet.image_channels)
        is_fit = (encoder.image_size, encoder.image_channels) == images
        return encoder if is_fit else published_encoder(unet, encoder.z_width)
    mult = _levels(encoder.channel_mult[::-1], unet.image_size // encoder.patch_size)[::-1]
    return replace(encoder, image_size=unet.image_size, image_channels=unet.image_channels, channel_mult=mult)


def fitted_generator(generator: GeneratorConfig, unet: Backbone) -> GeneratorConfig:
    """``generator`` for the images of ``unet``: as many levels as it takes to come up from 4 x 4."""
    side = unet.image_size // generator.patch_size
    return replace(
        generator,
        image_size=unet.image_size,
        image_channels=unet.image_channels,
        channels=_levels(generator.channels, side),
        num_res_blocks=_levels(generator.num_res_blocks, side),
    )


def _levels(values: tuple[int, ...], side: int) -> tuple[int, ...]:
    """``values`` of levels, coarsest first, as many as maps of ``side`` have: fewer, or the first again."""
    num = (side // LAST_SIDE).bit_length()
    return values[:1] * max(0, num - len(values)) + values[-num:]


def pdae_config(
    unet: Backbone,
    *,
    z_width: int,
    prediction: Prediction,
    sampling: SamplingSpec,
    gamma: float | None,
    encoder: EncoderKind | None = None,
    sees_prediction: bool = False,
    generator: GeneratorConfig | None = None,
) -> PDAEConfig:
    """The networks around a frozen ``unet``; raises ValueError for a size that no encoder takes.

    ``encoder`` and ``generator`` are fitted to the images of ``unet``. ``encoder`` None: the published one,
    and the like at other sizes.
    """
    made = None if generator is None else fitted_generator(generator, unet)
    return PDAEConfig(
        unet=unet,
        encoder=published_encoder(unet, z_width) if encoder is None else fitted_encoder(encoder, unet),
        shift=ShiftConfig(
            unet=unet, z_width=z_width, gamma=gamma, sees_prediction=sees_prediction, generator=made
        ),
        prediction=prediction,
        sampling=sampling,
        generator=made,
    )


def published_encoder(unet: Backbone, z_width: int) -> StridedEncoderConfig:
    """The paper's encoder for the images of ``unet``; raises ValueError for a size that it does not take."""
    return StridedEncoderConfig(
        image_size=unet.image_size,
        channels=published_channels(unet.image_size),
        z_width=z_width,
        image_channels=unet.image_channels,
    )
