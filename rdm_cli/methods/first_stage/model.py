r"""Training a first stage, diffusers' autoencoders, for LRDM (Esser et al. 2021; Rombach et al. 2022).

    KL:  L = mean |x_0 - D(z)| + kl_weight KL(q(z | x_0) || N(0, I)) / n,      z drawn from q
    VQ:  L = mean |x_0 - D(quantised E(x_0))| + the codebook's own loss

and to either, where it has a weight, squared_weight times the mean squared error, and perceptual_weight times
the ST-LPIPS of x_0 and what comes back. n is the number of values in an image. There is no adversary: what is
small here stays faithful, if soft.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.metrics.reconstruction import psnr
from rdm_cli.metrics.st_lpips import open_st_lpips
from rdm_cli.models.first_stage import FirstStageConfig, build_first_stage, to_images, to_latents

FIRST_LOGVAR = -5.0
"""Where the log-variance of Gaussian latents begins. diffusers begins at 0, where noise is nearly as large as
what the latents say, for the first hundreds of steps."""


@dataclass(frozen=True, kw_only=True)
class FirstStageTrainingConfig:
    """A first stage for images of ``image_size`` pixels a side, and the weights of its loss's terms.

    With a ``perceptual_weight`` of 0, ST-LPIPS is not computed and its package not needed.
    """

    first_stage: FirstStageConfig
    image_size: int
    kl_weight: float = 1e-6
    perceptual_weight: float = 0.0
    squared_weight: float = 0.0
    prediction: Prediction = "x_0"
    sampling: SamplingSpec = field(default_factory=SamplingSpec)

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return self.first_stage.image_channels


class FirstStageTraining(nn.Module):
    """The autoencoder; ``forward`` is the loss.

    Raises UsageError where the loss has a perceptual term and the package of its weights is missing.
    """

    def __init__(self, config: FirstStageTrainingConfig) -> None:
        super().__init__()
        self.config = config
        self.first_stage: Any = build_first_stage(config.first_stage)
        if config.first_stage.is_drawn:
            _draw_narrowly(self.first_stage, config.first_stage.latent_channels)
        # a function, no submodule: neither trained nor averaged nor stored
        self.perceptual = open_st_lpips() if config.perceptual_weight else None

    @property
    def sampling(self) -> SamplingSpec:
        """Nothing is sampled; the training loop asks for the number of timesteps."""
        return self.config.sampling

    @property
    def prediction(self) -> Prediction:
        """Nothing is predicted."""
        return self.config.prediction

    @property
    def x_T_shape(self) -> tuple[int, ...]:
        """Shape of the noise that draws an image's latents; (1,) where none is needed, for the loop draws."""
        config = self.config.first_stage
        side = self.config.image_size // config.factor
        return (config.latent_channels, side, side) if config.is_drawn else (1,)

    @property
    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """eps alone."""
        return {}

    def component_config(self, name: str) -> FirstStageConfig:
        """The config of ``first_stage``."""
        return self.config.first_stage

    def forward(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The loss of each image of ``x_0`` (B, C, H, W) in [-1, 1], (B,).

        ``eps`` (B, *x_T_shape) draws the latents where there is a distribution of them.
        """
        answer = self.first_stage.encode(x_0)
        if hasattr(answer, "latent_dist"):
            posterior = answer.latent_dist
            decoded = self.first_stage.decode(posterior.mean + posterior.std * eps).sample
            extra = self.config.kl_weight * posterior.kl() / x_0[0].numel()
        elif hasattr(self.first_stage, "quantize"):
            result = self.first_stage.decode(answer.latents)
            decoded, extra = result.sample, result.commit_loss
        else:
            decoded, extra = self.first_stage.decode(answer.latents).sample, x_0.new_zeros(())
        error = (decoded - x_0).flatten(1)
        loss: Tensor = error.abs().mean(dim=1) + extra
        if self.config.squared_weight:
            loss = loss + self.config.squared_weight * error.square().mean(dim=1)
        if self.perceptual is not None:
            loss = loss + self.config.perceptual_weight * self.perceptual(decoded, x_0)
        return loss

    @torch.no_grad()
    def picture_rows(self, x_0: Tensor) -> dict[str, Tensor]:
        """Rows of a sheet, by their names: images, and what comes back of them."""
        decoded = to_images(self.first_stage, to_latents(self.first_stage, x_0))
        return {"image": x_0, "reconstruction": decoded}

    def remark(self, rows: Mapping[str, Tensor]) -> str:
        """How well the rows of :meth:`picture_rows` agree."""
        return f"PSNR {float(psnr(*rows.values()).mean()):.2f} dB"


def _draw_narrowly(network: Any, num: int) -> None:
    """Let the log-variance of a fresh AutoencoderKL's ``num`` channels of latents begin at FIRST_LOGVAR."""
    last = network.encoder.conv_out if network.quant_conv is None else network.quant_conv
    nn.init.constant_(last.bias[num:], FIRST_LOGVAR)
