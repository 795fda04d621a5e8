"""Linear probes: the fit against the house's own, what they find, and what they must not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from rdm_cli.metrics.linear_fit import fit_linear
from rdm_cli.metrics.linear_probes import hold_out, linear_probes, pixel_components
from rdm_cli.training.logistic import fit_logistic


def codes(num: int = 400, dims: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Standard normal codes (num, dims), and two labels: the sign of z_0, almost, and a coin."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(num, dims, generator=generator)
    noisy = z[:, 0] + 0.3 * torch.randn(num, generator=generator) > 0
    coin = torch.rand(num, generator=generator) < 0.5
    return z, torch.stack([noisy, coin], dim=1).float()


def test_the_fit_against_the_house_s_own() -> None:
    z, labels = codes()
    x, target = z.double(), labels[:, :1].double()
    fit = fit_linear(x.numpy(), target[:, 0].bool().numpy(), penalty="square", seed=0)
    row_weight = torch.full_like(target, 1 / len(x))
    ours = fit_logistic(x, target, row_weight, torch.tensor([fit.strength], dtype=torch.float64))
    np.testing.assert_allclose(fit.weight, ours.weight[0].numpy(), atol=2e-3)
    assert fit.bias == pytest.approx(float(ours.bias[0]), abs=2e-3)


def test_the_absolute_penalty_keeps_what_matters_and_nothing_of_noise() -> None:
    z, labels = codes()
    target = labels.bool().numpy()
    kept = fit_linear(z.double().numpy(), target[:, 0], penalty="absolute", seed=0).weight
    assert kept[0] > 0 and not np.abs(kept[1:]).any()
    assert not fit_linear(z.double().numpy(), target[:, 1], penalty="absolute", seed=0).weight.any()


def test_what_is_there_is_found_and_a_coin_is_not() -> None:
    z, labels = codes()
    held_out = hold_out(len(z), seed=0)
    found = linear_probes(z * 7 + 3, labels, ("sign", "coin"), held_out=held_out, seed=0, num_resamples=200)
    sign, coin = found.by_name["sign"], found.by_name["coin"]
    expected = roc_auc_score(labels[held_out, 0].numpy(), z[held_out, 0].numpy())
    assert sign.auroc.value == pytest.approx(expected, abs=0.02)
    assert sign.auroc.low > 0.9
    assert coin.auroc.low < 0.5 < coin.auroc.high
    assert sign.num_scored == int(held_out.sum()) == 100
    assert found.mean.auroc.value == pytest.approx((sign.auroc.value + coin.auroc.value) / 2)
    assert found.mean.auroc.low < found.mean.auroc.value < found.mean.auroc.high
    assert not found.skipped


def test_held_out_rows_are_not_trained_on() -> None:
    """Labels that only the held-out rows have right leave the probe as bad as a coin."""
    z, labels = codes()
    held_out = hold_out(len(z), seed=1)
    spoiled = torch.where(held_out[:, None], labels, labels[torch.randperm(len(z))])
    found = linear_probes(z, spoiled[:, :1], ("sign",), held_out=held_out, seed=0, num_resamples=2)
    assert found.mean.auroc.value < 0.8


def test_unknown_labels_are_left_out_and_rare_ones_skipped() -> None:
    z, labels = codes()
    held_out = hold_out(len(z), seed=0)
    labels[::2, 0] = torch.nan
    labels[:, 1] = 0
    found = linear_probes(z, labels, ("sign", "never"), held_out=held_out, seed=0, num_resamples=5)
    assert found.skipped == {"never": "0 positive in the training part, at least 2 needed"}
    assert found.by_name["sign"].num_scored == int(held_out[1::2].sum())
    with pytest.raises(ValueError, match="no attribute can be probed: never: 0 positive"):
        linear_probes(z, labels[:, 1:], ("never",), held_out=held_out, seed=0)


def test_the_seed_decides() -> None:
    assert torch.equal(hold_out(50, seed=1), hold_out(50, seed=1))
    assert not torch.equal(hold_out(50, seed=1), hold_out(50, seed=2))
    z, labels = codes(80)
    held_out = hold_out(80, seed=0)
    once, again = (
        linear_probes(z, labels, ("a", "b"), held_out=held_out, seed=4, num_resamples=5) for _ in range(2)
    )
    assert once == again


def test_shapes_that_disagree_are_refused() -> None:
    z, labels = codes(40)
    held_out = hold_out(40, seed=0)
    with pytest.raises(ValueError, match=r"labels must be \(40, 1\)"):
        linear_probes(z, labels, ("a",), held_out=held_out, seed=0)
    with pytest.raises(ValueError, match="names must differ"):
        linear_probes(z, labels, ("a", "a"), held_out=held_out, seed=0)
    with pytest.raises(ValueError, match=r"held_out must be \(40,\)"):
        linear_probes(z, labels, ("a", "b"), held_out=held_out[:-1], seed=0)
    with pytest.raises(ValueError, match="cannot be held out"):
        hold_out(1, seed=0)


def test_components_of_pixels_are_found_on_the_training_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(60, 3, 4, 4, generator=generator) * 0.1
    images[:, 0, 0, 0] += 5 * torch.randn(60, generator=generator)
    held_out = hold_out(60, seed=0)
    found = pixel_components(images, held_out=held_out, num_components=3, seed=0)
    assert found.shape == (60, 3) and found.dtype == torch.float32
    correlation = torch.corrcoef(torch.stack([found[:, 0], images[:, 0, 0, 0]]))[0, 1]
    assert abs(float(correlation)) > 0.99
    changed = torch.where(held_out.view(-1, 1, 1, 1), images * -3, images)
    again = pixel_components(changed, held_out=held_out, num_components=3, seed=0)
    torch.testing.assert_close(again[~held_out], found[~held_out])
    few = pixel_components(images[:10], held_out=held_out[:10], num_components=100, seed=0)
    assert few.shape[1] == int((~held_out[:10]).sum())
