"""A plain, unconditional diffusion model (Ho et al., NeurIPS 2020, arXiv 2006.11239).

Its code is x_T alone, inferred and decoded by DDIM (Song et al. 2021): it has no encoder, and its z
has no values. PDAE gives such a model an encoder. With a first stage it diffuses that one's latents (Rombach
et al. 2022, arXiv 2112.10752), as diffusers' LDMPipeline does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.spec import EpsFn, SamplingSpec
from rdm_cli.methods.conditions import NOTHING, Conditions
from rdm_cli.methods.denoising import UNetModel
from rdm_cli.models.backbones import Backbone
from rdm_cli.models.first_stage import (
    FirstStageConfig,
    build_first_stage,
    drawn_latents,
    to_images,
    to_latents,
)


@dataclass(frozen=True, kw_only=True)
class DPMConfig:
    """An unconditional UNet, what it predicts, and how it samples; ``first_stage`` None: on images."""

    unet: Backbone
    first_stage: FirstStageConfig | None = None
    prediction: Prediction = "eps"
    sampling: SamplingSpec = field(default_factory=SamplingSpec)

    def __post_init__(self) -> None:
        if self.unet.z_width is not None:
            raise ValueError("the UNet of a plain DPM takes no z")
        stage = self.first_stage
        if stage is not None and stage.latent_channels != self.unet.image_channels:
            raise ValueError(
                f"the first stage's latents have {stage.latent_channels} channels, and the UNet works on "
                f"{self.unet.image_channels}"
            )

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.unet.image_size * (1 if self.first_stage is None else self.first_stage.factor)

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return (self.unet if self.first_stage is None else self.first_stage).image_channels


class DPM(UNetModel):
    """The trained UNet; ``forward`` is the loss on images."""

    config: DPMConfig

    def __init__(self, config: DPMConfig) -> None:
        super().__init__(config)
        self.first_stage: Any = None
        if config.first_stage is not None:
            self.first_stage = build_first_stage(config.first_stage).eval().requires_grad_(False)

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.config.image_size

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return (self.config.image_channels, self.image_size, self.image_size)

    def enter(self, x_0: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] to what is diffused: themselves, or latents on diffusers' scale."""
        return x_0 if self.first_stage is None else self._scaled(to_latents(self.first_stage, x_0))

    def _scaled(self, latents: Tensor) -> Tensor:
        config = self.first_stage.config
        return (latents - _shift(config)) * config.scaling_factor

    def leave(self, x: Tensor) -> Tensor:
        """Back to images."""
        if self.first_stage is None:
            return x
        config = self.first_stage.config
        return to_images(self.first_stage, x / config.scaling_factor + _shift(config))

    def train(self, mode: bool = True) -> DPM:
        """Train the UNet; the first stage stays frozen."""
        super().train(mode)
        if self.first_stage is not None:
            self.first_stage.eval()
        return self

    @property
    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """What draws the first stage's latents, where it has a distribution of them."""
        stage = self.config.first_stage
        return {"latents": self.x_T_shape} if stage is not None and stage.is_drawn else {}

    @property
    def z_shape(self) -> tuple[int, ...]:
        """(0,): there is no z."""
        return (0,)

    def component_config(self, name: str) -> Any:
        """The config of ``unet`` or ``first_stage``; None for one that there is not."""
        return getattr(self.config, name)

    def encode(
        self, x_0: Tensor, given: Conditions = NOTHING, *, timesteps: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Images ``x_0`` (B, 3, H, W) to a ``z`` without values, (B, 0)."""
        return {"z": x_0.new_zeros(len(x_0), 0)}

    def denoiser(self, conditions: Conditions, *, timesteps: Sequence[int] | None = None) -> EpsFn:
        """eps(x_t, t); z (B, 0) says nothing."""
        return self.denoiser_for(None)

    def loss(self, x_0: Tensor, t: Tensor, eps: Tensor, conditions: Conditions = NOTHING) -> Tensor:
        """Mean squared error of each image, (B,), in what the network predicts."""
        return self.denoising_loss(x_0, t, eps, None)

    def forward(
        self, x_0: Tensor, t: Tensor, eps: Tensor, noise: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The loss of images ``x_0`` (B, C, H, W) in [-1, 1]; ``noise``: see :attr:`noise_shapes`."""
        if self.first_stage is None:
            return self.loss(x_0, t, eps)
        with torch.no_grad():
            latents = drawn_latents(self.first_stage, x_0, (noise or {}).get("latents"))
        return self.loss(self._scaled(latents).float(), t, eps)


def _shift(config: Any) -> float:
    return getattr(config, "shift_factor", None) or 0.0
