"""LRDM's UNet on latents, conditioned on a pyramid of maps (Traub 2022, arXiv 2210.11058, section 4.1).

Each map is concatenated to what enters the first block of its level on the way down; the deepest also to
what enters the middle. Nothing of them enters the way up, whose laterals are taken before attention. Time,
and a class, enter every block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from rdm_cli.models.blocks import SelfAttention
from rdm_cli.models.latent_blocks import EmbeddedResBlock, Embedding, HeadNorm, Level, Middle, latent_norm

Weighting = Literal["none", "likelihood", "other"]


@dataclass(frozen=True, kw_only=True)
class LatentUNetConfig:
    """Shape of a :class:`LatentUNet` for latents of ``latent_channels`` x ``latent_size`` x ``latent_size``.

    ``map_channels`` are those of the pyramid, from the shallowest level to the deepest; () is an
    unconditional UNet. ``attention_resolutions`` are sides of maps. ``weighting`` is that of its loss over t;
    "other" weighs what is predicted as if the other one, eps or x_0, were.
    """

    NETWORK: ClassVar[str] = "LatentUNet"

    latent_size: int
    latent_channels: int
    model_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = ()
    head_channels: int = 64
    dropout: float = 0.2
    map_channels: tuple[int, ...] = ()
    num_classes: int | None = None
    weighting: Weighting = "none"

    def __post_init__(self) -> None:
        if self.map_channels and len(self.map_channels) != len(self.channel_mult):
            raise ValueError("the pyramid needs one map for each level of the UNet")


class LatentUNet(nn.Module):
    """(z_t, t, pyramid) to a prediction of z_t's shape: the clean latent, or eps, as it was trained.

    ``scale_factor`` makes the first stage's latents those that it was trained on.
    """

    scale_factor: Tensor

    def __init__(self, config: LatentUNetConfig) -> None:
        super().__init__()
        self.config = c = config
        self.register_buffer("scale_factor", torch.ones(()))
        self.embedding = Embedding(c.model_channels, time=True, num_classes=c.num_classes)
        widths = [m * c.model_channels for m in c.channel_mult]
        extra = c.map_channels or (0,) * len(widths)
        h = c.model_channels
        self.conv_in = nn.Conv2d(c.latent_channels, h, 3, padding=1)
        laterals, side = [h], c.latent_size
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            last = level == len(widths) - 1
            blocks = []
            for i in range(c.num_res_blocks):
                blocks.append(self._block(h + (extra[level] if i == 0 else 0), width))
                h = width
                laterals.append(h)
            attentions = self._attentions(width, side, c.num_res_blocks)
            self.down.append(Level(blocks, attentions, None if last else self._block(h, h, "down")))
            if not last:
                laterals.append(h)
                side //= 2
        self.middle = Middle(
            h, embed_width=4 * c.model_channels, dropout=c.dropout, adaptive=True,
            num_heads=max(1, h // c.head_channels), extra=extra[-1],
        )  # fmt: skip
        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            blocks = []
            for _ in range(c.num_res_blocks + 1):
                blocks.append(self._block(h + laterals.pop(), width))
                h = width
            attentions = self._attentions(width, side, c.num_res_blocks + 1)
            self.up.append(Level(blocks, attentions, self._block(h, h, "up") if level else None))
            side *= 2
        self.head = HeadNorm(h, c.latent_channels)

    def _block(self, channels_in: int, channels_out: int, mode: str = "none") -> EmbeddedResBlock:
        return EmbeddedResBlock(
            channels_in, channels_out, embed_width=4 * self.config.model_channels,
            dropout=self.config.dropout, adaptive=True, mode=mode,  # type: ignore[arg-type]
        )  # fmt: skip

    def _attentions(self, channels: int, side: int, num: int) -> list[SelfAttention]:
        if side not in self.config.attention_resolutions:
            return []
        heads = max(1, channels // self.config.head_channels)
        return [SelfAttention(channels, heads, latent_norm(channels)) for _ in range(num)]

    def forward(
        self, z_t: Tensor, t: Tensor, pyramid: Sequence[Tensor] = (), y: Tensor | None = None
    ) -> Tensor:
        """Predict from ``z_t`` (B, C, H, W), ``t`` (B,), the ``pyramid``, deepest first, and classes ``y``.

        Raises ValueError for another number of maps than the UNet takes.
        """
        if len(pyramid) != len(self.config.map_channels):
            raise ValueError(f"{len(self.config.map_channels)} maps are needed, not {len(pyramid)}")
        activated = self.embedding(t, y)
        maps = list(pyramid)
        deepest = maps[:1]
        h = self.conv_in(z_t)
        laterals = [h]
        for level in cast(Iterable[Level], self.down):
            entering = [h, maps.pop()] if maps else [h]
            h = torch.cat(entering, dim=1)
            for i in range(len(level.blocks)):
                lateral, h = level.run(i, h, activated)
                laterals.append(lateral)
            if level.resampler is not None:
                h = level.resampler.embedded(h, activated)
                laterals.append(h)
        h = self.middle(torch.cat([h, *deepest], dim=1), activated)
        for level in cast(Iterable[Level], self.up):
            for i in range(len(level.blocks)):
                _, h = level.run(i, torch.cat([h, laterals.pop()], dim=1), activated)
            if level.resampler is not None:
                h = level.resampler.embedded(h, activated)
        return self.head(h)
