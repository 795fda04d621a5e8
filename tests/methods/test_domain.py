"""What a bundle's training images look like: distances of codes, and what is told of images outside."""

from __future__ import annotations

import math

import pytest
import torch

from rdm_cli.methods.domain import BEYOND_LIMIT, _binomial_tail, fit_domain, more_than_chance


def test_distances_are_mahalanobis_ones() -> None:
    gen = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=gen, dtype=torch.float64)
    z = torch.randn(20_000, 6, generator=gen, dtype=torch.float64) @ mixing + 3.0
    domain = fit_domain(z)
    assert domain is not None
    covariance = torch.cov(z.T)
    deviation = z[:50] - z.mean(dim=0)
    expected = (deviation @ torch.linalg.inv(covariance) * deviation).sum(dim=1).sqrt()
    # fitted on four fifths, and shrunk a little
    torch.testing.assert_close(domain.distances(z[:50]).double(), expected, rtol=0.05, atol=0.05)


def test_the_limit_is_that_of_codes_that_were_not_fitted_on() -> None:
    gen = torch.Generator().manual_seed(1)
    z = torch.randn(5000, 200, generator=gen)
    domain = fit_domain(z)
    assert domain is not None
    fresh = domain.outside(torch.randn(20_000, 200, generator=gen)).float().mean()
    # of 1,000 codes that set the limit five lie beyond it: between 1 and 12 in 19 of 20 draws
    assert BEYOND_LIMIT / 5 < float(fresh) < 3 * BEYOND_LIMIT
    assert domain.outside(1.5 * torch.randn(100, 200, generator=gen)).all()
    assert domain.outside(torch.full((1, 200), 2.0)).all()


def test_a_shape_of_z_and_too_few_codes() -> None:
    gen = torch.Generator().manual_seed(2)
    maps = torch.randn(800, 2, 3, 3, generator=gen)
    domain = fit_domain(maps)
    assert domain is not None and domain.mean.shape == (18,)
    assert domain.distances(maps[:4]).shape == (4,)
    assert fit_domain(torch.randn(399, 4, generator=gen)) is None
    assert fit_domain(torch.randn(500, 400, generator=gen)) is None


def test_a_direction_in_which_nothing_varies_does_no_harm() -> None:
    gen = torch.Generator().manual_seed(3)
    z = torch.cat([torch.randn(1000, 4, generator=gen), torch.ones(1000, 1)], dim=1)
    domain = fit_domain(z)
    assert domain is not None and torch.isfinite(domain.distances(z)).all()
    assert bool(domain.outside(torch.tensor([[0.0, 0.0, 0.0, 0.0, 2.0]])))


def test_a_few_of_many_are_chance() -> None:
    from scipy.stats import binom

    for num_images, num_outside in ((1, 1), (8, 1), (8, 2), (300, 5), (300, 6), (5000, 41)):
        expected = binom.sf(num_outside - 1, num_images, BEYOND_LIMIT) < 0.01
        assert more_than_chance(num_outside, num_images) == expected
    assert more_than_chance(1, 1) and not more_than_chance(1, 8) and more_than_chance(2, 8)


@pytest.mark.parametrize("num_images", [30, 2_000, 60_000, 5_000_000, 10**9])
def test_of_very_many_images_chance_is_told_as_well(num_images: int) -> None:
    """A count that no float holds was an OverflowError: 60,000 images were not encoded to the end."""
    from scipy.stats import binom

    for sigmas in (0.5, 2.0, 2.3, 2.4, 6.0):
        k = math.ceil(num_images * BEYOND_LIMIT + sigmas * math.sqrt(num_images * BEYOND_LIMIT))
        expected = binom.sf(k - 1, num_images, BEYOND_LIMIT)
        assert _binomial_tail(k, num_images, BEYOND_LIMIT) == pytest.approx(expected, rel=1e-5)
        assert more_than_chance(k, num_images) == (expected < 0.01)
    assert not more_than_chance(num_images // 300, num_images) and more_than_chance(num_images, num_images)
