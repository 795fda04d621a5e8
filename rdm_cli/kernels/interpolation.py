r"""Ways between two codes: straight for z, along the sphere for x_T.

    lerp(a, b; alpha)  = (1 - alpha) a + alpha b
    slerp(a, b; alpha) = (sin((1 - alpha) theta) a + sin(alpha theta) b) / sin(theta)

where theta is the angle between the flattened vectors (Shoemake 1985). Gaussian noise of many
dimensions lies near a sphere; slerp stays near it, lerp would cut through.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rdm_cli.kernels.float64 import back_like, has_float64, in_float64

# below this sine the two weights of slerp equal lerp's to float64, or (opposite vectors) mean nothing
_PARALLEL = 1e-6


def lerp(a: Tensor, b: Tensor, alpha: Tensor | float) -> Tensor:
    """The straight way from ``a`` to ``b`` (any one shape), at ``alpha`` in [0, 1].

    ``alpha`` (F,) gives F points, (F, *shape); a number or a scalar tensor gives one, of a's shape.
    Raises ValueError where the shapes differ.
    """
    alphas = _alphas(a, b, alpha)
    points = _combine(a, b, 1 - alphas, alphas)
    return points if _is_many(alpha) else points[0]


def slerp(a: Tensor, b: Tensor, alpha: Tensor | float) -> Tensor:
    """The way from ``a`` to ``b`` (any one shape) at an even angle; arguments as in :func:`lerp`.

    Where the angle is 0 or pi, or a vector is zero, no arc is singled out and the way is straight.
    """
    alphas = _alphas(a, b, alpha)
    theta = angle(a, b)
    if theta.sin() < _PARALLEL:
        return lerp(a, b, alpha)
    points = _combine(a, b, ((1 - alphas) * theta).sin() / theta.sin(), (alphas * theta).sin() / theta.sin())
    return points if _is_many(alpha) else points[0]


def angle(a: Tensor, b: Tensor) -> Tensor:
    """The angle between ``a`` and ``b`` as flattened vectors: float64 scalar in [0, pi]; 0 if one is zero.

    Computed as 2 atan2(|u - v|, |u + v|) of the unit vectors, which is exact where they nearly agree;
    an arccosine loses half its digits there.
    """
    u, v = in_float64(a.flatten()), in_float64(b.flatten())
    norms = u.norm() * v.norm()
    if norms == 0:
        return norms
    u, v = u / u.norm(), v / v.norm()
    return 2 * torch.atan2((u - v).norm(), (u + v).norm())


def _is_many(alpha: Tensor | float) -> bool:
    return isinstance(alpha, Tensor) and alpha.ndim == 1


def _alphas(a: Tensor, b: Tensor, alpha: Tensor | float) -> Tensor:
    if a.shape != b.shape:
        raise ValueError(f"the ends differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")
    exact = in_float64(alpha) if isinstance(alpha, Tensor) else torch.tensor(alpha, dtype=torch.float64)
    alphas = exact.to(a.device) if has_float64(a.device) else exact.cpu()
    if alphas.ndim > 1:
        raise ValueError(f"alpha is a number or of shape (F,), not {tuple(alphas.shape)}")
    return alphas.reshape(-1)


def _combine(a: Tensor, b: Tensor, weights_a: Tensor, weights_b: Tensor) -> Tensor:
    """Weighted sums of ``a`` and ``b``, one for each weight: (F, *shape), in a's dtype."""
    shape = (-1, *[1] * a.ndim)
    points = weights_a.reshape(shape) * in_float64(a) + weights_b.reshape(shape) * in_float64(b)
    return back_like(points, a)
