"""Fréchet and kernel distances against scipy, torchmetrics and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torchmetrics.image.kid import KernelInceptionDistance

from rdm_cli.metrics import distribution
from rdm_cli.metrics.distribution import frechet_distance, frechet_of_moments, kernel_distance


def gaussian(num: int, dims: int, *, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(num, dims, generator=generator, dtype=torch.float64)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(dim=0), x.T.cov()


def correlated(num: int, dims: int, *, seed: int) -> Tensor:
    """With variances over four orders of magnitude, as those of a network's features are."""
    mix = gaussian(dims, dims, seed=seed + 100) * torch.logspace(0, -2, dims, dtype=torch.float64)
    return gaussian(num, dims, seed=seed) @ mix.T


@pytest.mark.parametrize("num", [40, 500])
def test_the_frechet_distance_against_scipy(num: int) -> None:
    x, y = correlated(num, 12, seed=0), correlated(num, 12, seed=1) + 0.3
    (mean_x, cov_x), (mean_y, cov_y) = moments(x), moments(y)
    root = sqrtm(cov_x.numpy() @ cov_y.numpy())
    expected = (
        float((mean_x - mean_y).square().sum() + cov_x.trace() + cov_y.trace()) - 2 * np.trace(root).real
    )
    assert frechet_of_moments(mean_x, cov_x, mean_y, cov_y) == pytest.approx(expected, rel=1e-8)
    found = frechet_distance(x, y, seed=0, num_dimensions=12, num_resamples=2)
    assert found.distance.value == pytest.approx(expected, rel=1e-8)  # a rotation changes nothing


def test_the_frechet_distance_of_gaussians_that_commute() -> None:
    a, b = torch.tensor([4.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 9.0])
    mean = torch.tensor([0.0, 2.0, 0.0])
    expected = 4 + float((a.sqrt() - b.sqrt()).square().sum())
    found = frechet_of_moments(torch.zeros(3), a.diag(), mean, b.diag())
    assert found == pytest.approx(expected)
    assert found == pytest.approx(frechet_of_moments(mean, b.diag(), torch.zeros(3), a.diag()))


def test_the_frechet_distance_of_a_set_from_itself_is_nothing() -> None:
    x = correlated(60, 8, seed=0)
    assert frechet_distance(x, x, seed=0, num_dimensions=8, num_resamples=2).distance.value < 1e-9
    # fewer samples than dimensions: the covariance has no full rank
    assert frechet_of_moments(*moments(x[:5]), *moments(x[:5])) < 1e-6


def test_two_samples_of_one_distribution_are_as_far_apart_as_the_bias_says() -> None:
    found = frechet_distance(gaussian(400, 20, seed=0), gaussian(400, 20, seed=1), seed=0, num_resamples=40)
    assert found.num_dimensions == 20
    # (k^2 + k) / 2n of the covariances and 2k / n of the means
    assert found.distance.value == pytest.approx(420 / 800 + 40 / 400, rel=0.2)
    assert found.bias == pytest.approx(found.distance.value, rel=0.25)


def test_the_frechet_interval_holds_the_spread_over_other_samples() -> None:
    def distance(seed: int, num_resamples: int):
        x = gaussian(100, 3, seed=seed)
        y = gaussian(100, 3, seed=1000 + seed, shift=0.5)
        return frechet_distance(x, y, seed=seed, num_resamples=num_resamples).distance

    spread = torch.tensor([distance(seed, 2).value for seed in range(1, 60)]).std()
    found = distance(0, 200)
    assert found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * float(spread), rel=0.35)


def test_few_images_are_compared_in_few_dimensions() -> None:
    x, y = correlated(55, 30, seed=0), correlated(80, 30, seed=0)
    found = frechet_distance(x, y, seed=0, num_resamples=2)
    assert (found.num_dimensions, found.num_reference, found.num_generated) == (5, 55, 80)
    assert 0.5 < found.kept_reference < 1


