"""A convolutional network to be used as it was drawn: features without learning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (3, 32, 64, 128, 256)
GRID = 4  # places a side that are told apart in the end


@dataclass(frozen=True, kw_only=True)
class RandomNetworkConfig:
    """How many features it gives."""

    num_features: int


class RandomNetwork(nn.Module):
    """Images (B, 3, H, W) of any size to features (B, num_features).

    Four convolutions of stride 2, each with a ReLU, the mean over each place of a 4 x 4 grid, and a linear
    layer on all of them. Its weights are those that :meth:`draw` drew.
    """

    def __init__(self, config: RandomNetworkConfig) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False) for before, after in pairwise(WIDTHS)
        )
        self.out = nn.Linear(WIDTHS[-1] * GRID**2, config.num_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.out(F.adaptive_avg_pool2d(x, GRID).flatten(1))

    def draw(self, generator: torch.Generator) -> None:
        """Draw all weights anew, in the variance that keeps a ReLU network's activations (He et al. 2015)."""
        for layer in (*self.convs, self.out):
            shape = layer.weight.shape
            std = math.sqrt(2 / math.prod(shape[1:]))
            layer.weight = nn.Parameter(torch.randn(shape, generator=generator) * std)
