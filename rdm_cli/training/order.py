"""Which images a step sees: a pure function of (seed, step), so that a resumed run goes on unmoved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from rdm_cli.kernels.randomness import keyed_generator
from rdm_cli.training.batches import Share


@dataclass(frozen=True, kw_only=True)
class BatchOrder:
    """Endless micro-batches of indices into ``num_items``, each epoch in an order of its own.

    ``batch_size`` counts the images of one optimiser step over all processes and accumulations.
    Iterating starts at ``first_step`` and yields, for this process, ``num_accumulations`` lists of
    ``batch_size / (num_processes * num_accumulations)`` indices a step.
    """

    num_items: int
    batch_size: int
    seed: int
    first_step: int = 0
    process: int = 0
    num_processes: int = 1
    num_accumulations: int = 1

    @property
    def micro_batch_size(self) -> int:
        """Images in one forward pass of one process."""
        return self.batch_size // (self.num_processes * self.num_accumulations)

    def indices(self, step: int) -> list[int]:
        """The indices of the whole of ``step``'s batch."""
        positions = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs = positions // self.num_items
        found = []
        for epoch in epochs.unique().tolist():
            order = self._permutation(epoch)
            found.append(order[positions[epochs == epoch] % self.num_items])
        return torch.cat(found).tolist()

    def _permutation(self, epoch: int) -> torch.Tensor:
        return torch.randperm(self.num_items, generator=keyed_generator(self.seed, "order", epoch))

    def share(self, step: int, i: int) -> Share:
        """What pass ``i`` of this process sees of ``step``'s batch."""
        size = self.micro_batch_size
        start = (self.process * self.num_accumulations + i) * size
        return Share(step=step, places=range(start, start + size), batch_size=self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        step = self.first_step
        while True:
            whole = self.indices(step)
            for i in range(self.num_accumulations):
                places = self.share(step, i).places
                yield whole[places.start : places.stop]
            step += 1
