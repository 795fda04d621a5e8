"""LRDM's UNet on latents, conditioned on a pyramid of maps (Traub 2022, arXiv 2210.11058, section 4.1).

Each map is concatenated to what enters the first block of its level on the way down; the deepest also to
what enters the middle. Nothing of them enters the way up, whose laterals are taken before attention. Time,
and a class, enter every block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from rdm_cli.models.foreign_config import LATER
from rdm_cli.models.latent_blocks import Embedding, HeadNorm
from rdm_cli.models.latent_tower import LatentTower, run_down, run_up

Weighting = Literal["none", "likelihood", "other"]


@dataclass(frozen=True, kw_only=True)
class LatentUNetConfig:
    """Shape of a :class:`LatentUNet` for latents of ``latent_channels`` x ``latent_size`` x ``latent_size``.

    ``map_channels`` are those of the pyramid, from the shallowest level to the deepest; () is an
    unconditional UNet. ``attention_resolutions`` are sides of maps. ``weighting`` is that of its loss over t;
    "other" weighs what is predicted as if the other one, eps or x_0, were. ``class_names`` are those of its
    classes, if it is told any. ``sees_guess``: it is shown a guess of the latents as well.
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
    class_names: tuple[str, ...] = ()
    weighting: Weighting = "none"
    sees_guess: bool | None = field(default=None, metadata={LATER: True})

    def __post_init__(self) -> None:
        if self.map_channels and len(self.map_channels) != len(self.channel_mult):
            raise ValueError("the pyramid needs one map for each level of the UNet")


class LatentUNet(LatentTower):
    """(z_t, t, pyramid) to a prediction of z_t's shape: the clean latent, or eps, as it was trained.

    ``scale_factor`` makes the first stage's latents those that it was trained on.
    """

    scale_factor: Tensor

    def __init__(self, config: LatentUNetConfig) -> None:
        c = config
        super().__init__(
            embed_width=4 * c.model_channels, dropout=c.dropout, adaptive=True,
            attention_resolutions=c.attention_resolutions, head_channels=c.head_channels,
        )  # fmt: skip
        self.config = config
        self.register_buffer("scale_factor", torch.ones(()))
        self.embedding = Embedding(c.model_channels, time=True, num_classes=len(c.class_names) or None)
        widths = [m * c.model_channels for m in c.channel_mult]
        num, deepest = c.num_res_blocks, c.latent_size >> (len(widths) - 1)
        shown = 2 if c.sees_guess else 1
        self.conv_in = nn.Conv2d(shown * c.latent_channels, c.model_channels, 3, padding=1)
        self.down, laterals = self.make_down(c.model_channels, widths, c.latent_size, num, c.map_channels)
        self.middle = self.make_middle(widths[-1], extra=c.map_channels[-1] if c.map_channels else 0)
        self.up = self.make_up(widths[-1], widths, deepest, num + 1, laterals)
        self.head = HeadNorm(widths[0], c.latent_channels)

    def forward(
        self,
        z_t: Tensor,
        t: Tensor,
        pyramid: Sequence[Tensor] = (),
        y: Tensor | None = None,
        guess: Tensor | None = None,
    ) -> Tensor:
        """Predict from ``z_t`` (B, C, H, W), ``t`` (B,), the ``pyramid``, deepest first, and classes ``y``.

        One that sees a guess takes it as well, as ``guess`` (B, C, H, W). Raises ValueError for another
        number of maps than the UNet takes.
        """
        if len(pyramid) != len(self.config.map_channels):
            raise ValueError(f"{len(self.config.map_channels)} maps are needed, not {len(pyramid)}")
        activated = self.embedding(t, y)
        seen = z_t if guess is None else torch.cat([z_t, guess], dim=1)
        h, laterals = run_down(self.down, self.conv_in(seen), activated, pyramid)
        h = self.middle(torch.cat([h, *pyramid[:1]], dim=1), activated)
        return self.head(run_up(self.up, h, activated, laterals)[0])
