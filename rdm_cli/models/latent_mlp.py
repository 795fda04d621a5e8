"""The MLP with skips that Diff-AE and PDAE denoise codes with (arXiv 2111.15640, appendix A)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdm_cli.models.blocks import TimeEmbedding


@dataclass(frozen=True, kw_only=True)
class LatentMLPConfig:
    """Shape of a :class:`LatentMLP`: ``num_layers`` linear layers, the last back to ``z_width``."""

    NETWORK: ClassVar[str] = "LatentMLP"

    z_width: int = 512
    hidden_width: int = 2048
    num_layers: int = 10
    time_channels: int = 64


class LatentLayer(nn.Module):
    """Linear, scaled by time, LayerNorm, SiLU."""

    def __init__(self, width_in: int, width_out: int, time_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width_in, width_out)
        self.time_proj = nn.Linear(time_width, width_out)
        self.norm = nn.LayerNorm(width_out)
        nn.init.kaiming_normal_(self.linear.weight, a=0, nonlinearity="relu")

    def forward(self, h: Tensor, t_activated: Tensor) -> Tensor:
        h = self.linear(h) * (1 + self.time_proj(t_activated))
        return F.silu(self.norm(h))


class LatentMLP(nn.Module):
    """(z_t, t) to eps, for standardised codes ``z_t`` (B, z_width); z_t is fed again to every layer."""

    def __init__(self, config: LatentMLPConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.time_embed = TimeEmbedding(c.time_channels, c.z_width)
        widths = [c.z_width] + [c.hidden_width + c.z_width] * (c.num_layers - 1)
        self.layers = nn.ModuleList(LatentLayer(width, c.hidden_width, c.z_width) for width in widths[:-1])
        self.linear_out = nn.Linear(widths[-1], c.z_width)

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Predict eps (B, z_width) from ``z_t`` (B, z_width) and ``t`` (B,)."""
        t_activated = F.silu(self.time_embed(t))
        h = z_t
        for i, layer in enumerate(self.layers):
            h = layer(h if i == 0 else torch.cat([h, z_t], dim=1), t_activated)
        return self.linear_out(torch.cat([h, z_t], dim=1))
