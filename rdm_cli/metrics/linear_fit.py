r"""Linear logistic regression whose penalty is chosen on a part of the training data (scikit-learn's).

    min_{w, b}  mean BCE(w . x + b, y)  +  strength (|w|^2 / 2  or  |w|_1)

The part is a fifth, of both classes in proportion. The square penalty is the one with the lowest loss
there. The absolute one, which leaves few weights, is the strongest whose loss lies within a standard error
of the lowest (Hastie et al. 2009, section 7.10): on noise that leaves none at all, where the lowest would
keep some by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rdm_cli.kernels.randomness import key_to_seed
from rdm_cli.metrics.extras import optional_module

Array = npt.NDArray[np.float64]
Penalty = Literal["square", "absolute"]

SQUARE_STRENGTHS = (1.0, 0.1, 0.01, 1e-3, 1e-4)
# In shares of the strength that leaves no weight. The first is above 1, for the penalty on the bias (below)
# lets the bias fall a little short of the share of positives.
ABSOLUTE_STRENGTHS = (1.1, 0.5, 0.25, 0.1, 0.05, 0.025, 0.01)
INNER_SHARE = 0.2
MIN_TO_CHOOSE = 10  # of each class; where there are fewer, the middle strength serves
MAX_ITERATIONS = 2000


@dataclass(frozen=True, kw_only=True)
class LinearFit:
    """A classifier: ``weight`` (d,) and ``bias``; ``strength`` is that of the penalty it was fitted with."""

    weight: Array
    bias: float
    strength: float

    def logits(self, x: Array) -> Array:
        """``x`` (N, d) to (N,)."""
        return x @ self.weight + self.bias


def fit_linear(x: Array, target: npt.NDArray[np.bool_], *, penalty: Penalty, seed: int) -> LinearFit:
    """Fit ``target`` (N,) on ``x`` (N, d), whose columns should be standardised.

    The same seed gives the same fit. Raises UsageError where scikit-learn is absent, ValueError where a class
    is missing.
    """
    if target.all() or not target.any():
        raise ValueError("a classifier needs positives and negatives")
    strengths = _strengths(x, target, penalty)
    chosen = strengths[len(strengths) // 2]
    if min(int(target.sum()), int((~target).sum())) >= MIN_TO_CHOOSE:
        chosen = _choose(x, target, strengths, penalty, seed)
    return _fit(x, target, chosen, penalty, seed)


def _strengths(x: Array, target: npt.NDArray[np.bool_], penalty: Penalty) -> tuple[float, ...]:
    """From the strongest down."""
    if penalty == "square":
        return SQUARE_STRENGTHS
    # the loss's gradient at w = 0, where the bias alone gives the share of positives
    strongest = float(np.abs(x.T @ (target - target.mean())).max()) / len(x)
    return tuple(share * max(strongest, 1e-12) for share in ABSOLUTE_STRENGTHS)


def _choose(
    x: Array, target: npt.NDArray[np.bool_], strengths: tuple[float, ...], penalty: Penalty, seed: int
) -> float:
    selection = optional_module("sklearn.model_selection", package="scikit-learn")
    inner, outer = selection.train_test_split(
        np.arange(len(x)), test_size=INNER_SHARE, stratify=target, random_state=_sklearn_seed(seed, "inner")
    )
    losses = []
    for strength in strengths:
        fit = _fit(x[inner], target[inner], strength, penalty, seed)
        margins = np.where(target[outer], 1, -1) * fit.logits(x[outer])
        losses.append(np.logaddexp(0, -margins))
    means = np.array([loss.mean() for loss in losses])
    best = int(means.argmin())
    if penalty == "square":
        return strengths[best]
    bearable = means[best] + losses[best].std(ddof=1) / len(outer) ** 0.5
    return strengths[int((means <= bearable).argmax())]  # the first is the strongest


def _fit(x: Array, target: npt.NDArray[np.bool_], strength: float, penalty: Penalty, seed: int) -> LinearFit:
    linear_model = optional_module("sklearn.linear_model", package="scikit-learn")
    settings: dict[str, Any] = {"solver": "lbfgs"}
    if penalty == "absolute":
        # liblinear penalises the bias too, as the weight of a column of this value: less, the larger it is
        settings = {
            "solver": "liblinear",
            "l1_ratio": 1.0,
            "intercept_scaling": 10.0,
            "random_state": _sklearn_seed(seed, "liblinear"),
        }
    model = linear_model.LogisticRegression(C=1 / (strength * len(x)), max_iter=MAX_ITERATIONS, **settings)
    model.fit(x, target)
    return LinearFit(weight=model.coef_[0], bias=float(model.intercept_[0]), strength=strength)


def _sklearn_seed(seed: int, purpose: str) -> int:
    return key_to_seed(seed, purpose) % 2**32
