"""How LRDM's networks go down and up: levels of blocks, with laterals or without, for all four alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from rdm_cli.models.blocks import Resample, SelfAttention
from rdm_cli.models.latent_blocks import EmbeddedResBlock, Level, Middle, latent_norm


class LatentTower(nn.Module):
    """Makes the parts of a network, of one kind of block, and runs them.

    ``embed_width`` None: nothing is embedded. ``attention_resolutions`` are sides of maps;
    ``head_channels`` is the width of an attention head, None: one head.
    """

    def __init__(
        self,
        *,
        embed_width: int | None,
        dropout: float,
        adaptive: bool,
        attention_resolutions: Sequence[int],
        head_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.embed_width = embed_width
        self.dropout_rate = dropout
        self.adaptive = adaptive
        self.attention_resolutions = tuple(attention_resolutions)
        self.head_channels = head_channels

    def _heads(self, channels: int) -> int:
        return 1 if self.head_channels is None else max(1, channels // self.head_channels)

    def _block(self, channels_in: int, channels_out: int, mode: Resample = "none") -> EmbeddedResBlock:
        return EmbeddedResBlock(
            channels_in, channels_out, embed_width=self.embed_width, dropout=self.dropout_rate,
            adaptive=self.adaptive, mode=mode,
        )  # fmt: skip

    def _level(self, channels_in: Sequence[int], width: int, side: int, mode: Resample | None) -> Level:
        """A block for each of ``channels_in``, and a resampler unless ``mode`` is None."""
        blocks = [self._block(h, width) for h in channels_in]
        attends = side in self.attention_resolutions
        heads = self._heads(width)
        attentions = [SelfAttention(width, heads, latent_norm(width)) for _ in channels_in if attends]
        return Level(blocks, attentions, None if mode is None else self._block(width, width, mode))

    def make_middle(self, channels: int, *, extra: int = 0, embed: bool = True) -> Middle:
        """The middle, whose first block takes ``extra`` channels more."""
        return Middle(
            channels, embed_width=self.embed_width if embed else None, dropout=self.dropout_rate,
            adaptive=self.adaptive, num_heads=self._heads(channels), extra=extra,
        )  # fmt: skip

    def make_down(
        self, h: int, widths: Sequence[int], side: int, num: int, extra: Sequence[int] = ()
    ) -> tuple[nn.ModuleList, list[int]]:
        """Levels of ``num`` blocks from ``h`` channels and ``side`` on; and the laterals' channels.

        ``extra`` channels enter the first block of each level besides.
        """
        laterals, levels = [h], nn.ModuleList()
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            entering = h + (extra[i] if extra else 0)
            levels.append(
                self._level([entering, *[width] * (num - 1)], width, side, None if last else "down")
            )
            laterals += [width] * (num + (not last))
            h, side = width, side // 2
        return levels, laterals

    def make_up(
        self,
        h: int,
        widths: Sequence[int],
        side: int,
        num: int,
        laterals: list[int] | None,
        entering: int = 0,
    ) -> nn.ModuleList:
        """Levels of ``num`` blocks, deepest first, from ``h`` channels and ``side`` on.

        Each block takes the last unused lateral besides, unless ``laterals`` is None; the first, ``entering``
        channels more.
        """
        left, levels = list(laterals or ()), nn.ModuleList()
        for i, width in enumerate(reversed(widths)):
            last = i == len(widths) - 1
            taken = [left.pop() if laterals is not None else 0 for _ in range(num)]
            channels_in = [(h if k == 0 else width) + lateral for k, lateral in enumerate(taken)]
            channels_in[0] += entering if i == 0 else 0
            levels.append(self._level(channels_in, width, side, None if last else "up"))
            h, side = width, side * 2
        return levels


def run_down(
    levels: nn.ModuleList, h: Tensor, activated: Tensor | None, maps: Sequence[Tensor] = ()
) -> tuple[Tensor, list[Tensor]]:
    """Down from ``h``: the deepest map, and the laterals, taken before attention.

    ``maps``, deepest first, enter the first block of their level.
    """
    laterals, left = [h], list(maps)
    for level in cast(Iterable[Level], levels):
        h = torch.cat([h, left.pop()], dim=1) if left else h
        for i in range(len(level.blocks)):
            lateral, h = level.run(i, h, activated)
            laterals.append(lateral)
        if level.resampler is not None:
            h = level.resampler.embedded(h, activated)
            laterals.append(h)
    return h, laterals


def run_up(
    levels: nn.ModuleList, h: Tensor, activated: Tensor | None, laterals: list[Tensor] | None
) -> tuple[Tensor, list[Tensor]]:
    """Up from ``h``: the last map, and those of the other levels before they are doubled, deepest first."""
    left = list(laterals or ())
    maps: list[Tensor] = []
    for level in cast(Iterable[Level], levels):
        for i in range(len(level.blocks)):
            _, h = level.run(i, h if laterals is None else torch.cat([h, left.pop()], dim=1), activated)
        if level.resampler is not None:
            maps.append(h)
            h = level.resampler.embedded(h, activated)
    return h, maps
