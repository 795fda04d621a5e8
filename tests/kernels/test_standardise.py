"""Mean and std of codes, and the floor under a dead dimension."""

from __future__ import annotations

import pytest
import torch

from rdm_cli.kernels.standardise import STD_FLOOR, mean_and_std


def test_standardised_codes_have_mean_0_and_std_1() -> None:
    z = torch.randn(500, 7, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 8) + 3
    mean, std = mean_and_std(z)
    normalised = (z - mean) / std
    torch.testing.assert_close(normalised.mean(0), torch.zeros(7), rtol=0, atol=1e-5)
    torch.testing.assert_close(normalised.std(0, correction=0), torch.ones(7), rtol=1e-5, atol=1e-5)


def test_a_dead_dimension_standardises_to_nothing() -> None:
    z = torch.randn(100, 4)
    z[:, 2] = 0.1
    mean, std = mean_and_std(z)
    assert std[2] == pytest.approx(STD_FLOOR * float(z.std(0, correction=0).square().mean().sqrt()), rel=1e-4)
    assert ((z - mean) / std)[:, 2].abs().max() < 1e-3


def test_codes_that_are_all_equal_stay_finite() -> None:
    mean, std = mean_and_std(torch.full((3, 2), 5.0))
    assert mean.tolist() == [5.0, 5.0] and std.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("z", [torch.zeros(1, 4), torch.zeros(4), torch.tensor([[1.0], [torch.nan]])])
def test_too_few_or_broken_codes_are_refused(z: torch.Tensor) -> None:
    with pytest.raises(ValueError):
        mean_and_std(z)
