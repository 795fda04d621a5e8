r"""PDAE's tables over t (Zhang et al., NeurIPS 2022, arXiv 2212.12990, sections 3.2 and 3.4).

The gradient estimator G shifts the mean of the frozen model's posterior. Written as a change of eps,

    training, one step, gap:    eps' = eps + c_t G,    c_t = -sqrt(alpha_t) (1 - ab_{t-1}) / sqrt(1 - ab_t)
    DDIM, both ways:            eps' = eps - sqrt(1 - ab_t) G

with ab_{-1} = 1. The two differ at small t alone: their ratio is 0 at t = 0, .86 at 10, .99 at 500.
The loss weighs each t by SNR^gamma / (1 + SNR), SNR = ab / (1 - ab): little at either end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rdm_cli.kernels.schedules import ScheduleConfig


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
