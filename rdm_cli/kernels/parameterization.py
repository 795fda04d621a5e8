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


def wiener_residual(x_t: Tensor, guess: Tensor, spread: float, alpha_bar: Tensor) -> Tensor:
    """What ``x_t`` says about x_0 - ``guess``, in units of ``spread``: all at alpha_bar 1, nothing at 0.

    The best linear estimate where x_0 - guess has the standard deviation ``spread``,
    spread (x_t / sqrt(ab) - guess) / (spread^2 + sigma_bar^2). ``alpha_bar`` float64 (B,).
    """
    signal = alpha_bar.sqrt()
    total = spread**2 + (1 - alpha_bar) / alpha_bar
    return per_item(spread / (total * signal), x_t) * x_t - per_item(spread / total, x_t) * guess


def v_around(answer: Tensor, x_t: Tensor, guess: Tensor, spread: float, alpha_bar: Tensor) -> Tensor:
    """v from a network's ``answer`` about what ``guess`` lacks of x_0; ``alpha_bar`` float64 (B,).

    Karras et al. 2022 (arXiv 2206.00364), eq. 7, around the guess, with sigma_data = ``spread``:

        x_0 = guess + c_skip (x_t / sqrt(ab) - guess) - c_out answer,
        c_skip = spread^2 / (spread^2 + sigma_bar^2),  c_out = sigma_bar spread / sqrt(spread^2 + sigma_bar^2)

    So x_0 is the guess and no more than about ``spread`` beside it, whatever the noise. With spread 1 and a
    guess of 0 the answer is v itself. Written out for v, nothing cancels where sigma_bar is small.
    """
    sigma_bar = ((1 - alpha_bar) / alpha_bar).sqrt()
    total = spread**2 + sigma_bar**2
    of_x_t = sigma_bar * (1 - spread**2) / total
    of_guess = sigma_bar / (alpha_bar.sqrt() * total)
    of_answer = spread / (alpha_bar * total).sqrt()
    centred = per_item(of_x_t, x_t) * x_t - per_item(of_guess, x_t) * guess
    return centred + per_item(of_answer, x_t) * answer


def weight_around(spread: float, alpha_bar: Tensor) -> Tensor:
    """What a squared error in v is weighed by, (B,), where it comes of :func:`v_around`.

    1 - ab + spread^2 ab: the squared error of the network's own answer, times spread^2. Where noise dominates
    that is the squared error in x_0. With spread 1 it is 1.
    """
    return 1 - alpha_bar + spread**2 * alpha_bar
