r"""How close a reconstruction is: MSE, PSNR and SSIM of each image.

Images are (B, 3, H, W) in [-1, 1]; as in the papers' tables the figures are those of the images mapped
to [0, 1]. SSIM (Wang et al. 2004) is, with local Gaussian moments,

    SSIM = mean (2 mu_x mu_y + C1)(2 cov_xy + C2) / ((mu_x^2 + mu_y^2 + C1)(var_x + var_y + C2))

over pixels and channels; window 11, sigma 1.5, C1 = 0.01^2, C2 = 0.03^2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 11
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference of each pair, (B,), on the [0, 1] scale: 0 to 1."""
    x, y = _unit_pair(x, y)
    return (x - y).square().mean(dim=(1, 2, 3))


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair in dB, (B,), for a peak of 1; infinite for equal images."""
    return -10 * mse(x, y).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of each pair, (B,), at most 1.

    The window sees zeros beyond the border and every pixel counts, as in the implementation behind the
    papers' tables; so images smaller than the window have a value too. torchmetrics mirrors the image
    at the border instead and offers no choice: 0.7477 for a pair that scores 0.8385 here (32 px).
    """
    x, y = _unit_pair(x, y)
    mu_x, mu_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mu_x**2, _blur(y * y) - mu_y**2
    cov = _blur(x * y) - mu_x * mu_y
    luminance = (2 * mu_x * mu_y + C1) / (mu_x**2 + mu_y**2 + C1)
    structure = (2 * cov + C2) / (var_x + var_y + C2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def _unit_pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.ndim != 4 or x.shape != y.shape:
        raise ValueError(f"images to compare must share one shape (B, C, H, W): {x.shape}, {y.shape}")
    return (x.float() + 1) / 2, (y.float() + 1) / 2


def _blur(x: Tensor) -> Tensor:
    """Gaussian mean around each pixel, zeros beyond the border; the window is separable."""
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    taps = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    taps = (taps / taps.sum()).expand(x.shape[1], 1, WINDOW)
    down = F.conv2d(x, taps[..., :, None], padding=(WINDOW // 2, 0), groups=x.shape[1])
    return F.conv2d(down, taps[..., None, :], padding=(0, WINDOW // 2), groups=x.shape[1])
