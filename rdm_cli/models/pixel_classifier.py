"""A small convolutional network that tells attributes from pixels: the judge of edits."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (32, 64, 128, 128)
GRID = 4  # places a side that are told apart in the end


@dataclass(frozen=True, kw_only=True)
class PixelClassifierConfig:
    """How many attributes, of images of how many channels."""

    num_attributes: int
    channels: int = 3


class PixelClassifier(nn.Module):
    """Images (B, channels, H, W) in [-1, 1], 16 pixels a side or more, to one logit an attribute, (B, K)."""

    def __init__(self, config: PixelClassifierConfig) -> None:
        super().__init__()
        widths = (config.channels, *WIDTHS)
        self.features = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(8, b), nn.SiLU())
                for a, b in pairwise(widths)
            )
        )
        self.head = nn.Linear(widths[-1] * GRID**2, config.num_attributes)

    def forward(self, x: Tensor) -> Tensor:
        # at 64 pixels each place of the grid is one of the map: nothing is averaged
        return self.head(F.adaptive_avg_pool2d(self.features(x), GRID).flatten(1))
