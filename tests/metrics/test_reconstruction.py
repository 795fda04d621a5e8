"""MSE, PSNR and SSIM against the authors' values, scipy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter

from rdm_cli.metrics.reconstruction import C1, C2, mse, psnr, ssim


@pytest.mark.golden
def test_golden_metrics(golden) -> None:
    tensors = load_file(golden("diffae") / "golden.safetensors")
    x, y = tensors["x"], tensors["ddim_decode.img01.T20"] * 2 - 1
    # float32 sums over 3072 values, in another order than the authors'.
    torch.testing.assert_close(mse(x, y), tensors["metric.mse"], rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(psnr(x, y), tensors["metric.psnr"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ssim(x, y), tensors["metric.ssim"], rtol=1e-5, atol=1e-5)


def test_mse_and_psnr_of_a_constant_difference() -> None:
    x = torch.zeros(2, 3, 8, 8)
    y = torch.stack([torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 2.0)])
    torch.testing.assert_close(mse(x, y), torch.tensor([0.01, 1.0]))
    torch.testing.assert_close(psnr(x, y), torch.tensor([20.0, 0.0]))


def test_equal_images() -> None:
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    assert torch.equal(mse(x, x), torch.zeros(2))
    assert psnr(x, x).tolist() == [math.inf, math.inf]
    torch.testing.assert_close(ssim(x, x), torch.ones(2))


@pytest.mark.parametrize("size", [(24, 40), (7, 9), (1, 1)])
def test_ssim_against_scipy_also_below_the_window(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, *size, generator=generator) * 2 - 1
    y = (x + 0.3 * torch.randn(x.shape, generator=generator)).clamp(-1, 1)

    def blur(image: np.ndarray) -> np.ndarray:
        # radius 5: the eleven-pixel window
        return gaussian_filter(image, 1.5, mode="constant", truncate=3.5, axes=(2, 3))

    a, b = ((image.double().numpy() + 1) / 2 for image in (x, y))
    mu_a, mu_b = blur(a), blur(b)
    covariance = blur(a * b) - mu_a * mu_b
    variances = blur(a * a) - mu_a**2 + blur(b * b) - mu_b**2
    values = (2 * mu_a * mu_b + C1) * (2 * covariance + C2) / ((mu_a**2 + mu_b**2 + C1) * (variances + C2))
    expected = torch.from_numpy(values.mean(axis=(1, 2, 3))).float()
    # float32 variances are differences of numbers near 1: 1e-7 against C2 = 9e-4.
    torch.testing.assert_close(ssim(x, y), expected, rtol=1e-4, atol=1e-4)


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match="share one shape"):
        mse(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))
