"""An exponential moving average of weights that suits short runs as well as long ones."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averages of a module's trainable parameters, by name.

    After update n the average moves by 1 - min(decay, (1 + n) / (10 + n)): the warm-up forgets the
    random start within the first updates, whatever the final decay is. ``warm_up`` False uses the
    decay from the first update on, as the reference does.
    """

    def __init__(self, module: nn.Module, decay: float, *, warm_up: bool = True) -> None:
        self.decay = decay
        self.warm_up = warm_up
        self.num_updates = 0
        self.averages = {
            name: parameter.detach().clone()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the averages towards ``module``'s present parameters."""
        n = self.num_updates
        decay = min(self.decay, (1 + n) / (10 + n)) if self.warm_up else self.decay
        current = [p.detach() for p in module.parameters() if p.requires_grad]
        torch._foreach_lerp_(list(self.averages.values()), current, 1 - decay)
        self.num_updates += 1

    def load(self, averages: Iterable[tuple[str, Tensor]], num_updates: int) -> None:
        """Continue from stored averages."""
        for name, value in averages:
            self.averages[name].copy_(value)
        self.num_updates = num_updates
