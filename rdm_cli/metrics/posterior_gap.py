r"""The gap of a denoiser's posterior mean (Zhang et al., NeurIPS 2022, arXiv 2212.12990, section 3.1).

    mean of q(x_{t-1} | x_t, x_0)  =  (x_t - beta_t / sqrt(1 - ab_t) eps) / sqrt(alpha_t)

with the true eps; a denoiser puts its own there. The squared difference of the two is

    beta_t^2 / (alpha_t (1 - ab_t)) (eps - eps_theta)^2

x_0 is not clamped. (The reference draws its eps from a uniform distribution, by mistake; a normal one is
meant.)
"""

from __future__ import annotations

from torch import Tensor

from rdm_cli.kernels.schedules import ScheduleConfig


def posterior_gap(schedule: ScheduleConfig, t: Tensor, eps: Tensor, predicted: Tensor) -> Tensor:
    """Mean squared difference of the two means for each image, float64 (B,).

    ``t`` int64 (B,); ``eps`` and ``predicted`` (B, ...).
    """
    betas, alpha_bar = schedule.betas()[t.cpu()], schedule.alpha_bar()[t.cpu()]
    factor = betas.square() / ((1 - betas) * (1 - alpha_bar))
    return factor * (eps - predicted).cpu().double().square().flatten(1).mean(dim=1)
