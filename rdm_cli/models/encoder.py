"""Diff-AE's semantic encoder: the UNet's downward half, without time, ending in a vector.

The published networks average over the last map before a 1x1 convolution. The small presets
flatten it instead: where a feature lies then matters, which a few minutes of training on aligned
faces reward (a mouth is five pixels high, and averaging leaves little of it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from rdm_cli.models.blocks import EncoderResBlock, SelfAttention, group_norm


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of a :class:`SemanticEncoder`; sizes as in :class:`rdm_cli.models.unet.UNetConfig`."""

    NETWORK: ClassVar[str] = "SemanticEncoder"

    image_size: int
    model_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    num_heads: int = 1
    z_width: int = 512
    image_channels: int = 3
    patch_size: int = 1
    pool: Literal["average", "flatten"] = "average"


class EncoderStage(nn.Module):
    """A residual block and, at some resolutions, attention."""

    def __init__(self, res: EncoderResBlock, attention: SelfAttention | None = None) -> None:
        super().__init__()
        self.res = res
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        h = self.res(x)
        return h if self.attention is None else self.attention(h)


class SemanticEncoder(nn.Module):
    """Images ``x_0`` (B, C, H, W) in [-1, 1] to ``z`` (B, z_width)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        widths = [m * c.model_channels for m in c.channel_mult]
        side = c.image_size // c.patch_size
        self.conv_in = nn.Conv2d(c.image_channels * c.patch_size**2, widths[0], 3, padding=1)
        h = widths[0]
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            for _ in range(c.num_res_blocks):
                attends = side in c.attention_resolutions
                self.down.append(
                    EncoderStage(
                        EncoderResBlock(h, width), SelfAttention(width, c.num_heads) if attends else None
                    )
                )
                h = width
            if level < len(widths) - 1:
                self.down.append(EncoderStage(EncoderResBlock(h, h, "down")))
                side //= 2
        self.middle = nn.Sequential(
            EncoderResBlock(h, h), SelfAttention(h, c.num_heads), EncoderResBlock(h, h)
        )
        self.norm_out = group_norm(h)
        self.proj_out = nn.Conv2d(h, c.z_width, 1 if c.pool == "average" else side)

    def forward(self, x_0: Tensor) -> Tensor:
        """Encode ``x_0``; raises ValueError where its size is not the network's."""
        c = self.config
        if x_0.shape[1:] != (c.image_channels, c.image_size, c.image_size):
            raise ValueError(
                f"the encoder takes images of {c.image_channels} x {c.image_size} x {c.image_size}, "
                f"not {tuple(x_0.shape[1:])}"
            )
        h = self.conv_in(F.pixel_unshuffle(x_0, c.patch_size) if c.patch_size > 1 else x_0)
        for stage in self.down:
            h = stage(h)
        h = F.silu(self.norm_out(self.middle(h)))
        if c.pool == "average":
            h = h.mean(dim=(2, 3), keepdim=True)
        return self.proj_out(h).flatten(1)
