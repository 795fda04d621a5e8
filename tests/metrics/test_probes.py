"""AUROC and average precision against scikit-learn, also where torchmetrics alone would go wrong."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from rdm_cli.metrics.probes import auroc, average_precision


@pytest.mark.parametrize("scale", [0.1, 1.0, 60.0])
@pytest.mark.parametrize("decimals", [0, 6])
def test_against_scikit_learn(scale: float, decimals: int) -> None:
    """Small and huge logits (which a float32 sigmoid would tie), with ties and without."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(400, generator=generator) < 0.2
    scores = (scale * (torch.randn(400, generator=generator) + target + 3)).round(decimals=decimals)
    expected = roc_auc_score(target.numpy(), scores.numpy())
    assert auroc(scores, target) == pytest.approx(expected, abs=1e-6)
    expected = average_precision_score(target.numpy(), scores.numpy())
    assert average_precision(scores, target) == pytest.approx(expected, abs=1e-6)


def test_one_class_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="positives and negatives"):
        auroc(torch.rand(4), torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="positives and negatives"):
        average_precision(torch.rand(4), torch.zeros(4, dtype=torch.bool))
