r"""Reversible solvers with one network call a step; BDIA is the member of the family that rdm uses.

From the last two states the next one is

    x_{i+1} = DDIM_{i -> i+1}(x_i) + a_i (x_{i-1} - DDIM_{i -> i-1}(x_i)),    a single call, eps(x_i, t_i)

which is linear in x_{i-1}, hence undone by dividing by a_i.

BDIA's is a_i = 1 / gamma (Zhang et al. 2023, arXiv 2307.10829, section 4); O-BELM's, which makes the rule
second order, is in ``benchmarks/belm.py``.

Both DDIM steps are exact where x_0 and eps stay the same, for any a_i. What a_i sets is the fate of the
second, parasitic solution that a two-step rule has: the difference of what x_{i-1} is and what x_i takes it
for. A step multiplies volumes of pairs by a_i, an encode by their product G (:func:`growth`), and of that the
flow itself takes between 2 (along what pictures vary in) and 1 / sigma_bar at the first timestep (across it,
where all is noise to the denoiser: 100 for the linear schedule). So differences grow by G / 100 to G / 2 on
the way up, by 2 / G to 100 / G on the way down. Measured on avatars64-diffae, 19 steps even in log-SNR:

    G      decoded in another batch size    decoded with another picture's z    decoded from x_T alone
    1      104 dB
    7      113 dB                           ghosts of the first picture         some grain
    600    132 dB                           clean                               a faint cast
    3000   144 dB (O-BELM)                  clean                               casts and stripes

Hence BDIA's gamma is by default the one that makes G 500, on any number of steps: 0.71 on 19.

The first step is DDIM's, solved implicitly (``kernels/fixed_point.py``): a clean image holds no noise, and
asked about it the network finds none, so that an explicit step makes x_T too weak.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rdm_cli.kernels.ddim import eps_coefficients
from rdm_cli.kernels.fixed_point import solve
from rdm_cli.kernels.float64 import in_float64
from rdm_cli.kernels.reversible import TwoStates, ask, asked_on
from rdm_cli.kernels.spec import EpsFn, SamplingSpec

Weight = Callable[[Tensor, Tensor, Tensor], float]
"""a_i from alpha_bar at i - 1, i and i + 1, float64 scalars."""

GROWTH = 500.0
"""G of BDIA where no gamma is given."""


def two_step_encode(
    eps_fn: EpsFn,
    x_0: Tensor,
    spec: SamplingSpec,
    num_steps: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    start_iterations: int = 3,
    weight: Weight | None = None,
) -> Iterator[TwoStates]:
    """Yield both states after each step from ``x_0`` (B, ...) in [-1, 1]; the last hold x_T.

    ``num_steps`` None takes the spec's own, at least 2; ``weight`` None is BDIA's for their number
    (:func:`bdia_weight`); ``dtype`` is what the network is asked in; ``start_iterations`` network calls solve
    the first step, each other takes one. Nothing is clamped, whatever the spec says. The fewer the steps, the
    less noise ``other`` holds: with 2 it is almost the image. Raises ValueError for fewer steps or
    iterations.
    """
    weight = weight or bdia_weight(spec, num_steps)
    levels = _levels(spec, num_steps)
    if start_iterations < 1:
        raise ValueError(f"the first step takes at least 1 iteration, not {start_iterations}")
    r, c = eps_coefficients(*levels.alpha_bar[:2])
    eps_fn = asked_on(eps_fn, x_0.device)
    below = in_float64(x_0)
    base = r * below
    here = solve(
        lambda y: base + c * ask(eps_fn, y, levels.t[1], dtype), below, num_calls=start_iterations, memory=2
    )
    yield TwoStates(here, below)
    for i in range(1, len(levels.t) - 1):
        a, b, c = _rule(levels, i, weight)
        below, here = here, a * below + b * here + c * ask(eps_fn, here, levels.t[i], dtype)
        yield TwoStates(here, below)


def two_step_decode(
    eps_fn: EpsFn,
    states: TwoStates,
    spec: SamplingSpec,
    num_steps: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    weight: Weight | None = None,
) -> Iterator[Tensor]:
    """Yield x_t in float64 after each step but the first, which is ``states.other``; the last is x_0.

    Steps, spacing, ``dtype`` and ``weight`` must be those of the encode. N - 1 network calls.
    """
    weight = weight or bdia_weight(spec, num_steps)
    levels = _levels(spec, num_steps)
    above, here = (in_float64(state) for state in states)
    for i in range(len(levels.t) - 2, 0, -1):
        a, b, c = _rule(levels, i, weight)
        above, here = here, (above - b * here - c * ask(eps_fn, here, levels.t[i], dtype)) / a
        yield here


def two_states(
    eps_fn: EpsFn,
    x_T: Tensor,
    spec: SamplingSpec,
    num_steps: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> TwoStates:
    """A pair to decode from where only ``x_T`` (B, ...) is known, by one DDIM step; one network call.

    For noise that was drawn. An edited z needs none of it: a decode forgets that the pair of an encode agrees
    with another z (see above).
    """
    leg = spec.trajectory(num_steps).decoding()[0]
    r, c = eps_coefficients(leg.alpha_bar, leg.alpha_bar_to)
    eps_fn = asked_on(eps_fn, x_T.device)
    x_t = in_float64(x_T)
    return TwoStates(x_t, r * x_t + c * ask(eps_fn, x_t, leg.t, dtype))


def growth(spec: SamplingSpec, num_steps: int | None, weight: Weight) -> float:
    """G, what an encode multiplies volumes of pairs of states by; a decode divides by it."""
    levels = _levels(spec, num_steps).alpha_bar
    return math.prod(weight(*levels[i - 1 : i + 2]) for i in range(1, len(levels) - 1))


def bdia_weight(spec: SamplingSpec, num_steps: int | None, gamma: float | None = None) -> Weight:
    """BDIA's a_i; ``gamma`` None makes G :data:`GROWTH`. Raises ValueError for one outside (0, 1]."""
    if gamma is None:
        gamma = GROWTH ** (-1 / max(1, len(spec.trajectory(num_steps)) - 1))
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma must lie in (0, 1], not {gamma}")
    a = 1 / gamma
    return lambda *_: a


class _Levels(NamedTuple):
    """alpha_bar of the N + 1 levels of N steps, from the image up, and the timestep to ask at each.

    At the image that is the first timestep, whether the image lies there or at alpha_bar 1.
    """

    t: list[int]
    alpha_bar: list[Tensor]


def _levels(spec: SamplingSpec, num_steps: int | None) -> _Levels:
    path = spec.trajectory(num_steps)
    legs = path.decoding()[::-1]
    if len(legs) < 2:
        raise ValueError("a two-step solver takes at least 2 steps")
    alpha_bar = [legs[0].alpha_bar_to, *(leg.alpha_bar for leg in legs)]
    return _Levels([int(path.t[0]), *(leg.t for leg in legs)], alpha_bar)


def _rule(levels: _Levels, i: int, weight: Weight) -> tuple[float, float, float]:
    """(a, b, c) of x_{i+1} = a x_{i-1} + b x_i + c eps."""
    below, here, above = levels.alpha_bar[i - 1 : i + 2]
    a = weight(below, here, above)
    r_up, c_up = eps_coefficients(here, above)
    r_down, c_down = eps_coefficients(here, below)
    return a, r_up - a * r_down, c_up - a * c_down
