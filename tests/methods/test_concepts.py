"""Concepts: what divides codes into two kinds is found, and what does not is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rdm_cli.errors import RdmError
from rdm_cli.methods.concepts import different, find_concepts
from rdm_cli.metrics.ranking import auroc

WIDTH, SHARES = 12, (0.5, 0.2, 0.05)


@pytest.fixture(scope="module")
def planted() -> tuple[Tensor, Tensor]:
    """Codes (N, 12), mixed and stretched, with three things that some have; and who has them, (N, 3)."""
    generator = torch.Generator().manual_seed(0)
    has = torch.rand(8000, 3, generator=generator) < torch.tensor(SHARES)
    x = torch.randn(8000, WIDTH, generator=generator)
    x[:, :3] = x[:, :3] / 6 + has
    mixing = torch.randn(WIDTH, WIDTH, generator=generator)
    return x @ mixing + torch.randn(WIDTH, generator=generator), has


def test_each_planted_attribute_is_found(planted: tuple[Tensor, Tensor]) -> None:
    z, has = planted
    found = find_concepts(z)
    logits = found.logits(z)
    for k, share in enumerate(SHARES):
        scores = torch.tensor([auroc(column, has[:, k]) for column in logits.T])
        best = int((scores - 0.5).abs().argmax())
        assert abs(float(scores[best]) - 0.5) > 0.49
        # a logit of 0 divides the heaps, and edits follow the difference of their means
        upper = float((logits[:, best] > 0).float().mean())
        assert min(upper, 1 - upper) == pytest.approx(min(share, 1 - share), abs=0.02)
        difference = (z[has[:, k]].mean(dim=0) - z[~has[:, k]].mean(dim=0)) / found.z_std
        cosine = torch.nn.functional.cosine_similarity(found.along[best], difference, dim=0)
        assert abs(float(cosine)) > 0.97


def test_the_same_seed_finds_the_same(planted: tuple[Tensor, Tensor]) -> None:
    first, again = (find_concepts(planted[0], seed=3) for _ in range(2))
    assert first.names == again.names and torch.equal(first.weight, again.weight)


def test_those_shown_differ(planted: tuple[Tensor, Tensor]) -> None:
    z, _ = planted
    found = find_concepts(z)
    names = different(found, z, 3)
    said = found.select({name: name for name in names}).logits(z).sigmoid()
    assert len(names) == 3 and float(torch.corrcoef(said.T).abs().triu(1).max()) <= 0.6


def test_a_gaussian_has_no_concepts() -> None:
    z = torch.randn(8000, 6, generator=torch.Generator().manual_seed(1))
    with pytest.raises(RdmError, match="nothing divides"):
        find_concepts(z)


def test_too_few_codes_are_refused() -> None:
    with pytest.raises(RdmError, match="100 codes are too few to find directions among 6 values"):
        find_concepts(torch.randn(100, 6))