def test_what_the_axes_do_not_see_is_said() -> None:
    x = correlated(100, 30, seed=0)
    stray = torch.zeros(30, dtype=torch.float64)
    _, covariance = moments(x)
    stray += 20 * torch.linalg.eigh(covariance).eigenvectors[:, 0]  # where the reference hardly varies
    same, astray = (frechet_distance(x, y, seed=0, num_resamples=2) for y in (x, x + stray))
    assert astray.distance.value == pytest.approx(same.distance.value, abs=1e-6)
    assert astray.kept_generated < 0.5 < same.kept_generated


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_the_kernel_distance_against_torchmetrics() -> None:
    x, y = gaussian(50, 16, seed=0), gaussian(50, 16, seed=1, shift=0.4)
    theirs = KernelInceptionDistance(feature=torch.nn.Identity(), subsets=1, subset_size=50)
    theirs.set_dtype(torch.float64)
    theirs.update(x, real=True)
    theirs.update(y, real=False)
    found = kernel_distance(x, y, seed=0, num_resamples=100)
    assert found.value == pytest.approx(float(theirs.compute()[0]), rel=1e-5)
    assert kernel_distance(y, x, seed=0, num_resamples=2).value == pytest.approx(found.value)
    assert found.low < found.value < found.high


def test_the_kernel_distance_of_sets_of_two_sizes() -> None:
    """By its definition, a pair at a time."""
    x, y = gaussian(4, 3, seed=0), gaussian(3, 3, seed=1)

    def mean_kernel(pairs: list[tuple[Tensor, Tensor]]) -> float:
        return float(torch.stack([(a @ b / 3 + 1) ** 3 for a, b in pairs]).mean())

    within = [
        mean_kernel([(a[i], a[j]) for i in range(len(a)) for j in range(len(a)) if i != j]) for a in (x, y)
    ]
    expected = sum(within) - 2 * mean_kernel([(a, b) for a in x for b in y])
    assert kernel_distance(x, y, seed=0, num_resamples=2).value == pytest.approx(expected)


def test_the_kernel_distance_in_blocks_of_rows_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(50, 8), torch.randn(37, 8) + 0.3
    whole = kernel_distance(x, y, seed=0, num_resamples=20)
    monkeypatch.setattr(distribution, "BLOCK_VALUES", 100)  # 2 or 3 rows of 37 or 50, the last block smaller
    parts = kernel_distance(x, y, seed=0, num_resamples=20)
    assert [parts.value, parts.low, parts.high] == pytest.approx(
        [whole.value, whole.low, whole.high], rel=1e-12
    )


def test_the_kernel_distance_is_unbiased() -> None:
    found = [
        kernel_distance(gaussian(30, 4, seed=s), gaussian(30, 4, seed=500 + s), seed=s, num_resamples=50)
        for s in range(60)
    ]
    values = torch.tensor([f.value for f in found])
    assert abs(float(values.mean())) < 3 * float(values.std()) / 60**0.5
    assert sum(f.low <= 0 <= f.high for f in found) >= 54


def test_the_kernel_distance_s_replicates_lie_about_its_value() -> None:
    """Copies of one image paired with each other would lift them all, by 1/30 of the kernel's diagonal."""
    found = [
        kernel_distance(
            gaussian(30, 4, seed=s), gaussian(30, 4, seed=-s - 1, shift=1), seed=s, num_resamples=80
        )
        for s in range(20)
    ]
    off = torch.tensor([(f.low + f.high) / 2 - f.value for f in found])
    width = torch.tensor([f.high - f.low for f in found])
    assert abs(float(off.mean())) < 0.15 * float(width.mean())


def test_the_seed_decides() -> None:
    x, y = gaussian(40, 4, seed=0), gaussian(40, 4, seed=1)
    for distance in (frechet_distance, kernel_distance):
        assert distance(x, y, seed=1, num_resamples=5) == distance(x, y, seed=1, num_resamples=5)
        assert distance(x, y, seed=1, num_resamples=5) != distance(x, y, seed=2, num_resamples=5)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(20, 3), torch.zeros(20, 4), "must be"),
        (torch.zeros(20, 3), torch.zeros(9, 3), "10 images or more"),
        (torch.zeros(20, 3), torch.full((20, 3), torch.nan), "finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_distance(x, y, seed=0)
