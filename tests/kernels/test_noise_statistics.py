"""Statistics of x_T: of noise, of pictures, and by NumPy's correlation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from noise_statistics import noise_statistics


def test_noise_is_like_noise(draw: Any) -> None:
    found = noise_statistics(draw(0, 4, 3, 64, 64).float())
    # five standard errors of 0.009
    for value, expected in zip(found, (0, 1, 0, 0), strict=True):
        assert value.shape == (4,) and value.dtype == torch.float64
        torch.testing.assert_close(value, torch.full((4,), float(expected)).double(), rtol=0, atol=0.045)


def test_correlations_tell_rows_from_columns(draw: Any) -> None:
    rows = draw(1, 1, 3, 64, 1).expand(1, 3, 64, 64)
    found = noise_statistics(0.5 + 0.1 * rows)
    # up to the sampling error of 192 values
    assert float(found.horizontal) == pytest.approx(1, abs=1e-9) and abs(float(found.vertical)) < 0.4
    assert float(found.mean) == pytest.approx(0.5, abs=0.05) and float(found.std) == pytest.approx(
        0.1, rel=0.3
    )


def test_correlations_are_numpys_up_to_the_border(draw: Any) -> None:
    x = draw(2, 1, 3, 64, 64)
    x = x + 0.7 * x.roll(1, dims=-1)
    left, right = x[..., :-1].flatten().numpy(), x[..., 1:].flatten().numpy()
    expected = np.corrcoef(left, right)[0, 1]
    assert float(noise_statistics(x).horizontal) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("shape", [(2, 512), (1, 3, 1, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="noise maps are"):
        noise_statistics(torch.zeros(shape))
