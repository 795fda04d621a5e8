r"""Timesteps that are even in a measure of the noise, for solvers that follow the probability flow.

With sigma_bar = sqrt(1 / alpha_bar - 1), the noise beside a signal of 1, and log-SNR = -2 log sigma_bar, N
timesteps are spread evenly, from timestep T - 1 to timestep 0, in

    "karras"   sigma_bar^(1/7)     Karras et al. 2022 (arXiv 2206.00364), eq. 5 with rho = 7
    "log-snr"  log sigma_bar       Lu et al. 2022 (arXiv 2206.00927), section 3.3
    "angle"    atan sigma_bar      x_t = cos(phi) x_0 + sin(phi) eps: Salimans & Ho 2022, appendix D

Networks are asked about integer timesteps, so each point is moved to the nearest trained one (nearest in
log sigma_bar), and x lies *there*: that timestep's own alpha_bar is the node, not the grid's. diffusers moves
the timestep alike but leaves x at the grid's sigma, so that the network is told of a noise that x does not
have; that error does not shrink with more steps, whereas a node that moved merely makes the grid a little
less even. Nor does a timestep come twice, as it does there where the grid is finer than the timesteps are:
a second step of length zero is a network call for nothing. N distinct timesteps there always are.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

Measure = Literal["karras", "log-snr", "angle"]
RHO = 7.0


def even_timesteps(alpha_bar: Tensor, num_steps: int, measure: Measure) -> list[int]:
    """``num_steps`` timesteps, ascending and distinct, spread evenly in ``measure``; one alone is T - 1.

    ``alpha_bar`` float64 (T,), strictly descending within (0, 1): the schedule's. Where the grid is finer
    than the timesteps, neighbours are pushed towards the noise. Raises ValueError outside 1..T.
    """
    num_train_steps = len(alpha_bar)
    if not 1 <= num_steps <= num_train_steps:
        raise ValueError(f"steps must lie between 1 and {num_train_steps}, not {num_steps}")
    sigma_bar = (1 / alpha_bar - 1).sqrt().numpy()
    grid = _even(sigma_bar[-1], sigma_bar[0], num_steps, measure)[::-1]
    log_sigma_bar = np.log(sigma_bar)
    nearest = np.interp(np.log(grid), log_sigma_bar, np.arange(num_train_steps)).round().astype(np.int64)
    places = np.arange(num_steps)
    pushed = np.maximum.accumulate(nearest - places) + places
    steps: list[int] = np.minimum(pushed, num_train_steps - num_steps + places).tolist()
    return steps


def even_shares(alpha_bar: Tensor, measure: Measure) -> Tensor:
    """How often each timestep is to be drawn for draws to be even in ``measure``: float64 (T,), of sum 1.

    A timestep's share is the length, in the measure, of what lies nearest to it. ``alpha_bar`` as above.
    """
    sigma_bar = (1 / alpha_bar - 1).sqrt()
    if measure == "karras":
        place = sigma_bar ** (1 / RHO)
    else:
        place = sigma_bar.log() if measure == "log-snr" else sigma_bar.atan()
    between = (place[1:] + place[:-1]) / 2
    edges = torch.cat([place[:1], between, place[-1:]])
    return edges.diff() / (place[-1] - place[0])


def _even(first: float, final: float, num: int, measure: Measure) -> np.ndarray:
    """``num`` values of sigma_bar from ``first`` to ``final``, even in ``measure``."""
    if measure == "karras":
        return np.linspace(first ** (1 / RHO), final ** (1 / RHO), num) ** RHO
    if measure == "log-snr":
        return np.exp(np.linspace(np.log(first), np.log(final), num))
    return np.tan(np.linspace(np.arctan(first), np.arctan(final), num))
