"""The conditional UNet that Diff-AE decodes with (arXiv 2111.15640, section 3.1).

Down: ``num_res_blocks`` blocks a level, then one that halves the resolution. Middle: block,
attention, block. Up: ``num_res_blocks + 1`` blocks a level, each fed the last unused lateral as
[h, lateral], then one block that doubles the resolution and takes none. What depends on the code
alone is computed by :meth:`ConditionalUNet.condition`, once for a whole trajectory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, cast

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
from rdm_cli.models.foreign_config import LATER
from rdm_cli.models.generator import Guess

Place = Callable[[int, Tensor], Tensor]
"""(number, h) to h: what becomes of a map on the way up, after the middle (0) and each stage (1, 2, ...)."""


def unchanged(_: int, h: Tensor) -> Tensor:
    """A :data:`Place` that does nothing."""
    return h


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Shape of a :class:`ConditionalUNet`.

    ``image_size`` is in pixels. ``patch_size`` p folds p x p pixels into channels before the first
    convolution and unfolds them after the last, so the first level works at ``image_size / p``;
    ``attention_resolutions`` are sides of feature maps. ``head_channels`` is the width of an attention
    head, whatever the level's; None: ``num_heads`` of them. ``z_width`` None means unconditional.
    ``guess_channels``: the UNet is shown a guess of the image, of as many channels as the image, and a map of
    these channels at each level, from the first (the finest) on; None: it is not.
    """

    NETWORK: ClassVar[str] = "ConditionalUNet"

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
    guess_channels: tuple[int, ...] | None = field(default=None, metadata={LATER: True})

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


@dataclass(frozen=True)
class Features:
    """What the way down leaves for the way up: the time embedding (B, E), and every map on the way.

    ``time`` is as the blocks take it: after SiLU, or before it where they apply it themselves. The last of
    ``maps`` is where the way down ends; the others are the laterals.
    """

    time: Tensor
    maps: list[Tensor]


def map_widths(config: UNetConfig) -> list[int]:
    """Channels of every map that the way down leaves, in order."""
    widths = [m * config.model_channels for m in config.channel_mult]
    found = [widths[0]]
    for level, width in enumerate(widths):
        found += [width] * (config.num_res_blocks + (level < len(widths) - 1))
    return found


def map_sides(config: UNetConfig) -> list[int]:
    """Side of every map that the way down leaves, in order."""
    side = config.image_size // config.patch_size
    found = [side]
    for level in range(len(config.channel_mult)):
        found += [side >> level] * config.num_res_blocks
        found += [side >> (level + 1)] * (level < len(config.channel_mult) - 1)
    return found


def place_widths(config: UNetConfig) -> list[int]:
    """Channels of the maps at each :data:`Place` of the way up."""
    widths = [m * config.model_channels for m in reversed(config.channel_mult)]
    return [widths[0], *(width for width in widths for _ in range(config.num_res_blocks + 1))]


class UpwardHalf(nn.Module):
    """The middle block and the way up, to a map of the image's shape.

    ``z_width`` None: without a code. ``z_shifts`` as in :class:`ConditionalResBlock`.
    """

    def __init__(self, config: UNetConfig, z_width: int | None, *, z_shifts: bool = False) -> None:
        super().__init__()
        self.config = config
        self.z_width = z_width
        self.z_shifts = z_shifts
        c = config
        widths = [m * c.model_channels for m in c.channel_mult]
        laterals = map_widths(c)
        side = c.image_size // c.patch_size >> (len(widths) - 1)
        h = widths[-1]
        self.middle_1 = self._block(h, h)
        self.middle_attention = SelfAttention(h, c.heads(h))
        self.middle_2 = self._block(h, h)
        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            width = widths[level]
            for i in range(c.num_res_blocks + 1):
                goes_up = level > 0 and i == c.num_res_blocks
                self.up.append(
                    Stage(
                        self._block(h + laterals.pop(), width),
                        self._attention(width, side),
                        self._block(width, width, "up") if goes_up else None,
                    )
                )
                h = width
            side *= 2
        self.norm_out = group_norm(h)
        self.conv_out = zero_init(nn.Conv2d(h, c.image_channels * c.patch_size**2, 3, padding=1))
        self._blocks = [m for m in self.modules() if isinstance(m, ConditionalResBlock)]

    def _block(self, channels_in: int, channels_out: int, mode: Resample = "none") -> ConditionalResBlock:
        return ConditionalResBlock(
            channels_in,
            channels_out,
            time_width=self.config.time_width,
            z_width=self.z_width,
            dropout=self.config.dropout,
            mode=mode,
            z_shifts=self.z_shifts,
        )

    def _attention(self, channels: int, side: int) -> SelfAttention | None:
        attends = side in self.config.attention_resolutions
        return SelfAttention(channels, self.config.heads(channels)) if attends else None

    def condition(self, z: Tensor | None) -> list[Tensor | None]:
        """Everything the network needs of ``z`` (B, z_width): one scale a residual block."""
        if z is None:
            return [None] * len(self._blocks)
        z_activated = F.silu(z)
        return [block.z_scale(z_activated) for block in self._blocks]

    def _scales(self, z_scales: Sequence[Tensor | None]) -> dict[ConditionalResBlock, Tensor | None]:
        return dict(zip(self._blocks, z_scales, strict=True))

    def upward(
        self, features: Features, z_scales: Sequence[Tensor | None], at_place: Place = unchanged
    ) -> Tensor:
        """From the way down's ``features`` and the result of :meth:`condition` to (B, C, H, W)."""
        scales = self._scales(z_scales)
        laterals = list(features.maps)

        def run(block: ConditionalResBlock, h: Tensor) -> Tensor:
            return block.modulated(h, features.time, scales[block])

        h = run(self.middle_1, laterals[-1])
        h = at_place(0, run(self.middle_2, self.middle_attention(h)))
        for i, stage in enumerate(cast(Iterable[Stage], self.up)):
            h = run(stage.res, torch.cat([h, laterals.pop()], dim=1))
            if stage.attention is not None:
                h = stage.attention(h)
            h = at_place(i + 1, h)
            if stage.up is not None:
                h = run(stage.up, h)
        h = self.conv_out(F.silu(self.norm_out(h)))
        p = self.config.patch_size
        return F.pixel_shuffle(h, p) if p > 1 else h


