r"""PDAE's tables over t (Zhang et al., NeurIPS 2022, arXiv 2212.12990, sections 3.2 and 3.4).

The gradient estimator G shifts the mean of the frozen model's posterior. Written as a change of eps,

    training, one step, gap:    eps' = eps + c_t G,    c_t = -sqrt(alpha_t) (1 - ab_{t-1}) / sqrt(1 - ab_t)
    DDIM, both ways:            eps' = eps - sqrt(1 - ab_t) G

with ab_{-1} = 1. The two differ at small t alone: their ratio is 0 at t = 0, .86 at 10, .99 at 500.
The loss weighs each t by SNR^gamma / (1 + SNR), SNR = ab / (1 - ab): little at either end.

With a generator there are two estimates of x_0: the guess of z, which errs by about ``spread``, and what the
frozen model says, f, which errs by about k sigma_bar, sigma_bar^2 = 1/ab - 1. The best linear one of the two,
moved by the branch's answer F (Karras et al. 2022, arXiv 2206.00364, eq. 7, with f in the place of x_t), is

    x_0 = guess + c_skip (f - guess) - c_out F,
    c_skip = spread^2 / (spread^2 + k^2 sigma_bar^2),
    c_out = spread k sigma_bar / sqrt(spread^2 + k^2 sigma_bar^2)

So it is the guess where noise dominates, the frozen model's where there is hardly any, and no more than about
``spread`` beside either. In v that is a shift of what the frozen model says, in which nothing cancels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rdm_cli.kernels.parameterization import per_item
from rdm_cli.kernels.schedules import ScheduleConfig

FROZEN_ERROR = 0.3
"""k: of the shipped model 0.37 at t = 20, 0.2 at 100; what is trained with one value needs the same."""


def mean_shift(schedule: ScheduleConfig) -> Tensor:
    """c_t, what G is worth in eps where the posterior's mean is meant, float64 (T,)."""
    alpha_bar = schedule.alpha_bar()
    alpha_bar_prev = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    return -(1 - schedule.betas()).sqrt() * (1 - alpha_bar_prev) / (1 - alpha_bar).sqrt()


def score_shift(schedule: ScheduleConfig) -> Tensor:
    """-sqrt(1 - ab_t), what G is worth in eps where DDIM steps, float64 (T,)."""
    return -(1 - schedule.alpha_bar()).sqrt()


def loss_weight(schedule: ScheduleConfig, gamma: float | None) -> Tensor:
    """SNR^gamma / (1 + SNR), float64 (T,); ones where ``gamma`` is None."""
    alpha_bar = schedule.alpha_bar()
    if gamma is None:
        return torch.ones_like(alpha_bar)
    return (alpha_bar / (1 - alpha_bar)).pow(gamma) * (1 - alpha_bar)


def shift_around(answer: Tensor, gap: Tensor, spread: float, alpha_bar: Tensor) -> Tensor:
    """What is added to the frozen v: from the branch's ``answer`` and the ``gap`` f - guess, both (B, ...).

    ``alpha_bar`` float64 (B,).
    """
    total = (spread / FROZEN_ERROR) ** 2 + (1 - alpha_bar) / alpha_bar
    of_gap = (1 - alpha_bar).sqrt() / (alpha_bar * total)
    of_answer = spread / (alpha_bar * total).sqrt()
    return per_item(of_gap, gap) * gap + per_item(of_answer, answer) * answer


def frozen_weight(spread: float, alpha_bar: Tensor) -> Tensor:
    """The square root of c_skip, (B,): 1 at alpha_bar 1, 0 at 0."""
    wide = spread / FROZEN_ERROR
    return wide / (wide**2 + (1 - alpha_bar) / alpha_bar).sqrt()
