r"""What the reversible solvers share: two states in float64, and a network asked in its own precision.

Such a solver carries two states from the image up to noise, each step of which can be undone by arithmetic:
going back asks the network the very questions that were asked on the way, and takes off what was added. So
the image comes back up to the rounding of float64, however coarse the steps are, provided that nothing clamps
and that the network answers alike. Where it does not quite (another machine, another batch size), what the
way back makes of the difference is a property of the solver, as is what the way up makes of an ill-matched
pair: see each of them.

The questions are rounded to the network's precision. States that differ by roundings of float64 nearly always
round to one question, which is why they have to be *kept* in float64 as well, not only computed in it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rdm_cli.kernels.ddim import timestep
from rdm_cli.kernels.float64 import in_float64
from rdm_cli.kernels.spec import EpsFn


class TwoStates(NamedTuple):
    """Both states of a reversible solver, float64 (B, ...): ``x_t`` and ``other``.

    Of a two-step rule ``other`` lies one step below ``x_t``, of EDICT beside it. After the last step of an
    encode ``x_t`` is x_T. Both are needed to get back.
    """

    x_t: Tensor
    other: Tensor


def ask(eps_fn: EpsFn, x_t: Tensor, t: int, dtype: torch.dtype) -> Tensor:
    """eps at ``x_t`` (B, ...) and ``t``, the network being asked in ``dtype``: float64."""
    return in_float64(eps_fn(x_t.to(dtype), timestep(t, x_t)))


def asked_on(eps_fn: EpsFn, device: torch.device) -> EpsFn:
    """``eps_fn`` asked on ``device``: where that has no float64, the states are kept on the CPU."""
    return lambda x_t, t: eps_fn(x_t.to(device), t.to(device))
