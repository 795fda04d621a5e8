"""Dropout that does not wait for its random numbers.

On a CPU torch draws a random number for each element, one after another: with celeba64's networks and 8
images that is a tenth of a training step in bfloat16. Here one draw of 64 bits decides on four elements.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 2**16
"""16 random bits decide on an element, so it is dropped with a multiple of 1 / LEVELS for probability."""


class Dropout(nn.Dropout):
    """nn.Dropout whose draws on a CPU come four at a time from torch's generator; elsewhere it is nn.Dropout.

    What is kept is divided by the probability with which it is kept, that of ``p`` to within 1 / 131,072.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Tensor of any shape and float type -> one like it, as in nn.Dropout."""
        num_dropped = round(self.p * LEVELS)
        if not self.training or input.device.type != "cpu" or num_dropped in (0, LEVELS):
            return super().forward(input)
        num = input.numel()
        draws = torch.empty((num + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = draws.view(torch.int16)[:num].view(input.shape)
        kept = bits >= num_dropped - LEVELS // 2
        return input * kept.to(input.dtype).mul_(LEVELS / (LEVELS - num_dropped))