class ConditionalUNet(UpwardHalf):
    """(x_t, t, z) to a prediction of x_t's shape: eps, v or x_0, as it was trained."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config, config.z_width)
        c = config
        widths = [m * c.model_channels for m in c.channel_mult]
        self.time_embed = TimeEmbedding(c.model_channels, c.time_width)
        shown = 1 + (c.guess_channels is not None)
        self.conv_in = nn.Conv2d(shown * c.image_channels * c.patch_size**2, widths[0], 3, padding=1)
        self.guess_joins = None
        if c.guess_channels is not None:
            entering = [widths[0], *widths[:-1]]  # what a level's first block takes
            joins = zip(c.guess_channels, entering, strict=True)
            self.guess_joins = nn.ModuleList(nn.Conv2d(theirs, ours, 1) for theirs, ours in joins)
        side = c.image_size // c.patch_size
        h = widths[0]
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            for _ in range(c.num_res_blocks):
                self.down.append(Stage(self._block(h, width), self._attention(width, side)))
                h = width
            if level < len(widths) - 1:
                self.down.append(Stage(self._block(h, h, "down")))
                side //= 2
        # from the image to the image, as Diff-AE's StyleSpace lists them
        self._blocks = [m for m in self.down.modules() if isinstance(m, ConditionalResBlock)] + self._blocks

    def features(
        self, x_t: Tensor, t: Tensor, z_scales: Sequence[Tensor | None], guess: Guess | None = None
    ) -> Features:
        """The way down, from ``x_t`` (B, C, H, W), ``t`` (B,) and the result of :meth:`condition`.

        A UNet that is shown a ``guess`` takes it as well.
        """
        scales = self._scales(z_scales)
        p = self.config.patch_size
        t_activated = F.silu(self.time_embed(t))
        seen = x_t if guess is None else torch.cat([x_t, guess.picture], dim=1)
        joined = [] if guess is None else self._joined(guess)
        h = self.conv_in(F.pixel_unshuffle(seen, p) if p > 1 else seen)
        h = h + joined.pop() if joined else h
        maps = [h]
        for stage in cast(Iterable[Stage], self.down):
            h = stage.res.modulated(h, t_activated, scales[stage.res])
            if joined and stage.res.mode == "down":
                h = h + joined.pop()
            if stage.attention is not None:
                h = stage.attention(h)
            maps.append(h)
        return Features(t_activated, maps)

    def _joined(self, guess: Guess) -> list[Tensor]:
        """What is added to each level's first map; the finest level's is the last."""
        assert self.guess_joins is not None
        finest_first = list(guess.maps)[::-1]
        return [join(h) for join, h in zip(self.guess_joins, finest_first, strict=False)][::-1]

    def forward(
        self, x_t: Tensor, t: Tensor, z_scales: Sequence[Tensor | None], guess: Guess | None = None
    ) -> Tensor:
        """Predict from what :meth:`features` takes."""
        return self.upward(self.features(x_t, t, z_scales, guess), z_scales)
