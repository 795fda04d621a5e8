r"""What a network may predict, and how each becomes eps: the one place where that happens.

v   = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0        (Salimans & Ho 2022, section 4)
eps = sqrt(alpha_bar) v + sqrt(1 - alpha_bar) x_t
eps = (x_t - sqrt(alpha_bar) x_0) / sqrt(1 - alpha_bar)
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rdm_cli.kernels.float64 import back_like

Prediction = Literal["eps", "v", "x_0"]


def per_item(values: Tensor, like: Tensor) -> Tensor:
    """Shape ``values`` (B,) to broadcast over ``like`` (B, ...), in its dtype and on its device."""
    return back_like(values, like).reshape(-1, *[1] * (like.ndim - 1))


def add_noise(x_0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t from ``x_0`` and ``eps`` of one shape (B, ...) and ``alpha_bar`` float64 (B,)."""
    return per_item(alpha_bar.sqrt(), x_0) * x_0 + per_item((1 - alpha_bar).sqrt(), x_0) * eps


def training_target(kind: Prediction, x_0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """What a network that predicts ``kind`` should answer."""
    if kind == "eps":
        return eps
    if kind == "x_0":
        return x_0
    return per_item(alpha_bar.sqrt(), x_0) * eps - per_item((1 - alpha_bar).sqrt(), x_0) * x_0


def to_eps(kind: Prediction, prediction: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
    """Turn a network's answer about ``x_t`` into eps; ``alpha_bar`` float64 (B,)."""
    if kind == "eps":
        return prediction
    signal, noise = per_item(alpha_bar.sqrt(), x_t), per_item((1 - alpha_bar).sqrt(), x_t)
    if kind == "v":
        return signal * prediction + noise * x_t
    return (x_t - signal * prediction) / noise


def to_x_0(eps: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
    """The x_0 that ``x_t`` holds if its noise is ``eps``: x_t/sqrt(ab) - sqrt(1/ab - 1) eps."""
    return per_item((1 / alpha_bar).sqrt(), x_t) * x_t - per_item((1 / alpha_bar - 1).sqrt(), x_t) * eps
