"""LRDM's configuration: a first stage, a UNet on its latents, a representation, and how they are trained."""

from __future__ import annotations

from dataclasses import dataclass, field

from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.models.first_stage import FirstStageConfig
from rdm_cli.models.generator import GeneratorConfig
from rdm_cli.models.latent_unet import LatentUNetConfig
from rdm_cli.models.representation import RepresentationConfig
from rdm_cli.models.style_shape import StyleShapeConfig

LRDM_SAMPLING = SamplingSpec(spacing="ahead", clip_x_0=False, variance="beta")


@dataclass(frozen=True, kw_only=True)
class LRDMConfig:
    """An LRDM; ``representation`` None is a plain latent diffusion model.

    ``first_stage`` None works on images as they are. Raises ValueError where the networks disagree.
    """

    unet: LatentUNetConfig
    representation: RepresentationConfig | StyleShapeConfig | None
    first_stage: FirstStageConfig | None
    prediction: Prediction = "x_0"
    sampling: SamplingSpec = field(default_factory=lambda: LRDM_SAMPLING)

    def __post_init__(self) -> None:
        if self.prediction == "v" and self.unet.weighting == "other":
            raise ValueError("v is no other one's counterpart: x_0 and eps are each other's")
        given = self.representation
        if given is not None:
            if self.generator is not None:
                self._check(self.generator)
            elif given.map_channels != self.unet.map_channels:
                raise ValueError("the pyramid and the UNet disagree about the maps' channels")
            if (given.latent_size, given.latent_channels) != (
                self.unet.latent_size,
                self.unet.latent_channels,
            ):
                raise ValueError("the representation and the UNet disagree about the latents")
            known = getattr(given, "num_classes", None)
            if known is not None and known != len(self.class_names):
                raise ValueError("the representation and the UNet disagree about the classes")
        elif self.unet.map_channels:
            raise ValueError("the UNet takes a pyramid, and there is no representation")
        if self.first_stage is not None and self.first_stage.latent_channels != self.unet.latent_channels:
            raise ValueError("the first stage and the UNet disagree about the latents' channels")
        if (self.generator is None) != (not self.unet.sees_guess):
            raise ValueError(
                "a UNet that is shown a guess goes with a generator, and a generator with such a UNet"
            )

    def _check(self, generator: GeneratorConfig) -> None:
        num = len(self.unet.channel_mult)
        if generator.channels[::-1][:num] != self.unet.map_channels:
            raise ValueError("the UNet is to be shown the generator's finest maps, one a level")
        if self.prediction != "v" or self.unet.weighting != "none":
            raise ValueError(
                "around a generator's guess the UNet predicts v, and the loss has its own weights"
            )

    @property
    def generator(self) -> GeneratorConfig | None:
        """What gives a guess of the latents, of z alone; None: nothing does."""
        return getattr(self.representation, "generator", None)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of a class-conditional model, in the order of their numbers; () for others."""
        return self.unet.class_names

    @property
    def takes_latents(self) -> bool:
        """Whether it can be trained on latents that were computed before: style needs the images."""
        return self.first_stage is not None and not isinstance(self.representation, StyleShapeConfig)

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.unet.latent_size * (1 if self.first_stage is None else self.first_stage.factor)

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return self.unet.latent_channels if self.first_stage is None else self.first_stage.image_channels
