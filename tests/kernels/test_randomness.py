"""Equal integers are one seed, whoever made them, and what is no integer is none."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from rdm_cli.kernels.randomness import as_seed, key_to_seed, keyed_noise


def test_seeds_and_noise_of_ordinary_integers_stay_what_they_were() -> None:
    """Samples of a seed are the same in all versions."""
    assert key_to_seed(0, "x_T", 0) == 1005513302976239972
    assert key_to_seed(-7, "image", 3, "a.png") == 6976838206603270626
    assert key_to_seed(2**80) == 1856723482612306122
    noise = keyed_noise(1, [0, "a"], (2,), "x_T")
    expected = torch.tensor([[0.95764464, -1.66184211], [-0.18004082, 0.30826956]])
    torch.testing.assert_close(noise, expected, rtol=0, atol=1e-6)
    assert noise.dtype == torch.float32


@pytest.mark.parametrize(
    "one",
    [np.int64(1), np.uint8(1), np.int64(3) - 2, True, torch.tensor(1), torch.tensor(1, dtype=torch.uint8)],
)
def test_integers_of_all_kinds_are_the_same_seed_and_the_same_key(one: Any) -> None:
    assert type(as_seed(one)) is int and as_seed(one) == 1
    assert key_to_seed(one, "z", one) == key_to_seed(1, "z", 1)
    assert torch.equal(keyed_noise(one, [one, 2], (3,), "z"), keyed_noise(1, [1, 2], (3,), "z"))


def test_text_of_numpy_is_the_same_key() -> None:
    assert key_to_seed(1, np.str_("a.png")) == key_to_seed(1, "a.png")


@pytest.mark.parametrize(
    "none", [1.0, 0.5, "1", None, np.float32(1), torch.tensor(1.0), Fraction(1), [1], b"1"]
)
def test_what_is_no_integer_is_refused(none: Any) -> None:
    with pytest.raises(ValueError, match="a seed must be an integer, not"):
        key_to_seed(none, "z")
    if not isinstance(none, str):
        with pytest.raises(ValueError, match="a key must be an integer, not"):
            key_to_seed(1, none)


def test_noise_for_nothing_is_no_rows() -> None:
    assert keyed_noise(1, [], (3, 4), "z").shape == (0, 3, 4)
