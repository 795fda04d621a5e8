r"""Linear logistic regression: what the attribute probes and the few-shot classifiers are.

    min_{w, b}  sum_i a_i BCE(w . x_i + b, y_i)  +  l2/2 ||w||^2,        sum_i a_i = 1

The row weights a_i carry everything in which fits differ: an unknown label or a held-out row weighs 0,
and a rare class can weigh as much as a common one. The problem is convex, and for l2 > 0 its minimum
unique, so the fit is deterministic: full-batch L-BFGS in float64, in the coordinates v = s R'w in which the
curvature is nearly the same everywhere: R the principal axes of x, s^2 = share (1 - share) variance + l2 for
a share of positives. Codes' variances span five orders of magnitude, and w itself takes ten times as long.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ITERATIONS = 500


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """K linear classifiers: ``weight`` float64 (K, d), ``bias`` float64 (K,)."""

    weight: Tensor
    bias: Tensor

    def logits(self, x: Tensor) -> Tensor:
        """``x`` float64 (N, d) to (N, K)."""
        return x @ self.weight.T + self.bias


def fit_logistic(
    x: Tensor, target: Tensor, row_weight: Tensor, l2: Tensor, *, start: Logistic | None = None
) -> Logistic:
    """Fit K classifiers, each with rows and penalty of its own and independent of the others.

    ``x`` float64 (N, d); ``target`` 0 or 1 and ``row_weight`` >= 0, float64 (N, K), each column of
    weights summing to 1; ``l2`` > 0, float64 (K,). ``start`` (None: zeros) only saves time.
    """
    variances, axes = torch.linalg.eigh(x.T @ x / len(x))
    share = (row_weight * target).sum(dim=0)  # of positives, (K,)
    curvature = (share * (1 - share))[:, None]
    stretch = (curvature * variances.clamp(min=0) + l2[:, None]).sqrt()  # (K, d)
    num_classifiers = target.shape[1]
    weight, bias = x.new_zeros(num_classifiers, x.shape[1]), x.new_zeros(num_classifiers)
    if start is not None:
        weight, bias = start.weight.clone(), start.bias.clone()
    along_axes = x @ axes
    for k in range(num_classifiers):
        v, bias[k] = _fit_one(
            along_axes / stretch[k],
            target[:, k],
            row_weight[:, k],
            float(l2[k]),
            stretch=stretch[k],
            v=weight[k] @ axes * stretch[k],
            bias=bias[k].clone(),
        )
        weight[k] = axes @ (v / stretch[k])
    return Logistic(weight=weight, bias=bias)


def _fit_one(
    rows: Tensor,
    target: Tensor,
    row_weight: Tensor,
    l2: float,
    *,
    stretch: Tensor,
    v: Tensor,
    bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """(v, bias) at the minimum, from these; w = R v / ``stretch``, and ``rows`` (N, d) are x R / ``stretch``.

    The gradient is written out: with autograd a fit takes twice as long.
    """
    v.requires_grad_()
    bias.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [v, bias],
        max_iter=MAX_ITERATIONS,
        max_eval=2 * MAX_ITERATIONS,
        history_size=20,
        tolerance_grad=1e-6,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )
    shrink = l2 / stretch.square()

    @torch.no_grad()
    def objective() -> Tensor:
        logits = rows @ v + bias
        shrunk = shrink * v
        error = row_weight * (logits.sigmoid() - target)
        v.grad = error @ rows + shrunk
        bias.grad = error.sum()
        bce = F.binary_cross_entropy_with_logits(logits, target, weight=row_weight, reduction="sum")
        return bce + 0.5 * (shrunk @ v)

    optimizer.step(objective)
    return v.detach(), bias.detach()
