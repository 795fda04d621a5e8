"""Batches of one size: the last one is padded, so that no result depends on how many rows were left over."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from rdm_cli.kernels.float64 import has_float64
from rdm_cli.runtime import default_batch_size

_PIXELS_IN_A_BATCH = 2**16
_PIXELS_AT_ONCE = 2**20


def batch_size_for_z(device: torch.device, image_shape: Sequence[int]) -> int:
    """Images in a batch whose z alone is computed, where the user names no number.

    On a CPU 16 of 64 x 64 pixels, and between 64 and the device's usual number of others.
    """
    usual = default_batch_size(device)
    if device.type != "cpu":
        return usual
    return max(usual, min(64, _PIXELS_IN_A_BATCH // math.prod(image_shape[1:])))


def batches_at_once(device: torch.device, image_shape: Sequence[int], size: int) -> int:
    """How many batches of ``size`` images are encoded at the same time, where z alone is computed.

    On a CPU one on each thread, as long as they are no more than 256 images of 64 x 64 pixels in all: no
    thread waits for another after each layer then. One, with all threads, where batches are smaller than
    :func:`batch_size_for_z`, as for a single image. It depends on nothing else, so that an image alone
    becomes what it becomes among others.
    """
    if device.type != "cpu" or size < batch_size_for_z(device, image_shape):
        return 1
    return max(1, min(torch.get_num_threads(), _PIXELS_AT_ONCE // (size * math.prod(image_shape[1:]))))


def in_padded_batches(
    run: Callable[..., tuple[Tensor, ...]],
    *columns: Tensor | Sequence[Tensor],
    size: int,
    device: torch.device,
    at_once: int = 1,
    done: Callable[[float], None] = lambda _: None,
) -> tuple[Tensor, ...]:
    """Run ``run(number of real rows, *rows)`` over slices of ``size`` rows of each column, on ``device``.

    A column is a tensor, or a list of its rows, which are put together a slice at a time. The last slice
    repeats its last row up to ``size``. Results come back on the CPU, without the padding. Rows in float64
    stay on the CPU where ``device`` has no float64. Where several slices run ``at_once``, each has a thread
    of its own, and its part of torch's threads. ``done`` is told of the rows of each slice, in the caller's
    thread.
    """

    @torch.no_grad()
    def one(start: int) -> tuple[Tensor, ...]:
        slices = [column[start : start + size] for column in columns]
        rows = [part if isinstance(part, Tensor) else torch.stack(tuple(part)) for part in slices]
        real = len(rows[0])
        padded = [torch.cat([r, r[-1:].expand(size - real, *r.shape[1:])]) for r in rows]
        padded = [r if r.dtype == torch.float64 and not has_float64(device) else r.to(device) for r in padded]
        return tuple(out[:real].cpu() for out in run(real, *padded))

    num = len(columns[0])
    starts = range(0, num, size)
    parts = []
    for start, part in zip(starts, _each(one, starts, at_once=at_once), strict=True):
        parts.append(part)
        done(min(size, num - start))
    return tuple(torch.cat(outs) for outs in zip(*parts, strict=True))


def _each(
    one: Callable[[int], tuple[Tensor, ...]], starts: Sequence[int], *, at_once: int
) -> Iterator[tuple[Tensor, ...]]:
    """``one`` of each of ``starts``, in their order."""
    if at_once == 1:
        yield from map(one, starts)
        return
    num_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(num_threads // at_once,))
    try:
        yield from pool.map(one, starts)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(num_threads)  # threads that begin later inherit the number that was set last
