"""How stored images reach the device that learns from them: a batch at a time, or all at once at the start.

A GPU that takes a hundred steps a second cannot wait for files. What fits into a part of its memory is read
once, by worker processes, and stays there; else batches are loaded ahead and copied while it computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rdm_cli.training.batches import BatchOrder, to_device
from rdm_cli.training.interrupts import ignore_interrupts

HELD_SHARE = 0.3  # of a GPU's free memory, at most, is for images
READ_AT_ONCE = 64


def batches_on(
    device: torch.device, images: Dataset[Any], order: BatchOrder, *, num_workers: int
) -> Iterator[list[Tensor]]:
    """The images of each pass of ``order`` on ``device``, without end: stored (B, ...), and classes if any.

    Nothing is read before the first is asked for. Raises what reading an image raises.
    """
    if device.type == "cuda" and _fits(images, device):
        held = _read_all(images, device, num_workers=num_workers)
        for indices in order:
            chosen = to_device(torch.tensor(indices), device)
            yield [part[chosen] for part in held]
    loader: DataLoader[Any] = DataLoader(
        images,
        batch_sampler=order,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        worker_init_fn=ignore_interrupts,
        pin_memory=device.type == "cuda",
    )
    for batch in loader:
        yield [part.to(device, non_blocking=True) for part in _parts(batch)]


def _parts(item: Tensor | list[Tensor] | tuple[Tensor, ...]) -> list[Tensor]:
    return [item] if isinstance(item, Tensor) else list(item)


def _fits(images: Dataset[Any], device: torch.device) -> bool:
    size = sum(part.numel() * part.element_size() for part in _parts(images[0]))
    free, _ = torch.cuda.mem_get_info(device)
    return size * len(cast(Sized, images)) <= HELD_SHARE * free


def _read_all(images: Dataset[Any], device: torch.device, *, num_workers: int) -> list[Tensor]:
    """Every image, in order, on ``device``."""
    loader: DataLoader[Any] = DataLoader(
        images, batch_size=READ_AT_ONCE, num_workers=num_workers, worker_init_fn=ignore_interrupts
    )
    held: list[Tensor] = []
    place = 0
    for batch in loader:
        parts = _parts(batch)
        if not held:
            num = len(cast(Sized, images))
            held = [torch.empty(num, *part.shape[1:], dtype=part.dtype, device=device) for part in parts]
        for whole, part in zip(held, parts, strict=True):
            whole[place : place + len(part)] = part.to(device)
        place += len(parts[0])
    return held
