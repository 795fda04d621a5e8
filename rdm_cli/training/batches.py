"""A step's batch: which images it sees, and what is drawn for them: flips, timesteps and noise.

The images are a function of (seed, step), so that a resumed run goes on unmoved. Each of them has a place in
its step's batch, and everything drawn for it depends on (seed, step, place) alone: neither the number of
processes that share the batch changes it nor the number of passes. Only dropout, which the networks draw
themselves, is keyed by the pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rdm_cli.data.images.pixels import to_unit_range
from rdm_cli.kernels.randomness import key_to_seed, keyed_generator

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one pass sees of the batch of ``step``: its ``places``, of ``batch_size`` in all."""

    step: int
    places: range
    batch_size: int


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
    _permutations: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def indices(self, step: int) -> list[int]:
        """The indices of the whole of ``step``'s batch."""
        positions = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs = positions // self.num_items
        found = []
        for epoch in epochs.unique().tolist():
            order = self._permutation(epoch)
            found.append(order[positions[epochs == epoch] % self.num_items])
        return torch.cat(found).tolist()

    def _permutation(self, epoch: int) -> Tensor:
        """The order of ``epoch``; that of the last one asked for is kept, for drawing it takes a while."""
        if epoch not in self._permutations:
            self._permutations.clear()
            generator = keyed_generator(self.seed, "order", epoch)
            self._permutations[epoch] = torch.randperm(self.num_items, generator=generator)
        return self._permutations[epoch]

    def share(self, step: int, i: int) -> Share:
        """What pass ``i`` of this process sees of ``step``'s batch."""
        size = self.batch_size // (self.num_processes * self.num_accumulations)
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


def stratified_timesteps(
    batch: int, num_train_steps: int, generator: torch.Generator, shares: Tensor | None = None
) -> Tensor:
    """Timesteps (B,), each uniform on 0..T-1, jointly spread evenly: less noise in the loss.

    With ``shares`` float64 (T,), which sum to 1, each timestep comes as often as its share says.
    """
    offset = torch.rand(1, generator=generator, dtype=torch.float64)
    places = (torch.arange(batch, dtype=torch.float64) + offset) / batch
    if shares is None:
        t = (places * num_train_steps).long()
    else:
        t = torch.searchsorted(shares.cumsum(0), places, right=True)
    return t.clamp(max=num_train_steps - 1)


def training_batch(
    stored: Tensor,
    *,
    share: Share,
    num_train_steps: int,
    flip: bool,
    seed: int,
    x_T_shape: Shape | None = None,
    noise_shapes: Mapping[str, Shape] | None = None,
    timestep_shares: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """uint8 (B, 3, H, W), the images of ``share``, to (x_0, t, eps, more noise).

    ``stored`` may also be latents, float16 (B, V, P, c, h, w): V is 2 where mirrored ones are there too, P is
    2, mean and standard deviation, where they are to be drawn. eps has the shape ``x_T_shape``; None: that of
    an image. The noise besides is standard normal, (B, *shape) for each of ``noise_shapes``; that of the name
    "latents" is what draws stored ones.

    The timesteps of the whole batch are spread evenly together, over ``timestep_shares`` as in
    :func:`stratified_timesteps`; images come in random order, so which of them a place has is chance.

    What is drawn is drawn on the device of ``stored``. On the CPU each image has a generator of its own; a
    GPU draws the whole batch's at once, and other numbers.
    """
    num = len(share.places)
    joint = keyed_generator(seed, "timesteps", share.step)
    t = stratified_timesteps(share.batch_size, num_train_steps, joint, timestep_shares)[list(share.places)]
    shapes = [x_T_shape or tuple(stored.shape[1:]), *(noise_shapes or {}).values()]
    draw = _drawn_on_the_cpu if stored.device.type == "cpu" else _drawn_on_a_device
    chance, (eps, *others) = draw(share, seed, shapes, stored.device)
    noise = dict(zip(noise_shapes or {}, others, strict=True))
    flipped = (chance < 0.5) & flip
    t = to_device(t, stored.device)
    if stored.is_floating_point():
        mean, *std = stored[torch.arange(num, device=stored.device), flipped.long()].float().unbind(1)
        return mean + std[0] * noise["latents"] if std else mean, t, eps, noise
    x_0 = to_unit_range(stored)
    if flip:
        x_0 = torch.where(flipped[:, None, None, None], x_0.flip(3), x_0)
    return x_0, t, eps, noise


def _drawn_on_the_cpu(
    share: Share, seed: int, shapes: Sequence[Shape], device: torch.device
) -> tuple[Tensor, list[Tensor]]:
    """For each image of ``share`` a uniform number, (B,), and standard normal ones of each of ``shapes``."""
    num = len(share.places)
    chance = torch.empty(num)
    noise = [torch.empty(num, *shape) for shape in shapes]
    for i, place in enumerate(share.places):
        generator = keyed_generator(seed, "image", share.step, place)
        chance[i] = torch.rand((), generator=generator)
        for drawn in noise:
            drawn[i].normal_(generator=generator)
    return chance, noise


def _drawn_on_a_device(
    share: Share, seed: int, shapes: Sequence[Shape], device: torch.device
) -> tuple[Tensor, list[Tensor]]:
    """The same on ``device``: the numbers of the whole batch, of which ``share`` takes its own."""
    generator = torch.Generator(device).manual_seed(key_to_seed(seed, "batch", share.step))
    mine = slice(share.places.start, share.places.stop)
    chance = torch.rand(share.batch_size, generator=generator, device=device)[mine]
    noise = [
        torch.randn(share.batch_size, *shape, generator=generator, device=device)[mine] for shape in shapes
    ]
    return chance, noise


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """``values`` of the CPU on ``device``; the CPU does not wait until a GPU has them."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
