"""Arithmetic in float64, on devices that have it and for those that have none, as Apple's GPUs.

There the float64 part is computed on the CPU, and what comes of it is cast before it is moved.
"""

from __future__ import annotations

import torch
from torch import Tensor

_KNOWN: dict[torch.device, bool] = {}


def has_float64(device: torch.device) -> bool:
    """Whether tensors on ``device`` can be float64."""
    if device not in _KNOWN:  # no functools.cache: torch.compile would warn of it
        try:
            torch.empty(0, dtype=torch.float64, device=device)
            _KNOWN[device] = True
        except (TypeError, RuntimeError):
            _KNOWN[device] = False
    return _KNOWN[device]


def in_float64(x: Tensor) -> Tensor:
    """``x`` in float64: on its own device, or on the CPU where that device has no float64."""
    return x.double() if has_float64(x.device) else x.cpu().double()


def back_like(x: Tensor, like: Tensor) -> Tensor:
    """``x`` in the precision and on the device of ``like``; cast first, for it may be float64."""
    return x.to(like.dtype).to(like.device)


class Table:
    """Values over t, float64 (T,), that can be read at timesteps on any device.

    It is no buffer of a module: ``.to(device)`` would move a buffer in float64. The table stays on the CPU,
    and each device that has float64 keeps a copy, so that CUDA never waits for the CPU to read it.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self._copies: dict[torch.device, Tensor] = {values.device: values}

    def __getitem__(self, t: Tensor | int) -> Tensor:
        """The values at ``t`` int64 (B,): float64 (B,), on t's device or, without float64, on the CPU."""
        if isinstance(t, int):
            return self.values[t]
        if not has_float64(t.device):
            t = t.cpu()
        if t.device not in self._copies:
            self._copies[t.device] = self.values.to(t.device)
        return self._copies[t.device][t]
