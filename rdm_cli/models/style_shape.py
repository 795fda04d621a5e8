"""LRDM's style/shape variant (Traub 2022, arXiv 2210.11058, section 4.4).

z comes from the clean latents. The pyramid is a UNet over other latents, those of a warped copy of the
image, into which z enters at the bottom alone: what survives the warp, the style, it can take from there,
so z is left with what does not, the shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from rdm_cli.models.foreign_config import LATER
from rdm_cli.models.latent_blocks import HeadNorm
from rdm_cli.models.latent_tower import LatentTower, run_down, run_up
from rdm_cli.models.representation import (
    LOGVAR_RANGE,
    PyramidConfig,
    RepresentationConfig,
    RepresentationEncoder,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StyleShapeConfig:
    """Shape of a :class:`StyleShape` for latents of ``latent_channels`` x ``latent_size`` x ``latent_size``.

    ``channel_mult`` is that of the encoder and, unless ``pyramid`` has another shape for it, of the UNet that
    makes the pyramid. Training warps images by
    ``grid_size`` x ``grid_size`` control points and ``warp_strength``; see :mod:`rdm_cli.kernels.warp`.
    ``kl_weight`` is the paper's lambda.
    """

    NETWORK: ClassVar[str] = "StyleShape"

    latent_size: int
    latent_channels: int
    model_channels: int
    channel_mult: tuple[int, ...]
    z_channels: int
    num_encoder_blocks: int = 4
    num_decoder_blocks: int = 2
    attention_resolutions: tuple[int, ...] = ()
    dropout: float = 0.1
    grid_size: int = 8
    warp_strength: float = 4.0
    kl_weight: float = 5e-6
    pyramid: PyramidConfig | None = field(default=None, metadata={LATER: True})

    @property
    def encoder(self) -> RepresentationConfig:
        """The encoder's own shape; its head answers mean and log-variance."""
        return RepresentationConfig(
            latent_size=self.latent_size,
            latent_channels=self.latent_channels,
            model_channels=self.model_channels,
            channel_mult=self.channel_mult,
            z_channels=self.z_channels,
            hidden_channels=2 * self.z_channels,
            num_encoder_blocks=self.num_encoder_blocks,
            attention_resolutions=self.attention_resolutions,
            dropout=self.dropout,
            adaptive=True,
            pyramid=self.pyramid,
        )

    @property
    def z_shape(self) -> tuple[int, ...]:
        """Shape of one code."""
        return self.encoder.z_shape

    @property
    def map_channels(self) -> tuple[int, ...]:
        """Channels of the pyramid's maps, from the shallowest level to the deepest."""
        return self.encoder.map_channels


class StylePyramid(LatentTower):
    """(z, latents of the style image) to one map for each resolution, deepest first."""

    def __init__(self, config: StyleShapeConfig) -> None:
        c, shape, widths = config, config.encoder.pyramid_shape, config.map_channels
        super().__init__(
            embed_width=None, dropout=0.0, adaptive=True, attention_resolutions=shape.attention_resolutions
        )
        self.config = config
        num, deepest = c.num_decoder_blocks, c.latent_size >> (len(widths) - 1)
        self.conv_in = nn.Conv2d(c.latent_channels, shape.model_channels, 3, padding=1)
        self.down, laterals = self.make_down(shape.model_channels, widths, c.latent_size, num)
        self.mid = self.make_middle(widths[-1])
        self.from_z = nn.Conv2d(c.z_channels, widths[-1], 1)
        self.up = self.make_up(widths[-1], widths, deepest, num + 1, laterals, entering=widths[-1])
        self.head = HeadNorm(widths[0], widths[0])

    def forward(self, z: Tensor, style: Tensor) -> list[Tensor]:
        h, laterals = run_down(self.down, self.conv_in(style), None)
        h = torch.cat([self.mid(h, None), self.from_z(z)], dim=1)
        h, maps = run_up(self.up, h, None, laterals)
        return [*maps, self.head(h)]


class StyleShape(nn.Module):
    """Encoder and style pyramid; z goes between them without another layer."""

    def __init__(self, config: StyleShapeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = RepresentationEncoder(config.encoder)
        self.pyramid = StylePyramid(config)

    def posterior(self, z_0: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, (B, *z_shape) each, of z for clean latents ``z_0`` (B, C, H, W)."""
        mean, logvar = self.encoder(z_0).chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def maps(self, z: Tensor, style: Tensor) -> list[Tensor]:
        """The pyramid of ``z`` (B, *z_shape) and the latents ``style`` (B, C, H, W), deepest map first."""
        return self.pyramid(z, style)
