r"""Diff-AE (Preechakul et al., CVPR 2022, arXiv 2111.15640).

An encoder gives z = Enc(x_0); a UNet eps(x_t, t, z) is trained with it by the simple loss,

    L = E || eps(sqrt(ab_t) x_0 + sqrt(1 - ab_t) eps, t, Enc(x_0)) - eps ||^2        (eq. 6)

and its deterministic DDIM, run backwards, gives x_T: what z leaves out. The small presets predict v
instead of eps (see :mod:`rdm_cli.kernels.parameterization`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rdm_cli.kernels.parameterization import Prediction, add_noise, to_eps, training_target
from rdm_cli.kernels.spec import EpsFn, SamplingSpec
from rdm_cli.methods.diffae.config import DiffAEConfig
from rdm_cli.models.encoder import EncoderConfig, SemanticEncoder
from rdm_cli.models.unet import ConditionalUNet, UNetConfig


class DiffAE(nn.Module):
    """The trained pair of encoder and decoder; ``forward`` is the loss."""

    alpha_bar: Tensor

    def __init__(self, config: DiffAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = SemanticEncoder(config.encoder)
        self.unet = ConditionalUNet(config.unet)
        self.register_buffer("alpha_bar", config.sampling.schedule.alpha_bar(), persistent=False)

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
    def z_shape(self) -> tuple[int, ...]:
        """Shape of one code."""
        return (self.config.encoder.z_width,)

    @property
    def sampling(self) -> SamplingSpec:
        """How the reference, or the preset, samples."""
        return self.config.sampling

    @property
    def prediction(self) -> Prediction:
        """What the UNet predicts."""
        return self.config.prediction

    def component_config(self, name: str) -> EncoderConfig | UNetConfig:
        """The config of ``encoder`` or ``unet``."""
        return self.config.encoder if name == "encoder" else self.config.unet

    def encode(self, x_0: Tensor) -> Tensor:
        """Images ``x_0`` (B, 3, H, W) in [-1, 1] to ``z`` (B, z_width)."""
        return self.encoder(x_0)

    def denoiser(self, z: Tensor) -> EpsFn:
        """eps(x_t, t) for ``z`` (B, z_width); what depends on z alone is computed here, once."""
        z_scales = self.unet.condition(z)

        def eps_fn(x_t: Tensor, t: Tensor) -> Tensor:
            prediction = self.unet(x_t, t, z_scales).to(x_t.dtype)
            return to_eps(self.config.prediction, prediction, x_t, self.alpha_bar[t])

        return eps_fn

    def loss(self, x_0: Tensor, t: Tensor, eps: Tensor, z: Tensor | None = None) -> Tensor:
        """Mean squared error of each image, (B,), in what the network predicts.

        ``t`` int64 (B,), ``eps`` like ``x_0``. ``z`` None encodes ``x_0``; another image's z measures
        how much the decoder relies on it.
        """
        z = self.encode(x_0) if z is None else z
        alpha_bar = self.alpha_bar[t]
        x_t = add_noise(x_0, eps, alpha_bar)
        prediction = self.unet(x_t, t, self.unet.condition(z)).float()
        target = training_target(self.config.prediction, x_0, eps, alpha_bar)
        return (prediction - target).square().mean(dim=(1, 2, 3))

    forward = loss


def swapped(z: Tensor) -> Tensor:
    """Every image's z replaced by its neighbour's in the batch."""
    return torch.roll(z, 1, dims=0)
