"""Precision, recall, density and coverage against scikit-learn's neighbours and plain cases."""

from __future__ import annotations

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from rdm_cli.metrics import manifold
from rdm_cli.metrics.manifold import density_coverage, precision_recall


def points(num: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return shift + torch.randn(num, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("block", [100, manifold.BLOCK_VALUES])  # 2 or 3 rows at once; all of them
def test_against_the_definitions(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ball at a time, its width from scikit-learn."""
    monkeypatch.setattr(manifold, "BLOCK_VALUES", block)
    real, fake = points(30, 0), points(40, 1, shift=0.8)

    def radii(x: torch.Tensor, k: int) -> list[float]:
        found, _ = NearestNeighbors(n_neighbors=k + 1).fit(x.numpy()).kneighbors(x.numpy())
        return found[:, k].tolist()

    def holds(centres: torch.Tensor, k: int, point: torch.Tensor) -> int:
        widths = radii(centres, k)
        return sum(float((c - point).norm()) <= r for c, r in zip(centres, widths, strict=True))

    pr = precision_recall(real, fake)
    assert pr.precision.value == pytest.approx(sum(holds(real, 3, f) > 0 for f in fake) / 40)
    assert pr.recall.value == pytest.approx(sum(holds(fake, 3, r) > 0 for r in real) / 30)
    dc = density_coverage(real, fake, seed=0, num_resamples=20)
    assert dc.density.value == pytest.approx(sum(holds(real, 5, f) for f in fake) / 40 / 5)
    covered = sum(
        any(float((f - r).norm()) <= width for f in fake)
        for r, width in zip(real, radii(real, 5), strict=True)
    )
    assert dc.coverage.value == pytest.approx(covered / 30)
    for estimate in (pr.precision, pr.recall, dc.density, dc.coverage):
        assert estimate.low <= estimate.value <= estimate.high


def test_a_set_against_itself_and_against_one_far_away() -> None:
    real = points(30, 0)
    same, far = (precision_recall(real, other) for other in (real, real + 100))
    assert (same.precision.value, same.recall.value) == (1.0, 1.0)
    assert (far.precision.value, far.recall.value) == (0.0, 0.0)
    covered = density_coverage(real, real, seed=0, num_resamples=10)
    assert covered.coverage.value == 1.0
    assert density_coverage(real, real + 100, seed=0, num_resamples=10).density.value == 0.0


def test_exchanging_the_sets_exchanges_precision_and_recall() -> None:
    a, b = points(30, 0), points(30, 1, shift=1.0)
    one, other = (
        precision_recall(a, b),
        precision_recall(b, a),
    )
    assert (one.precision, one.recall) == (other.recall, other.precision)


def test_a_collapsed_generator_is_precise_and_recalls_nothing() -> None:
    found = precision_recall(points(100, 0), 0.01 * points(100, 1))
    assert found.precision.value == 1.0
    assert found.recall.value < 0.1


def test_an_outlier_flatters_precision_and_not_density() -> None:
    """Naeem et al. 2020, section 2.2: one real point far out, and generated ones on the way to it."""
    real = torch.cat([points(100, 0), torch.full((1, 3), 30.0, dtype=torch.float64)])
    fake = points(100, 1) * 0.1 + 15
    assert precision_recall(real, fake).precision.value == 1.0
    assert density_coverage(real, fake, seed=0, num_resamples=5).density.value < 0.25


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="4 images or more"):
        precision_recall(points(3, 0), points(9, 1))
