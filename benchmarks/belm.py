r"""O-BELM's weight of a two-step solver (``rdm_cli/kernels/two_step.py``): the rule becomes second order.

    a_i = (h_{i+1} / h_i)^2 sqrt(ab_{i+1} / ab_{i-1}),    h_i = sigma_bar_i - sigma_bar_{i-1}

(Wang et al. 2024, arXiv 2410.07273, section 4)
"""

from __future__ import annotations

import math

from torch import Tensor


def belm_weight(alpha_bar_prev: Tensor, alpha_bar: Tensor, alpha_bar_next: Tensor) -> float:
    """O-BELM's a_i."""
    below, here, above = (math.sqrt(1 / ab - 1) for ab in (alpha_bar_prev, alpha_bar, alpha_bar_next))
    return ((above - here) / (here - below)) ** 2 * math.sqrt(alpha_bar_next / alpha_bar_prev)
