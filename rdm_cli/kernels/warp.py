r"""Random thin-plate-spline warps of images (Bookstein 1989), as LRDM's style/shape variant uses them.

Control points lie on a g x g grid over [-1, 1]^2 and move to random places near by. The spline that takes
the grid to them,

    f(p) = A p + b + sum_i w_i U(|p - c_i|^2),    U(d^2) = d^2 log d^2,

says for every pixel of the result where in the image it is looked up.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from rdm_cli.kernels.float64 import back_like, in_float64


def control_points(grid_size: int) -> Tensor:
    """The grid's points as (x, y), column by column: float64 (g^2, 2) over [-1, 1]."""
    axis = torch.linspace(-1, 1, grid_size, dtype=torch.float64)
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def moved(uniform: Tensor, grid_size: int, strength: float) -> Tensor:
    """Where the control points move to: ``uniform`` (B, g^2, 2) in (-1, 1) to (B, g^2, 2) in [-1, 1].

    A coordinate on the border stays there, so the warped image fills its frame.
    """
    uniform = in_float64(uniform)
    points = control_points(grid_size).to(uniform.device)
    free = points.abs() < 1
    return (points + free * uniform * strength / grid_size).clamp(-1, 1)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    squared = (a[:, None] - b[None]).square().sum(dim=-1)
    squared = torch.where(squared == 0, 1.0, squared)  # where the logarithm is 0, as the limit is
    return squared * squared.log()


@lru_cache(maxsize=8)
def _basis(grid_size: int, height: int, width: int) -> Tensor:
    """What multiplies the moved control points to give every pixel's place: float64 (H W, g^2)."""
    points = control_points(grid_size)
    n = len(points)
    system = torch.zeros(n + 3, n + 3, dtype=torch.float64)
    system[:n, :n] = _kernel(points, points)
    system[:n, n:] = torch.cat([torch.ones(n, 1, dtype=torch.float64), points], dim=1)
    system[n:, :n] = system[:n, n:].T
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height, dtype=torch.float64),
        torch.linspace(-1, 1, width, dtype=torch.float64),
        indexing="ij",
    )
    pixels = torch.stack([x, y], dim=-1).reshape(-1, 2)
    values = torch.cat(
        [_kernel(pixels, points), torch.ones(len(pixels), 1, dtype=torch.float64), pixels], dim=1
    )
    return values @ torch.linalg.inv(system)[:, :n]


def tps_warp(images: Tensor, places: Tensor) -> Tensor:
    """Warp ``images`` (B, C, H, W) by the control points' ``places`` (B, g^2, 2); see :func:`moved`.

    Pixels are looked up bilinearly, with corners aligned; what lies outside of an image is 0.
    """
    grid_size = round(places.shape[1] ** 0.5)
    height, width = images.shape[2:]
    places = in_float64(places)
    grid = _basis(grid_size, height, width).to(places.device) @ places
    grid = back_like(grid.reshape(-1, height, width, 2), images)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
