"""An exponential moving average of weights that suits short runs as well as long ones."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averages of a module's trainable parameters, by name.

    After update n the average moves by 1 - min(decay, (1 + n) / (10 + n)): the warm-up forgets the
    random start within the first updates, whatever the final decay is. ``warm_up`` False uses the
    decay from the first update on, as the reference does. ``only`` averages the submodule of that name.
    """

    def __init__(
        self, module: nn.Module, decay: float, *, warm_up: bool = True, only: str | None = None
    ) -> None:
        self.prefix = "" if only is None else f"{only}."
        self.decay = decay
        self.warm_up = warm_up
        self.num_updates = 0
        self.averages = {name: parameter.detach().clone() for name, parameter in self._averaged(module)}

    def _averaged(self, module: nn.Module) -> list[tuple[str, nn.Parameter]]:
        named = module.named_parameters()
        return [(n, p) for n, p in named if p.requires_grad and n.startswith(self.prefix)]

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the averages towards ``module``'s present parameters."""
        n = self.num_updates
        decay = min(self.decay, (1 + n) / (10 + n)) if self.warm_up else self.decay
        current = [p.detach() for _, p in self._averaged(module)]
        torch._foreach_lerp_(list(self.averages.values()), current, 1 - decay)
        self.num_updates += 1

    def load(self, averages: Iterable[tuple[str, Tensor]], num_updates: int) -> None:
        """Continue from stored averages."""
        for name, value in averages:
            self.averages[name].copy_(value)
        self.num_updates = num_updates
