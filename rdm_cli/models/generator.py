"""A picture from z alone, and the maps on the way to it: z's spatial way into a UNet.

    h = Linear(z), C x s x s;  each level: double h, blocks that z scales and shifts;  guess = conv(h)

In the UNet of Diff-AE (arXiv 2111.15640) z only scales channels, and where things lie has to be made of x_t;
where x_t is all noise, the noise shows. Here z says where things lie. Nothing depends on x_t or t, so a
sampler computes it once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, cast

import torch.nn.functional as F
from torch import Tensor, nn

from rdm_cli.models.blocks import EncoderResBlock, FullPrecisionConv2d, Resample, group_norm, zero_init


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Shape of a :class:`Generator` of ``image_size`` px, which works on patches of ``patch_size``.

    ``channels`` of each level's maps, from the coarsest to the finest; the finest has ``image_size /
    patch_size`` a side, and each has half the side of the next. ``num_res_blocks`` says how many blocks each
    level has. ``spread`` is about the standard deviation, in [-1, 1], of what the guess lacks of the image.
    """

    NETWORK: ClassVar[str] = "Generator"

    image_size: int
    channels: tuple[int, ...]
    num_res_blocks: tuple[int, ...]
    z_width: int = 256
    spread: float = 0.06
    image_channels: int = 3
    patch_size: int = 2

    def __post_init__(self) -> None:
        if not self.channels or self.image_size % (self.patch_size << (len(self.channels) - 1)):
            raise ValueError(f"images of {self.image_size} px cannot be halved that often")
        if len(self.num_res_blocks) != len(self.channels) or min(self.num_res_blocks) < 1:
            raise ValueError("each level has one block or more")
        if self.spread <= 0:
            raise ValueError(f"the spread must be more than 0, not {self.spread}")

    @property
    def coarsest_side(self) -> int:
        """Side of the first level's maps."""
        return self.image_size // self.patch_size >> (len(self.channels) - 1)

    @property
    def sides(self) -> tuple[int, ...]:
        """Side of each level's maps, from the coarsest to the finest."""
        return tuple(self.coarsest_side << level for level in range(len(self.channels)))


class GeneratorBlock(EncoderResBlock):
    """A residual block that z scales and shifts."""

    def __init__(self, channels_in: int, channels_out: int, z_width: int, mode: Resample = "none") -> None:
        super().__init__(channels_in, channels_out, mode)
        self.z_proj = zero_init(nn.Linear(z_width, 2 * channels_out))
        self.norm_2 = group_norm(channels_out)
        self.conv_2 = zero_init(nn.Conv2d(channels_out, channels_out, 3, padding=1))

    def modulated(self, x: Tensor, z_activated: Tensor) -> Tensor:
        """``x`` (B, C_in, H, W) and SiLU(z) (B, S) to (B, C, H', W')."""
        h, x = self.first_half(x)
        scale, shift = self.z_proj(z_activated)[:, :, None, None].chunk(2, dim=1)
        h = self.norm_2(h) * (1 + scale) + shift
        return self.skip(x) + self.conv_2(F.silu(h))


@dataclass(frozen=True)
class Guess:
    """What z alone says: the ``picture`` (B, C, H, W), float32, and each level's ``maps``, coarsest first."""

    picture: Tensor
    maps: tuple[Tensor, ...]


class Generator(nn.Module):
    """z (B, z_width) to a :class:`Guess`."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = c = config
        h = c.channels[0]
        self.seed = nn.Linear(c.z_width, h * c.coarsest_side**2)
        self.levels = nn.ModuleList()
        for level, (width, num) in enumerate(zip(c.channels, c.num_res_blocks, strict=True)):
            first = GeneratorBlock(h, width, c.z_width, "up" if level else "none")
            others = (GeneratorBlock(width, width, c.z_width) for _ in range(num - 1))
            self.levels.append(nn.ModuleList([first, *others]))
            h = width
        self.norm_out = group_norm(h)
        self.conv_out = FullPrecisionConv2d(h, c.image_channels * c.patch_size**2, 3, padding=1)

    def forward(self, z: Tensor) -> Guess:
        """The guess of ``z`` (B, z_width)."""
        c = self.config
        z_activated = F.silu(z)
        h = self.seed(z).unflatten(1, (c.channels[0], c.coarsest_side, c.coarsest_side))
        maps = []
        for blocks in cast(Iterable[nn.ModuleList], self.levels):
            for block in cast(Iterable[GeneratorBlock], blocks):
                h = block.modulated(h, z_activated)
            maps.append(h)
        h = self.conv_out(F.silu(self.norm_out(h)))
        return Guess(F.pixel_shuffle(h, c.patch_size), tuple(maps))
