"""PDAE's encoder (Zhang et al., NeurIPS 2022, arXiv 2212.12990): strided convolutions to a vector.

Each convolution halves the map, until 4 x 4 is left; GN and SiLU follow it, and at 16 x 16 attention
comes before them. The last map is flattened, so that where a feature lies matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from rdm_cli.models.blocks import SelfAttention, group_norm

SIZES = (32, 64, 128, 256, 512)
LAST_SIDE = 4


def num_halvings(image_size: int) -> int:
    """How often a map is halved until 4 x 4 is left; raises ValueError for sizes that are not possible."""
    if image_size not in SIZES:
        sizes = ", ".join(map(str, SIZES))
        raise ValueError(f"PDAE's encoder takes images of {sizes} pixels, not of {image_size}")
    return (image_size // LAST_SIDE).bit_length() - 1


@dataclass(frozen=True, kw_only=True)
class StridedEncoderConfig:
    """Shape of a :class:`StridedEncoder`: ``channels`` after each convolution, one for each halving.

    ``image_size`` is a power of two from 32 to 512 pixels; raises ValueError for another, and for another
    number of ``channels`` than it takes to come down to 4 x 4.
    """

    NETWORK: ClassVar[str] = "StridedEncoder"

    image_size: int
    channels: tuple[int, ...]
    z_width: int = 512
    num_heads: int = 4
    attention_side: int = 16
    image_channels: int = 3

    def __post_init__(self) -> None:
        halvings = num_halvings(self.image_size)
        if len(self.channels) != halvings:
            raise ValueError(
                f"{self.image_size} pixels take {halvings} convolutions, not {len(self.channels)}"
            )


def published_channels(image_size: int) -> tuple[int, ...]:
    """The authors' widths at 64 and 128 pixels, and the like at others: 64, 128, then 256 above 64 pixels."""
    halvings = num_halvings(image_size)
    return (64, 128, *[128 if image_size <= 64 else 256] * (halvings - 2))


class StridedEncoder(nn.Module):
    """Images ``x_0`` (B, C, H, W) in [-1, 1] to ``z`` (B, z_width)."""

    def __init__(self, config: StridedEncoderConfig) -> None:
        super().__init__()
        self.config = config
        side, h = config.image_size, config.image_channels
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        self.attention: SelfAttention | None = None
        for width in config.channels:
            self.convs.append(nn.Conv2d(h, width, 3, stride=2, padding=1))
            self.norms.append(group_norm(width))
            side, h = side // 2, width
            if side == config.attention_side:
                self.attention = SelfAttention(width, config.num_heads)
        self.proj_out = nn.Linear(h * side**2, config.z_width)

    def forward(self, x_0: Tensor) -> Tensor:
        """Encode ``x_0``; raises ValueError where its size is not the network's."""
        c = self.config
        if x_0.shape[1:] != (c.image_channels, c.image_size, c.image_size):
            raise ValueError(
                f"the encoder takes images of {c.image_channels} x {c.image_size} x {c.image_size}, "
                f"not {tuple(x_0.shape[1:])}"
            )
        h = x_0
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = conv(h)
            if self.attention is not None and h.shape[2] == c.attention_side:
                h = self.attention(h)
            h = F.silu(norm(h))
        return self.proj_out(h.flatten(1))
