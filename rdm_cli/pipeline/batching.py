"""Batches of one size: the last one is padded, so that no result depends on how many rows were left over."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rdm_cli.kernels.float64 import has_float64


@torch.no_grad()
def in_padded_batches(
    run: Callable[..., tuple[Tensor, ...]], *tensors: Tensor, size: int, device: torch.device
) -> tuple[Tensor, ...]:
    """Run ``run(number of real rows, *rows)`` over slices of ``size`` rows, on ``device``.

    The last slice repeats its last row up to ``size``. Results come back on the CPU, without the padding.
    Rows in float64 stay on the CPU where ``device`` has no float64.
    """
    done: list[tuple[Tensor, ...]] = []
    for start in range(0, len(tensors[0]), size):
        rows = [t[start : start + size] for t in tensors]
        real = len(rows[0])
        padded = [torch.cat([r, r[-1:].expand(size - real, *r.shape[1:])]) for r in rows]
        padded = [r if r.dtype == torch.float64 and not has_float64(device) else r.to(device) for r in padded]
        done.append(tuple(out[:real].cpu() for out in run(real, *padded)))
    return tuple(torch.cat(parts) for parts in zip(*done, strict=True))
