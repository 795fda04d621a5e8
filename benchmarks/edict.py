r"""EDICT: two coupled DDIM chains that undo one another, two network calls a step.

With x_to = a x + b eps for DDIM's step, decoding steps each state by what the network says of the other, and
mixes them,

    x'   = a x + b eps(y, t)          y'   = a y + b eps(x', t)
    x_to = p x' + (1 - p) y'          y_to = p y' + (1 - p) x_to

(Wallace et al. 2022, arXiv 2211.12446, section 3), each of which an encode solves backwards in turn. Mixing
brings the chains together by p^2 a step on the way down, hence drives them apart by 1/p^2 on the way up. The
paper's alternation of the two roles is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rdm_cli.kernels.ddim import eps_coefficients
from rdm_cli.kernels.float64 import in_float64
from rdm_cli.kernels.reversible import TwoStates, ask, asked_on
from rdm_cli.kernels.spec import EpsFn, SamplingSpec


def edict_encode(
    eps_fn: EpsFn,
    x_0: Tensor,
    spec: SamplingSpec,
    num_steps: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    mixing: float = 0.93,
) -> Iterator[TwoStates]:
    """Yield both states after each step from ``x_0`` (B, ...) in [-1, 1]; the last are both an x_T.

    ``num_steps`` None takes the spec's own; ``dtype`` is what the network is asked in; ``mixing`` is p.
    Nothing is clamped, whatever the spec says. Raises ValueError for p outside (0, 1].
    """
    p = _checked(mixing)
    eps_fn = asked_on(eps_fn, x_0.device)
    x = y = in_float64(x_0)
    for leg in reversed(spec.trajectory(num_steps).decoding()):
        a, b = eps_coefficients(leg.alpha_bar, leg.alpha_bar_to)
        y = (y - (1 - p) * x) / p
        x = (x - (1 - p) * y) / p
        y = (y - b * ask(eps_fn, x, leg.t, dtype)) / a
        x = (x - b * ask(eps_fn, y, leg.t, dtype)) / a
        yield TwoStates(x, y)


def edict_decode(
    eps_fn: EpsFn,
    states: TwoStates,
    spec: SamplingSpec,
    num_steps: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    mixing: float = 0.93,
) -> Iterator[Tensor]:
    """Yield x_t in float64 after each step; the last is x_0. All settings must be those of the encode."""
    p = _checked(mixing)
    x, y = (in_float64(state) for state in states)
    for leg in spec.trajectory(num_steps).decoding():
        a, b = eps_coefficients(leg.alpha_bar, leg.alpha_bar_to)
        x = a * x + b * ask(eps_fn, y, leg.t, dtype)
        y = a * y + b * ask(eps_fn, x, leg.t, dtype)
        x = p * x + (1 - p) * y
        y = p * y + (1 - p) * x
        yield x


def _checked(mixing: float) -> float:
    if not 0 < mixing <= 1:
        raise ValueError(f"mixing must lie in (0, 1], not {mixing}")
    return mixing
