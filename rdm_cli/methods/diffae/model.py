r"""Diff-AE (Preechakul et al., CVPR 2022, arXiv 2111.15640).

An encoder gives z = Enc(x_0); a UNet eps(x_t, t, z) is trained with it by the simple loss,

    L = E || eps(sqrt(ab_t) x_0 + sqrt(1 - ab_t) eps, t, Enc(x_0)) - eps ||^2        (eq. 6)

and its deterministic DDIM, run backwards, gives x_T: what z leaves out. The small presets predict v
instead of eps (see :mod:`rdm_cli.kernels.parameterization`).
"""

from __future__ import annotations

from torch import Tensor

from rdm_cli.methods.denoising import UNetModel
from rdm_cli.methods.diffae.config import DiffAEConfig
from rdm_cli.models.encoder import EncoderConfig, SemanticEncoder
from rdm_cli.models.unet import UNetConfig


class DiffAE(UNetModel):
    """The trained pair of encoder and decoder; ``forward`` is the loss."""

    config: DiffAEConfig

    def __init__(self, config: DiffAEConfig) -> None:
        super().__init__(config)
        self.encoder = SemanticEncoder(config.encoder)

    @property
    def z_shape(self) -> tuple[int, ...]:
        """Shape of one code."""
        return (self.config.encoder.z_width,)

    def component_config(self, name: str) -> EncoderConfig | UNetConfig:
        """The config of ``encoder`` or ``unet``."""
        return self.config.encoder if name == "encoder" else self.config.unet

    def encode(self, x_0: Tensor) -> Tensor:
        """Images ``x_0`` (B, 3, H, W) in [-1, 1] to ``z`` (B, z_width)."""
        return self.encoder(x_0)

    def loss(self, x_0: Tensor, t: Tensor, eps: Tensor, z: Tensor | None = None) -> Tensor:
        """Mean squared error of each image, (B,), in what the network predicts.

        ``t`` int64 (B,), ``eps`` like ``x_0``. ``z`` None encodes ``x_0``; another image's z measures
        how much the decoder relies on it.
        """
        z = self.encode(x_0) if z is None else z
        return self.denoising_loss(x_0, t, eps, z)

    forward = loss
