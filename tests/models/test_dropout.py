"""Dropout of four elements a draw: shares, scale, independence, gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rdm_cli.models.dropout import Dropout

N = 1_000_003  # not a multiple of four


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.97])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_drops_a_share_p_and_scales_the_rest(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    y = Dropout(p)(torch.ones(N, dtype=dtype)).float()
    dropped = float((y == 0).float().mean())
    assert dropped == pytest.approx(p, abs=5 * (p * (1 - p) / N) ** 0.5 + 1 / 131072)
    rounding = 1e-3 if dtype == torch.float32 else 8e-3
    assert y[y != 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=rounding)


def test_elements_of_one_draw_are_dropped_independently() -> None:
    """Four elements share a draw of 64 bits, and each of the sixteen patterns is as likely as the others."""
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(400_000)) != 0).view(-1, 4).long()
    patterns = torch.bincount(kept @ torch.tensor([1, 2, 4, 8]), minlength=16)
    expected = len(kept) / 16
    chi_squared = float(((patterns - expected).square() / expected).sum())
    assert chi_squared < 44.3  # 15 degrees of freedom: a fair one exceeds this once in 10,000


def test_is_a_function_of_torchs_seed() -> None:
    layer, x = Dropout(0.2), torch.randn(3, 5, 7, 2)
    torch.manual_seed(3)
    a, b = layer(x), layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), a)
    assert not torch.equal(a, b)


def test_the_gradient_passes_where_the_value_does() -> None:
    x = torch.randn(64, 9, requires_grad=True)
    y = Dropout(0.4)(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, (y / x).detach())


@pytest.mark.parametrize("p", [0.0, 0.1, 1.0])
def test_is_torchs_where_nothing_is_left_to_chance(p: float) -> None:
    x = torch.randn(11, 4)
    assert torch.equal(Dropout(p).eval()(x), x)
    if p in (0.0, 1.0):
        assert torch.equal(Dropout(p)(x), nn.Dropout(p)(x))


def test_refuses_what_torch_refuses() -> None:
    with pytest.raises(ValueError, match="probability"):
        Dropout(1.5)
