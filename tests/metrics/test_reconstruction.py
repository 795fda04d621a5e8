"""MSE, PSNR, SSIM and MS-SSIM against the authors' values, scipy, scikit-image and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from rdm_cli.metrics.reconstruction import C1, C2, MS_WEIGHTS, ms_ssim, mse, num_scales, psnr, ssim


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
    torch.testing.assert_close(ms_ssim(x, x), torch.ones(2))


def noisy_pair(*size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two pairs (2, 3, *size): one near, one far."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, *size, generator=generator) * 2 - 1
    noise = torch.randn(x.shape, generator=generator) * torch.tensor([0.1, 0.6]).view(2, 1, 1, 1)
    return x, (x + noise).clamp(-1, 1)


@pytest.mark.parametrize("size", [(24, 40), (7, 9), (1, 1)])
def test_ssim_against_scipy_also_below_the_window(size: tuple[int, int]) -> None:
    x, y = noisy_pair(*size)

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


@pytest.mark.parametrize("size", [(11, 11), (21, 30)])
def test_ms_ssim_of_one_scale_is_scikit_image_s_ssim(size: tuple[int, int]) -> None:
    """Which leaves out the pixels whose window would leave the image."""
    x, y = noisy_pair(*size)
    expected = [
        structural_similarity(
            (a.double().numpy() + 1) / 2,
            (b.double().numpy() + 1) / 2,
            data_range=1,
            channel_axis=0,
            gaussian_weights=True,
            use_sample_covariance=False,
        )
        for a, b in zip(x, y, strict=True)
    ]
    torch.testing.assert_close(ms_ssim(x, y), torch.tensor(expected).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "scales"), [((64, 64), 3), ((44, 97), 3), ((176, 177), 5)])
def test_ms_ssim_against_scipy(size: tuple[int, int], scales: int) -> None:
    x, y = noisy_pair(*size)
    a, b = ((image.double().numpy() + 1) / 2 for image in (x, y))
    assert num_scales(*size) == scales
    expected = np.ones(2)
    for j, weight in enumerate(MS_WEIGHTS[:scales]):

        def blur(image: np.ndarray) -> np.ndarray:
            return gaussian_filter(image, 1.5, truncate=3.5, axes=(2, 3))[..., 5:-5, 5:-5]

        mu_a, mu_b = blur(a), blur(b)
        spread = blur(a * a) - mu_a**2 + blur(b * b) - mu_b**2
        values = (2 * (blur(a * b) - mu_a * mu_b) + C2) / (spread + C2)
        if j == scales - 1:
            values *= (2 * mu_a * mu_b + C1) / (mu_a**2 + mu_b**2 + C1)
        expected *= values.mean(axis=(1, 2, 3)) ** (weight / sum(MS_WEIGHTS[:scales]))
        rows, columns = a.shape[2] // 2, a.shape[3] // 2
        a, b = (
            image[..., : 2 * rows, : 2 * columns].reshape(2, 3, rows, 2, columns, 2).mean(axis=(3, 5))
            for image in (a, b)
        )
    torch.testing.assert_close(ms_ssim(x, y), torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-4)


def test_scales_by_size() -> None:
    sizes = (10, 11, 21, 22, 43, 44, 87, 88, 175, 176, 1024)
    assert [num_scales(side, 2 * side) for side in sizes] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    with pytest.raises(ValueError, match="needs images of 11 pixels"):
        ms_ssim(torch.zeros(1, 3, 10, 64), torch.zeros(1, 3, 10, 64))


def test_an_inverted_image_scores_nothing() -> None:
    """Its contrasts are negative, and a negative number has no real root."""
    x, _ = noisy_pair(64, 64)
    assert torch.equal(ms_ssim(x, -x), torch.zeros(2))


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match="share one shape"):
        mse(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))
