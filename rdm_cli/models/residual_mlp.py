"""A residual MLP that denoises codes and may be told attributes: what small presets' priors are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdm_cli.models.blocks import TimeEmbedding, zero_init


@dataclass(frozen=True, kw_only=True)
class ResidualMLPConfig:
    """Shape of a :class:`ResidualMLP`: ``num_layers`` residual blocks of ``hidden_width``.

    Time, as sinusoids of ``time_channels``, and attributes are embedded in ``embedding_width`` values.
    """

    NETWORK: ClassVar[str] = "ResidualMLP"

    z_width: int = 256
    hidden_width: int = 384
    num_layers: int = 3
    time_channels: int = 64
    embedding_width: int = 64


class ResidualBlock(nn.Module):
    """h + (1 + gate) W SiLU(V ((1 + scale) LN(h) + shift)): the embedding gives gate, scale, shift.

    As DiT conditions its blocks (arXiv 2212.09748, section 3.2), but the gate starts at 1.
    """

    def __init__(self, width: int, embedding_width: int) -> None:
        super().__init__()
        self.modulation = zero_init(nn.Linear(embedding_width, 3 * width))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.linear_1 = nn.Linear(width, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, h: Tensor, embedded: Tensor) -> Tensor:
        gate, scale, shift = self.modulation(embedded).chunk(3, dim=1)
        inner = F.silu(self.linear_1(self.norm(h) * (1 + scale) + shift))
        return h + (1 + gate) * self.linear_2(inner)


class ResidualMLP(nn.Module):
    """(z_t, t) to what it predicts, for standardised codes ``z_t`` (B, z_width).

    With ``num_attributes`` K above 0 it is told what is ``said`` of them as well: (B, K), 1 for yes, -1 for
    no, 0 where nothing is said, which embeds as nothing.
    """

    def __init__(self, config: ResidualMLPConfig, num_attributes: int = 0) -> None:
        super().__init__()
        self.config = config
        c = config
        self.time_embed = TimeEmbedding(c.time_channels, c.embedding_width)
        self.attribute_embed = (
            zero_init(nn.Linear(2 * num_attributes, c.embedding_width, bias=False))
            if num_attributes
            else None
        )
        self.linear_in = nn.Linear(c.z_width, c.hidden_width)
        self.blocks = nn.ModuleList(
            ResidualBlock(c.hidden_width, c.embedding_width) for _ in range(c.num_layers)
        )
        self.modulation_out = zero_init(nn.Linear(c.embedding_width, 2 * c.hidden_width))
        self.norm_out = nn.LayerNorm(c.hidden_width, elementwise_affine=False)
        self.linear_out = zero_init(nn.Linear(c.hidden_width, c.z_width))

    def forward(self, z_t: Tensor, t: Tensor, said: Tensor | None = None) -> Tensor:
        """Predict (B, z_width) from ``z_t`` (B, z_width), ``t`` (B,) and ``said`` (B, K); None: nothing."""
        embedded = self.time_embed(t)
        if self.attribute_embed is not None and said is not None:
            yes_and_no = torch.cat([said.clamp(min=0), (-said).clamp(min=0)], dim=1)
            embedded = embedded + self.attribute_embed(yes_and_no)
        embedded = F.silu(embedded)
        h = self.linear_in(z_t)
        for block in self.blocks:
            h = block(h, embedded)
        scale, shift = self.modulation_out(embedded).chunk(2, dim=1)
        return self.linear_out(self.norm_out(h) * (1 + scale) + shift)
