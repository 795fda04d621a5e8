"""The logistic fit against scikit-learn's, column by column."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from rdm_cli.training.logistic import fit_logistic


def test_columns_with_weights_and_penalties_of_their_own() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 8, generator=generator, dtype=torch.float64)
    truth = torch.randn(8, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    target = ((x @ truth + noise) > 0.5).double()
    row_weight = torch.rand(300, 2, generator=generator, dtype=torch.float64)
    row_weight[:50, 0] = 0  # rows left out
    row_weight /= row_weight.sum(dim=0)
    l2 = torch.tensor([0.1, 1e-3], dtype=torch.float64)
    fit = fit_logistic(x, target, row_weight, l2)
    for k in range(2):
        # scikit-learn minimises C * sum(a_i loss_i) + ||w||^2 / 2
        other = LogisticRegression(C=1 / float(l2[k]), tol=1e-10, max_iter=10_000)
        other.fit(x.numpy(), target[:, k].numpy(), sample_weight=row_weight[:, k].numpy())
        expected = torch.from_numpy(other.coef_[0]).double()
        # Both stop at a small gradient; the weakest curvature here is l2 = 1e-3.
        torch.testing.assert_close(fit.weight[k], expected, rtol=1e-3, atol=1e-3)
        assert float(fit.bias[k]) == pytest.approx(float(other.intercept_[0]), abs=1e-3)


def test_where_it_starts_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(100, 5, generator=generator, dtype=torch.float64)
    target = (x[:, :1] > 0).double()
    row_weight = torch.full((100, 1), 0.01, dtype=torch.float64)
    strong = fit_logistic(x, target, row_weight, torch.tensor([10.0], dtype=torch.float64))
    l2 = torch.tensor([0.01], dtype=torch.float64)
    cold, warm = (fit_logistic(x, target, row_weight, l2, start=start) for start in (None, strong))
    torch.testing.assert_close(cold.weight, warm.weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        strong.weight, fit_logistic(x, target, row_weight, 1000 * l2).weight, rtol=1e-6, atol=1e-6
    )
