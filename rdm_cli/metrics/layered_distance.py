r"""What LPIPS and its kin have in common: the maps of a trunk's layers compared place by place.

    d(x, y) = sum_l mean_hw sum_c w_lc (f_lc(x) / |f_l(x)| - f_lc(y) / |f_l(y)|)^2

with f_l the maps, |.| over a place's channels, and w >= 0 learned from people's judgements (Zhang et al.,
CVPR 2018, arXiv 1801.03924, equation 1).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def layered_distance(network: Any, x: Tensor, y: Tensor) -> Tensor:
    """Distance of each pair of ``x`` and ``y`` (B, 3, H, W) in [-1, 1], (B,) float32; 0 for equal ones.

    ``network`` takes images to a list of maps (B, C_l, h, w), and its ``heads`` (1, C_l, 1, 1) weigh their
    channels; it moves to the device of ``x``. Gradients flow to both. Raises ValueError for shapes that
    differ, and what the network raises.
    """
    if x.shape != y.shape:
        raise ValueError(f"images to compare must share one shape: {tuple(x.shape)}, {tuple(y.shape)}")
    # fake tensors bear no move, not even one to where they are
    if any(head.device != x.device for head in network.heads):
        network = network.to(x.device)
    layers = zip(network(x.float()), network(y.float()), network.heads, strict=True)
    terms = [(head * (_unit(f) - _unit(g)).square()).sum(dim=1).mean(dim=(1, 2)) for f, g, head in layers]
    return torch.stack(terms).sum(dim=0)


def _unit(features: Tensor) -> Tensor:
    """Each place's channels divided by their length, in float32."""
    features = features.float()
    # without the floor, the root's gradient is infinite where no channel answers, and the loss's NaN
    length = features.square().sum(dim=1, keepdim=True).clamp(min=1e-20).sqrt()
    return features / (length + 1e-10)
