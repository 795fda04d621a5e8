"""How well a score separates two classes: area under the ROC curve, and average precision."""

from __future__ import annotations

import torch
from torch import Tensor


def auroc(scores: Tensor, target: Tensor) -> float:
    """Probability that a positive scores above a negative (ties count half).

    ``scores`` (N,) in any unit; ``target`` bool (N,). Raises ValueError where a class is missing.
    """
    from torchmetrics.functional.classification import binary_auroc

    _both_classes(target)
    return float(binary_auroc(_as_ranks(scores), target.long()))


def average_precision(scores: Tensor, target: Tensor) -> float:
    """Precision averaged over the recalls at which a positive is found; arguments as in :func:`auroc`."""
    from torchmetrics.functional.classification import binary_average_precision

    _both_classes(target)
    return float(binary_average_precision(_as_ranks(scores), target.long()))


def _both_classes(target: Tensor) -> None:
    if target.ndim != 1 or target.bool().all() or not target.bool().any():
        raise ValueError("a ranking score needs positives and negatives, as (N,)")


def _as_ranks(scores: Tensor) -> Tensor:
    """Order-preserving values in [0, 1), equal where ``scores`` are.

    torchmetrics passes anything outside [0, 1] through a sigmoid, which in float32 ties all logits
    above 17; both metrics look at the order alone, so ranks lose nothing.
    """
    values, ranks = torch.unique(scores.detach(), return_inverse=True)
    return ranks.double() / len(values)
