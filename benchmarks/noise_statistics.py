"""How much an inferred x_T is like noise: whether it can be edited and mixed as noise can.

Of N(0, I) the mean is 0, the standard deviation 1 and neighbouring values are uncorrelated. An x_T that still
holds its image is weak and has like neighbours; one that an unstable solver blew up is neither.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from rdm_cli.kernels.float64 import in_float64


class NoiseStatistics(NamedTuple):
    """Of each map of a batch, float64 (B,): over all its values; correlations of neighbours from -1 to 1.

    For N(0, I) of n values each of them has a standard error of about 1 / sqrt(n): 0.009 at 3 x 64 x 64.
    """

    mean: Tensor
    std: Tensor
    horizontal: Tensor
    vertical: Tensor


def noise_statistics(x_T: Tensor) -> NoiseStatistics:
    """Mean, standard deviation and lag-1 correlations of ``x_T`` (B, C, H, W), H and W at least 2.

    A correlation is the mean product of neighbours' deviations from the map's mean, over its variance; NaN
    where all values agree. Raises ValueError for another shape.
    """
    if x_T.ndim != 4 or min(x_T.shape[-2:]) < 2:
        raise ValueError(f"noise maps are (B, C, H, W) of at least 2 x 2 values, not {tuple(x_T.shape)}")
    x = in_float64(x_T)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    deviation = x - mean
    variance = deviation.square().mean(dim=(1, 2, 3))
    horizontal = (deviation[..., 1:] * deviation[..., :-1]).mean(dim=(1, 2, 3)) / variance
    vertical = (deviation[..., 1:, :] * deviation[..., :-1, :]).mean(dim=(1, 2, 3)) / variance
    return NoiseStatistics(mean.flatten(), variance.sqrt(), horizontal, vertical)
