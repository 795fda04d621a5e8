"""What is drawn for a step's images: flips, timesteps and noise, the same whoever has which image.

Each image has a place in its step's batch, and everything drawn for it depends on (seed, step, place) alone:
neither the number of processes that share the batch changes it nor the number of passes. Only dropout, which
the networks draw themselves, is keyed by the pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rdm_cli.data.images.pixels import to_unit_range
from rdm_cli.kernels.randomness import keyed_generator

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one pass sees of the batch of ``step``: its ``places``, of ``batch_size`` in all."""

    step: int
    places: range
    batch_size: int


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
    """
    num = len(share.places)
    joint = keyed_generator(seed, "timesteps", share.step)
    t = stratified_timesteps(share.batch_size, num_train_steps, joint, timestep_shares)[list(share.places)]
    eps = torch.empty(num, *(x_T_shape or stored.shape[1:]))
    noise = {name: torch.empty(num, *shape) for name, shape in (noise_shapes or {}).items()}
    flipped = torch.zeros(num, dtype=torch.bool)
    for i, place in enumerate(share.places):
        generator = keyed_generator(seed, "image", share.step, place)
        flipped[i] = (torch.rand((), generator=generator) < 0.5) & flip
        for drawn in (eps, *noise.values()):
            drawn[i].normal_(generator=generator)
    if stored.is_floating_point():
        mean, *std = stored[torch.arange(num), flipped.long()].float().unbind(1)
        return mean + std[0] * noise["latents"] if std else mean, t, eps, noise
    x_0 = to_unit_range(stored)
    if flip:
        x_0 = torch.where(flipped[:, None, None, None], x_0.flip(3), x_0)
    return x_0, t, eps, noise
