"""Denoisers in closed form, and draws, for the tests of solvers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rdm_cli.kernels.parameterization import per_item
from rdm_cli.kernels.schedules import LINEAR, ScheduleConfig
from rdm_cli.kernels.spec import EpsFn

Draw = Callable[..., Tensor]


class Counted:
    """A denoiser that counts how often it was asked, and about what."""

    def __init__(self, eps_fn: EpsFn) -> None:
        self.eps_fn = eps_fn
        self.timesteps: list[int] = []

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        assert t.dtype == torch.int64 and t.shape == x_t.shape[:1]
        self.timesteps.append(int(t[0]))
        return self.eps_fn(x_t, t)

    @property
    def calls(self) -> int:
        return len(self.timesteps)


@pytest.fixture
def counted() -> type[Counted]:
    return Counted


@pytest.fixture
def draw() -> Draw:
    """Standard normal float64 values: ``draw(seed, *shape)``."""

    def drawn(seed: int, *shape: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    return drawn


@pytest.fixture
def gaussian() -> Callable[..., EpsFn]:
    """``gaussian(std, schedule)``: eps of images that are N(0, std^2), sqrt(1 - ab) x_t / (ab std^2 + 1 -
    ab)."""

    def denoiser(std: float, schedule: ScheduleConfig = LINEAR) -> EpsFn:
        table = schedule.alpha_bar()

        def eps_fn(x_t: Tensor, t: Tensor) -> Tensor:
            ab = per_item(table[t], x_t)
            return (1 - ab).sqrt() * x_t / (ab * std**2 + 1 - ab)

        return eps_fn

    return denoiser


@pytest.fixture
def mixture(draw: Draw) -> Callable[..., EpsFn]:
    """``mixture(shape, std, schedule)``: eps of four pictures of ``shape``, each blurred by N(0, std^2).

    With v = ab std^2 + 1 - ab: sqrt(1 - ab) (x_t - sqrt(ab) E[picture | x_t]) / v. Some values of the
    pictures lie outside [-1, 1], so that clamping matters.
    """

    def denoiser(shape: tuple[int, ...], std: float = 0.1, schedule: ScheduleConfig = LINEAR) -> EpsFn:
        table = schedule.alpha_bar()
        pictures = 0.6 * draw(99, 4, *shape)

        def eps_fn(x_t: Tensor, t: Tensor) -> Tensor:
            ab, known = per_item(table[t], x_t), pictures.to(x_t.dtype)
            v = ab * std**2 + 1 - ab
            distances = (x_t[:, None] - ab.sqrt()[:, None] * known).square().flatten(2).sum(dim=2)
            weights = (-distances / (2 * v.flatten(1))).softmax(dim=1)
            mean = torch.einsum("bk,k...->b...", weights, known)
            return (1 - ab).sqrt() * (x_t - ab.sqrt() * mean) / v

        return eps_fn

    return denoiser
