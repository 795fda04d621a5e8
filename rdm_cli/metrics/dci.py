r"""Disentanglement, completeness and informativeness (Eastwood & Williams, ICLR 2018, section 2).

A classifier for each attribute k gives each code dimension i an importance R_ik >= 0. With shares along a
row, P_ik = R_ik / sum_k R_ik, and along a column, Q_ik = R_ik / sum_i R_ik,

    D = sum_i r_i (1 + sum_k P_ik log_K P_ik)        r_i = sum_k R_ik / sum R
    C = sum_k c_k (1 + sum_i Q_ik log_d Q_ik)        c_k = sum_i R_ik / sum R

D is 1 where each dimension serves one attribute alone, C where each attribute is served by one dimension.
Both are 0 where nothing matters more than anything else, and here also where nothing matters at all. The
paper averages C evenly; the weights are Locatello et al.'s (2019, arXiv 1811.12359, appendix), as in the
figures that others print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rdm_cli.kernels.randomness import key_to_seed
from rdm_cli.metrics.extras import optional_module
from rdm_cli.metrics.intervals import LEVEL, NUM_RESAMPLES, Estimate, percentile_estimate, resampled_counts
from rdm_cli.metrics.linear_fit import Array, fit_linear
from rdm_cli.metrics.linear_probes import checked_labels, standardised, too_few
from rdm_cli.metrics.ranking import separation_replicates

Predictor = Literal["lasso", "trees"]


@dataclass(frozen=True, kw_only=True)
class DCI:
    """``disentanglement`` and ``completeness``, 0 to 1, and ``informativeness``, 0 (chance) to 1.

    Labels here are binary and often rare, which makes accuracy say little: informativeness is the mean over
    attributes of 2 AUROC - 1 on the held-out rows. Its interval is that over other such rows; the other two
    have none, for every replicate would fit all classifiers anew. ``importance`` (d, K) has the attributes of
    ``names`` in its columns; where informativeness is near 0, nothing that it says means much.
    """

    disentanglement: float
    completeness: float
    informativeness: Estimate
    importance: Tensor
    names: tuple[str, ...]
    predictor: Predictor
    skipped: Mapping[str, str]


def disentanglement_completeness(importance: Tensor) -> tuple[float, float]:
    """D and C of an importance matrix (d, K) of numbers from 0 up; d and K at least 2, or ValueError."""
    if importance.ndim != 2 or min(importance.shape) < 2 or bool((importance < 0).any()):
        raise ValueError(f"importance must be (d, K) from 0 up, both 2 or more: {tuple(importance.shape)}")
    matrix = importance.double()
    return _concentration(matrix), _concentration(matrix.T)


def dci(
    z: Tensor,
    labels: Tensor,
    names: Sequence[str],
    *,
    held_out: Tensor,
    seed: int,
    predictor: Predictor = "lasso",
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> DCI:
    """DCI of codes ``z`` (N, ...), flattened, against binary ``labels`` (N, K).

    Labels are positive where > 0, NaN where unknown; classifiers are fitted on the rows not ``held_out``,
    bool (N,). ``lasso`` is a logistic one with an absolute penalty (the paper's linear choice), its
    importance |weight| on standardised codes; ``trees`` is Locatello et al.'s gradient boosting with its own
    importances: not bound to linear readings, and some 15 s for an attribute on 1500 codes of 512. Raises
    ValueError for shapes that disagree and where fewer than two attributes can be fitted, UsageError where
    scikit-learn is absent.
    """
    x = standardised(z, held_out)
    labels, held_out = checked_labels(labels, names, len(x)), held_out.cpu()
    skipped = {name: why for k, name in enumerate(names) if (why := too_few(labels[:, k], held_out))}
    counts = resampled_counts(int(held_out.sum()), seed=seed, num_resamples=num_resamples)
    columns, values, replicates = [], [], []
    for k, name in enumerate(names):
        if name in skipped:
            continue
        known, target = ~labels[:, k].isnan(), labels[:, k] > 0
        train, test = known & ~held_out, known & held_out
        column, scores = _fit(x[train].numpy(), target[train].numpy(), x[test].numpy(), predictor, seed)
        value, spread = separation_replicates(
            torch.from_numpy(scores), target[test], counts[:, known[held_out]]
        )
        columns.append(torch.from_numpy(column))
        values.append(2 * value[0] - 1)
        replicates.append(2 * spread[0] - 1)
    if len(columns) < 2:
        raise ValueError(f"DCI needs two attributes or more that can be fitted, not {len(columns)}")
    importance = torch.stack(columns, dim=1)
    disentanglement, completeness = disentanglement_completeness(importance)
    spread_of_mean = torch.stack(replicates).mean(dim=0)
    return DCI(
        disentanglement=disentanglement,
        completeness=completeness,
        informativeness=percentile_estimate(
            float(torch.stack(values).mean()), spread_of_mean[spread_of_mean.isfinite()], level=level
        ),
        importance=importance,
        names=tuple(name for name in names if name not in skipped),
        predictor=predictor,
        skipped=skipped,
    )


def _concentration(matrix: Tensor) -> float:
    """The mean over rows, by their sums, of 1 less a row's entropy in shares of the largest there is."""
    total = matrix.sum()
    if total == 0:
        return 0.0
    sums = matrix.sum(dim=1, keepdim=True)
    shares = matrix / sums.clamp(min=1e-300)
    entropy = -torch.special.xlogy(shares, shares).sum(dim=1) / np.log(matrix.shape[1])
    return float((sums[:, 0] / total * (1 - entropy)).sum())


def _fit(
    x_train: Array, target: np.ndarray, x_test: Array, predictor: Predictor, seed: int
) -> tuple[Array, Array]:
    """Importances (d,), and scores of the test rows."""
    if predictor == "lasso":
        fit = fit_linear(x_train, target, penalty="absolute", seed=seed)
        return np.abs(fit.weight), fit.logits(x_test)
    ensemble = optional_module("sklearn.ensemble", package="scikit-learn")
    trees = ensemble.GradientBoostingClassifier(random_state=key_to_seed(seed, "trees") % 2**32)
    trees.fit(x_train, target)
    return trees.feature_importances_, trees.decision_function(x_test)
