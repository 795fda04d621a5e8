"""What methods with one UNet on pixels share: its denoiser, and the loss that trains it.

    L = E || f(sqrt(ab_t) x_0 + sqrt(1 - ab_t) eps, t, z) - target ||^2

with f the UNet and the target eps, v or x_0, as it predicts (Ho et al. 2020, eq. 14; Salimans & Ho
2022, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from rdm_cli.kernels.parameterization import add_noise, training_target
from rdm_cli.kernels.spec import EpsFn
from rdm_cli.methods.conditions import Conditions
from rdm_cli.methods.diffusion_model import Diffusion, DiffusionModel
from rdm_cli.models.backbones import Backbone, build_unet


class Denoising(Diffusion, Protocol):
    """What the config of such a method says, besides what is the method's own."""

    @property
    def unet(self) -> Backbone:
        """The UNet."""
        ...


class UNetModel(DiffusionModel):
    """A UNet on images."""

    config: Denoising

    def __init__(self, config: Denoising) -> None:
        super().__init__(config)
        self.unet: Any = build_unet(config.unet)

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

    def _condition(self, z: Tensor | None) -> Any:
        """What depends on ``z`` alone."""
        return self.unet.condition(z)

    def _answer(self, x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
        """What is predicted, with the result of :meth:`_condition`."""
        return self.unet.upward(self.unet.features(x_t, t, condition), condition)

    def denoiser_for(self, z: Tensor | None) -> EpsFn:
        """eps(x_t, t) for ``z`` (B, z_width) or none; what depends on z alone is computed here, once."""
        condition = self._condition(z)

        def eps_fn(x_t: Tensor, t: Tensor) -> Tensor:
            return self.as_eps(self._answer(x_t, t, condition), x_t, t)

        return eps_fn

    def denoiser(self, conditions: Conditions, *, timesteps: Sequence[int] | None = None) -> EpsFn:
        """eps(x_t, t) for the ``z`` (B, *z_shape) of ``conditions``, whatever the ``timesteps``."""
        return self.denoiser_for(conditions["z"])

    def denoising_loss(self, x_0: Tensor, t: Tensor, eps: Tensor, z: Tensor | None) -> Tensor:
        """Mean squared error of each image, (B,), in what the UNet predicts.

        ``x_0`` (B, 3, H, W) in [-1, 1], ``t`` int64 (B,), ``eps`` like ``x_0``.
        """
        return self._denoising_loss(x_0, t, eps, self._condition(z))

    def _denoising_loss(self, x_0: Tensor, t: Tensor, eps: Tensor, condition: Any) -> Tensor:
        alpha_bar = self.alpha_bar[t]
        x_t = add_noise(x_0, eps, alpha_bar)
        answer = self._answer(x_t, t, condition).float()
        target = training_target(self.prediction, x_0, eps, alpha_bar)
        return (answer - target).square().mean(dim=(1, 2, 3))
