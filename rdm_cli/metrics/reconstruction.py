r"""How close a reconstruction is: MSE, PSNR, SSIM and MS-SSIM of each image.

Images are (B, 3, H, W) in [-1, 1]; as in the papers' tables the figures are those of the images mapped
to [0, 1]. SSIM (Wang et al. 2004) is, with local Gaussian moments,

    SSIM = mean (2 mu_x mu_y + C1)(2 cov_xy + C2) / ((mu_x^2 + mu_y^2 + C1)(var_x + var_y + C2))

over pixels and channels; window 11, sigma 1.5, C1 = 0.01^2, C2 = 0.03^2. With l the first fraction of it and
cs the second, MS-SSIM (Wang et al. 2003, equation 7) is, the images halved M - 1 times,

    MS-SSIM = (mean l_M cs_M)^w_M  prod_{j < M} (mean cs_j)^w_j
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 11
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2
MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.2: of scales 1 to 5


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference of each pair, (B,), on the [0, 1] scale: 0 to 1."""
    x, y = _unit_pair(x, y)
    return (x - y).square().mean(dim=(1, 2, 3))


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair in dB, (B,), for a peak of 1; infinite for equal images."""
    return -10 * mse(x, y).log10()


def psnr_within(x: Tensor, y: Tensor, where: Tensor) -> Tensor:
    """PSNR of each pair over the pixels ``where``, bool (B, H, W), in dB: (B,); NaN where there are none."""
    x, y = _unit_pair(x, y)
    squared = (x - y).square().mean(dim=1)
    return -10 * ((squared * where).sum(dim=(1, 2)) / where.sum(dim=(1, 2))).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of each pair, (B,), at most 1.

    The window sees zeros beyond the border and every pixel counts, as in the implementation behind the
    papers' tables; so images smaller than the window have a value too. torchmetrics mirrors the image
    at the border instead and offers no choice: 0.7477 for a pair that scores 0.8385 here (32 px).
    """
    luminance, structure = _similarities(*_unit_pair(x, y), padding=WINDOW // 2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def num_scales(height: int, width: int) -> int:
    """How many scales MS-SSIM has on images of this many pixels: 0 (too small for one window) to 5.

    5 from 176 pixels a side, 4 from 88, 3 from 44, 2 from 22, 1 from 11.
    """
    side = min(height, width)
    return sum(side >> j >= WINDOW for j in range(len(MS_WEIGHTS)))


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Multi-scale structural similarity of each pair, (B,), 0 to 1.

    As in the paper, a window lies inside the image (no padding, unlike :func:`ssim`), images are halved by
    the mean of 2 x 2, and the mean of a scale runs over channels too. Where five scales do not fit, there
    are the :func:`num_scales` finest that do, their weights divided by their sum: three at 64 pixels. Such a
    figure compares with others of as many scales, so the number belongs beside it. A scale whose mean is
    negative counts as 0, since its power would not be real. Raises ValueError below 11 pixels a side.

    torchmetrics has one that differs: at its coarsest scale alone it mirrors the image beyond the border.
    """
    x, y = _unit_pair(x, y)
    scales = num_scales(x.shape[2], x.shape[3])
    if scales == 0:
        raise ValueError(f"MS-SSIM needs images of {WINDOW} pixels a side, not {tuple(x.shape[2:])}")
    weights = torch.tensor(MS_WEIGHTS[:scales], dtype=x.dtype, device=x.device)
    means = []
    for j in range(scales):
        luminance, structure = _similarities(x, y, padding=0)
        whole = luminance * structure if j == scales - 1 else structure
        means.append(whole.mean(dim=(1, 2, 3)).clamp(min=0))
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return (torch.stack(means, dim=1) ** (weights / weights.sum())).prod(dim=1)


def _similarities(x: Tensor, y: Tensor, *, padding: int) -> tuple[Tensor, Tensor]:
    """The two fractions of SSIM around each pixel, with ``padding`` zeros beyond the border."""
    mu_x, mu_y, square_x, square_y, product = (_blur(image, padding) for image in (x, y, x * x, y * y, x * y))
    luminance = (2 * mu_x * mu_y + C1) / (mu_x**2 + mu_y**2 + C1)
    structure = (2 * (product - mu_x * mu_y) + C2) / (square_x - mu_x**2 + square_y - mu_y**2 + C2)
    return luminance, structure


def _unit_pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.ndim != 4 or x.shape != y.shape:
        raise ValueError(f"images to compare must share one shape (B, C, H, W): {x.shape}, {y.shape}")
    return (x.float() + 1) / 2, (y.float() + 1) / 2


def _blur(x: Tensor, padding: int) -> Tensor:
    """Gaussian mean around each pixel, ``padding`` zeros beyond the border; the window is separable."""
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    taps = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    taps = (taps / taps.sum()).expand(x.shape[1], 1, WINDOW)
    down = F.conv2d(x, taps[..., :, None], padding=(padding, 0), groups=x.shape[1])
    return F.conv2d(down, taps[..., None, :], padding=(0, padding), groups=x.shape[1])
