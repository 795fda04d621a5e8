"""The conditional UNet that Diff-AE decodes with (arXiv 2111.15640, section 3.1).

Down: ``num_res_blocks`` blocks a level, then one that halves the resolution. Middle: block,
attention, block. Up: ``num_res_blocks + 1`` blocks a level, each fed the last unused lateral as
[h, lateral], then one block that doubles the resolution and takes none. What depends on the code
alone is computed by :meth:`ConditionalUNet.condition`, once for a whole trajectory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdm_cli.models.blocks import (
    ConditionalResBlock,
    Resample,
    SelfAttention,
    TimeEmbedding,
    group_norm,
    zero_init,
)


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Shape of a :class:`ConditionalUNet`.

    ``image_size`` is in pixels. ``patch_size`` p folds p x p pixels into channels before the first
    convolution and unfolds them after the last, so the first level works at ``image_size / p``;
    ``attention_resolutions`` are sides of feature maps. ``head_channels`` is the width of an attention
    head, whatever the level's; None: ``num_heads`` of them. ``z_width`` None means unconditional.
    """

    image_size: int
    model_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    num_heads: int = 1
    head_channels: int | None = None
    time_width: int = 512
    z_width: int | None = 512
    dropout: float = 0.1
    image_channels: int = 3
    patch_size: int = 1

    def heads(self, channels: int) -> int:
        """Attention heads in a layer of ``channels``."""
        return self.num_heads if self.head_channels is None else channels // self.head_channels


class Stage(nn.Module):
    """One entry of the UNet's way down or up: a residual block, then attention, then a resampler."""

    def __init__(
        self,
        res: ConditionalResBlock,
        attention: SelfAttention | None = None,
        up: ConditionalResBlock | None = None,
    ) -> None:
        super().__init__()
        self.res = res
        self.attention = attention
        self.up = up


class ConditionalUNet(nn.Module):
    """(x_t, t, z) to a prediction of x_t's shape: eps, v or x_0, as it was trained."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        widths = [m * c.model_channels for m in c.channel_mult]
        folded = c.image_channels * c.patch_size**2

        def res(channels_in: int, channels_out: int, mode: Resample = "none") -> ConditionalResBlock:
            return ConditionalResBlock(
                channels_in,
                channels_out,
                time_width=c.time_width,
                z_width=c.z_width,
                dropout=c.dropout,
                mode=mode,
            )

        def attention(channels: int, side: int) -> SelfAttention | None:
            return SelfAttention(channels, c.heads(channels)) if side in c.attention_resolutions else None

        self.time_embed = TimeEmbedding(c.model_channels, c.time_width)
        self.conv_in = nn.Conv2d(folded, widths[0], 3, padding=1)

        side = c.image_size // c.patch_size
        h, laterals = widths[0], [widths[0]]
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            for _ in range(c.num_res_blocks):
                self.down.append(Stage(res(h, width), attention(width, side)))
                h = width
                laterals.append(h)
            if level < len(widths) - 1:
                self.down.append(Stage(res(h, h, "down")))
                laterals.append(h)
                side //= 2

        self.middle_1 = res(h, h)
        self.middle_attention = SelfAttention(h, c.heads(h))
        self.middle_2 = res(h, h)

        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            width = widths[level]
            for i in range(c.num_res_blocks + 1):
                goes_up = level > 0 and i == c.num_res_blocks
                self.up.append(
                    Stage(
                        res(h + laterals.pop(), width),
                        attention(width, side),
                        res(width, width, "up") if goes_up else None,
                    )
                )
                h = width
            side *= 2

        self.norm_out = group_norm(h)
        self.conv_out = zero_init(nn.Conv2d(h, folded, 3, padding=1))
        self._blocks = [m for m in self.modules() if isinstance(m, ConditionalResBlock)]

    def condition(self, z: Tensor | None) -> list[Tensor | None]:
        """Everything the network needs of ``z`` (B, z_width): one scale a residual block."""
        if z is None:
            return [None] * len(self._blocks)
        z_activated = F.silu(z)
        return [block.z_scale(z_activated) for block in self._blocks]

    def forward(self, x_t: Tensor, t: Tensor, z_scales: Sequence[Tensor | None]) -> Tensor:
        """Predict from ``x_t`` (B, C, H, W), ``t`` (B,) and the result of :meth:`condition`."""
        p = self.config.patch_size
        scales = dict(zip(self._blocks, z_scales, strict=True))
        t_activated = F.silu(self.time_embed(t))

        def run(block: ConditionalResBlock, h: Tensor) -> Tensor:
            return block.modulated(h, t_activated, scales[block])

        h = self.conv_in(F.pixel_unshuffle(x_t, p) if p > 1 else x_t)
        laterals = [h]
        for stage in cast(Iterable[Stage], self.down):
            h = run(stage.res, h)
            if stage.attention is not None:
                h = stage.attention(h)
            laterals.append(h)
        h = run(self.middle_1, h)
        h = run(self.middle_2, self.middle_attention(h))
        for stage in cast(Iterable[Stage], self.up):
            h = run(stage.res, torch.cat([h, laterals.pop()], dim=1))
            if stage.attention is not None:
                h = stage.attention(h)
            if stage.up is not None:
                h = run(stage.up, h)
        h = self.conv_out(F.silu(self.norm_out(h)))
        return F.pixel_shuffle(h, p) if p > 1 else h
