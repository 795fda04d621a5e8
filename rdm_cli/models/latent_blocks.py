"""Building blocks of LRDM's networks (Traub 2022, arXiv 2210.11058), which work on latents.

They are those of :mod:`rdm_cli.models.blocks` but for the norm, whose groups count four channels of the
block's output and whose epsilon is 1e-6, and for the embedding (of time, of a class), which scales and
shifts the second norm's result ("adaptive") or is added before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdm_cli.models.blocks import EncoderResBlock, Resample, SelfAttention, zero_init
from rdm_cli.models.dropout import Dropout


def latent_norm(channels: int, like: int | None = None) -> nn.GroupNorm:
    """A group norm of ``channels``, with the number of groups that ``like`` channels have (None: its own)."""
    return nn.GroupNorm(min((like or channels) // 4, 32), channels, eps=1e-6)


def sinusoid(t: Tensor, width: int) -> Tensor:
    """Embed timesteps ``t`` (B,): (B, width), sines first; frequencies fall from 1 to exactly 1e-4."""
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / (half - 1)
    angles = t.float()[:, None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Embedding(nn.Module):
    """SiLU of the sum of what is known of: ``t`` (B,) and the class ``y`` (B,), to (B, 4 channels)."""

    def __init__(self, channels: int, *, time: bool, num_classes: int | None) -> None:
        super().__init__()
        self.channels = channels
        width = 4 * channels
        self.linear_1 = nn.Linear(channels, width) if time else None
        self.linear_2 = nn.Linear(width, width) if time else None
        self.classes = nn.Embedding(num_classes, width) if num_classes else None

    def forward(self, t: Tensor | None, y: Tensor | None) -> Tensor | None:
        """None where the network knows of neither; raises ValueError where it lacks one that it knows of."""
        found: list[Tensor] = []
        if self.linear_1 is not None and self.linear_2 is not None:
            if t is None:
                raise ValueError("the network takes t")
            found.append(self.linear_2(F.silu(self.linear_1(sinusoid(t, self.channels)))))
        if self.classes is not None:
            if y is None:
                raise ValueError("the network takes a class")
            found.append(self.classes(y))
        return F.silu(torch.stack(found).sum(dim=0)) if found else None


class EmbeddedResBlock(EncoderResBlock):
    """A residual block that an embedding, if ``embed_width`` is given, scales and shifts or is added to."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        embed_width: int | None,
        dropout: float,
        adaptive: bool,
        mode: Resample = "none",
    ) -> None:
        super().__init__(channels_in, channels_out, mode, latent_norm(channels_in, like=channels_out))
        self.adaptive = adaptive
        width = (1 + adaptive) * channels_out
        self.embed_proj = None if embed_width is None else nn.Linear(embed_width, width)
        self.norm_2 = latent_norm(channels_out)
        self.dropout = Dropout(dropout)
        self.conv_2 = zero_init(nn.Conv2d(channels_out, channels_out, 3, padding=1))

    def embedded(self, x: Tensor, activated: Tensor | None) -> Tensor:
        """``x`` (B, C_in, H, W) and SiLU(embedding) (B, E), or None, to (B, C, H', W')."""
        h, x = self.first_half(x)
        known = None
        if self.embed_proj is not None and activated is not None:
            known = self.embed_proj(activated)[:, :, None, None]
        if known is not None and not self.adaptive:
            h = h + known
        h = self.norm_2(h)
        if known is not None and self.adaptive:
            scale, shift = known.chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return self.skip(x) + self.conv_2(self.dropout(F.silu(h)))


class Level(nn.Module):
    """One resolution: residual blocks, each followed by attention where there is some, then a resampler."""

    def __init__(
        self,
        blocks: Iterable[EmbeddedResBlock],
        attentions: Iterable[SelfAttention],
        resampler: EmbeddedResBlock | None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attentions = nn.ModuleList(attentions)
        self.resampler = resampler

    def run(self, i: int, x: Tensor, activated: Tensor | None) -> tuple[Tensor, Tensor]:
        """Block ``i``: its result before and after the attention that follows it."""
        h = cast(EmbeddedResBlock, self.blocks[i]).embedded(x, activated)
        return h, self.attentions[i](h) if len(self.attentions) else h


class Middle(nn.Module):
    """Block, attention, block; the first takes ``extra`` channels more."""

    def __init__(
        self,
        channels: int,
        *,
        embed_width: int | None,
        dropout: float,
        adaptive: bool,
        num_heads: int,
        extra: int = 0,
    ) -> None:
        super().__init__()
        settings = {"embed_width": embed_width, "dropout": dropout, "adaptive": adaptive}
        self.block_1 = EmbeddedResBlock(channels + extra, channels, **settings)  # type: ignore[arg-type]
        self.attention = SelfAttention(channels, num_heads, latent_norm(channels))
        self.block_2 = EmbeddedResBlock(channels, channels, **settings)  # type: ignore[arg-type]

    def forward(self, x: Tensor, activated: Tensor | None) -> Tensor:
        h = self.attention(self.block_1.embedded(x, activated))
        return self.block_2.embedded(h, activated)


class HeadNorm(nn.Sequential):
    """Norm, SiLU, convolution: how every network of these ends."""

    def __init__(self, channels: int, channels_out: int) -> None:
        super().__init__(latent_norm(channels), nn.SiLU(), nn.Conv2d(channels, channels_out, 3, padding=1))
