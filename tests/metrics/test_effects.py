"""The sign-flip test, against what can be counted by hand and by chance itself."""

from __future__ import annotations

import math

import pytest
import torch

from rdm_cli.metrics.effects import sign_flip_p_values


def test_p_is_the_share_of_signs_that_do_as_much() -> None:
    """Six differences of one sign and size: 2 of the 64 ways to choose signs give such a mean."""
    p = sign_flip_p_values(torch.full((6, 1), 0.3), seed=0)
    assert float(p) == pytest.approx(2 / 64, abs=0.006)


def test_the_same_change_twice_needs_no_correction() -> None:
    d = torch.randn(20, 1, generator=torch.Generator().manual_seed(1)) + 0.4
    one, two = sign_flip_p_values(d, seed=0), sign_flip_p_values(d.repeat(1, 2), seed=0)
    assert torch.equal(two, one.repeat(2)) and 0.01 < float(one) < 0.5


def test_more_changes_make_each_less_sure() -> None:
    d = torch.randn(20, 12, generator=torch.Generator().manual_seed(2))
    d[:, 0] += 0.6
    alone, among = float(sign_flip_p_values(d[:, :1], seed=0)), float(sign_flip_p_values(d, seed=0)[0])
    assert alone < 0.05 and alone < among < 12 * alone + 0.01


def test_chance_alone_is_found_in_as_many_cases_as_the_level_says() -> None:
    generator = torch.Generator().manual_seed(3)
    found = 0
    for number in range(300):
        d = torch.randn(16, 8, generator=generator)
        d[torch.rand(16, 8, generator=generator) < 0.4] = math.nan
        found += bool(sign_flip_p_values(d, seed=number, num_flips=199).min() < 0.05)
    assert 4 <= found <= 30  # 15 are expected, with a standard deviation of 3.8


def test_what_changes_nothing_has_p_1() -> None:
    d = torch.zeros(10, 3)
    d[:, 1], d[:, 2] = math.nan, 1.0
    p = sign_flip_p_values(d, seed=0)
    assert p[:2].tolist() == [1.0, 1.0] and float(p[2]) < 0.01
    assert sign_flip_p_values(torch.zeros(0, 2), seed=0).tolist() == [1.0, 1.0]
