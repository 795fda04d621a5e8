"""Mean and spread of a set of codes: what the latent prior and the attribute probes standardise with."""

from __future__ import annotations

import torch
from torch import Tensor

from rdm_cli.kernels.float64 import back_like, in_float64

STD_FLOOR = 1e-3


def mean_and_std(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std of ``z`` (N, d) over N, each (d,) in z's dtype; raises ValueError where N < 2.

    A dimension that (almost) never moves gets 1/1000 of the typical std instead of its own: there it
    standardises to nothing, rather than turning rounding errors of a new image into large values.
    """
    if z.ndim != 2 or len(z) < 2:
        raise ValueError(f"standardising needs at least two codes as (N, d), not {tuple(z.shape)}")
    if not torch.isfinite(z).all():
        raise ValueError("codes to standardise must be finite")
    exact = in_float64(z)
    std = exact.std(dim=0, correction=0)
    typical = std.square().mean().sqrt()
    floor = STD_FLOOR * typical if typical > 0 else torch.ones_like(typical)
    return back_like(exact.mean(dim=0), z), back_like(std.clamp(min=floor), z)
