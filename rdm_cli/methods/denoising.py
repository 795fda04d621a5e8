"""What methods with one UNet on pixels share: its denoiser, and the loss that trains it.

    L = E || f(sqrt(ab_t) x_0 + sqrt(1 - ab_t) eps, t, z) - target ||^2

with f the UNet and the target eps, v or x_0, as it predicts (Ho et al. 2020, eq. 14; Salimans & Ho
2022, section 4).
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rdm_cli.kernels.parameterization import Prediction, add_noise, per_item, to_eps, training_target
from rdm_cli.kernels.spec import EpsFn, SamplingSpec
from rdm_cli.models.backbones import Backbone, build_unet


class Denoising(Protocol):
    """What the config of such a method says, besides what is the method's own."""

    @property
    def unet(self) -> Backbone:
        """The UNet."""
        ...

    @property
    def prediction(self) -> Prediction:
        """What it predicts."""
        ...

    @property
    def sampling(self) -> SamplingSpec:
        """How the method samples."""
        ...


class UNetModel(nn.Module):
    """A UNet and its schedule."""

    config: Denoising
    alpha_bar: Tensor

    def __init__(self, config: Denoising) -> None:
        super().__init__()
        self.config = config
        self.unet: Any = build_unet(config.unet)
        self.register_buffer("alpha_bar", config.sampling.schedule.alpha_bar(), persistent=False)

    @property
    def stop_shift(self) -> float | None:
        """The last fraction of a sample's steps without PDAE's shift; None: there is no shift."""
        return None

    @property
    def style_shape(self) -> bool:
        """No image gives a style."""
        return False

    def training_conditions(self, x_0: Tensor) -> dict[str, Tensor]:
        """Nothing besides."""
        return {}

    @property
    def time_dependent(self) -> bool:
        """One z serves all timesteps."""
        return False

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.config.unet.image_size

    @property
    def x_T_shape(self) -> tuple[int, ...]:
        """Shape of one noise map: that of an image."""
        c = self.config.unet
        return (c.image_channels, c.image_size, c.image_size)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.x_T_shape

    def enter(self, x_0: Tensor) -> Tensor:
        """Images as they are: these models diffuse pixels."""
        return x_0

    def leave(self, x: Tensor) -> Tensor:
        """As it is."""
        return x

    @property
    def sampling(self) -> SamplingSpec:
        """How the reference, or the preset, samples."""
        return self.config.sampling

    @property
    def prediction(self) -> Prediction:
        """What the UNet predicts."""
        return self.config.prediction

    def _answer(self, x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
        return self.unet.upward(self.unet.features(x_t, t, condition), condition)

    def denoiser_for(self, z: Tensor | None) -> EpsFn:
        """eps(x_t, t) for ``z`` (B, z_width) or none; what depends on z alone is computed here, once."""
        condition = self.unet.condition(z)

        def eps_fn(x_t: Tensor, t: Tensor) -> Tensor:
            answer = self._answer(x_t, t, condition).to(x_t.dtype)
            return to_eps(self.prediction, answer, x_t, self.alpha_bar[t])

        return eps_fn

    def denoiser(self, z: Tensor) -> EpsFn:
        """eps(x_t, t) for ``z`` (B, *z_shape)."""
        return self.denoiser_for(z)

    def one_step(self, x_t: Tensor, t: Tensor, z: Tensor) -> dict[str, Tensor]:
        """eps at ``x_t``, under the name of what predicts it; PDAE has two answers, without and with z."""
        return {"with z" if z.numel() else "without z": self.denoiser(z)(x_t, t)}

    def path_denoiser(self, z_first: Tensor, z_second: Tensor, weight: Tensor) -> EpsFn:
        """eps(x_t, t) on the way between two codes: at each step, the lerp of their two answers.

        ``z_first`` and ``z_second`` (B, *z_shape), ``weight`` (B,) from 0 (the first) to 1. PDAE calls
        this a trajectory.
        """
        first, second = self.denoiser(z_first), self.denoiser(z_second)

        def eps_fn(x_t: Tensor, t: Tensor) -> Tensor:
            return torch.lerp(first(x_t, t), second(x_t, t), per_item(weight, x_t))

        return eps_fn

    def denoising_loss(self, x_0: Tensor, t: Tensor, eps: Tensor, z: Tensor | None) -> Tensor:
        """Mean squared error of each image, (B,), in what the UNet predicts.

        ``x_0`` (B, 3, H, W) in [-1, 1], ``t`` int64 (B,), ``eps`` like ``x_0``.
        """
        alpha_bar = self.alpha_bar[t]
        x_t = add_noise(x_0, eps, alpha_bar)
        answer = self._answer(x_t, t, self.unet.condition(z)).float()
        target = training_target(self.prediction, x_0, eps, alpha_bar)
        return (answer - target).square().mean(dim=(1, 2, 3))
