r"""The inverse of DDIM's decoding step: the x_t from which an ordinary decode finds back to the image.

Decoding's step from y at timestep t_k to x is x = (y - c eps(y, t_k)) / r, so its inverse solves

    y = f(y) = r x + c eps(y, t_k),     r = sqrt(ab_k / ab_to),   c = sqrt(1 - ab_k) - r sqrt(1 - ab_to)

without clamping, which has no inverse (implicit inversion: Pan et al. 2023, arXiv 2309.04907; Meiri et al.
2023, arXiv 2312.12540). The published way up takes eps(x) for eps(y). What is left of the residual f(y) - y
is what decoding will miss: it lands at x - (f(y) - y) / r.

Iterating y <- f(y) is slow or diverges where the denoiser is steep, so iterates are mixed (Anderson 1965;
Walker & Ni 2011, eq. 2.2), each image by itself: from the iterate y_b of least residual so far,

    y = f(y_b) - sum_j gamma_j (f(y_b) - f(y_j)),   gamma = argmin |d_b - sum_j gamma_j (d_b - d_j)|,   d =
    f(y) - y

over the few latest others y_j. An iterate whose residual rose is never returned, but it still serves as y_j:
it tells how f bends there. Arithmetic is float64; the network is asked in the precision of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rdm_cli.kernels.ddim import eps_coefficients, timestep
from rdm_cli.kernels.float64 import back_like, in_float64
from rdm_cli.kernels.parameterization import per_item
from rdm_cli.kernels.spec import EpsFn, SamplingSpec


def fixed_point_encode(
    eps_fn: EpsFn,
    x_0: Tensor,
    spec: SamplingSpec,
    num_steps: int | None = None,
    *,
    num_iterations: int = 3,
    memory: int = 2,
) -> Iterator[Tensor]:
    """Yield x_t after each step from ``x_0`` (B, ...) in [-1, 1]; the last is x_T. All in x_0's dtype.

    ``ddim_decode`` of x_T with the same number of steps and ``clip_x_0`` False gives x_0 again, the better
    the more ``num_iterations``: that many network calls a step. ``memory`` is how many earlier iterates are
    mixed, 0 for plain iteration. x_T lies at the trajectory's last timestep, where a decode starts. Raises
    ValueError for less than one iteration or a negative memory.
    """
    if num_iterations < 1 or memory < 0:
        raise ValueError(f"no iteration: num_iterations={num_iterations}, memory={memory}")
    x_t = in_float64(x_0)
    eps: Tensor | None = None  # of the step before: the first guess of the next
    for leg in reversed(spec.trajectory(num_steps).decoding()):
        r, c = eps_coefficients(leg.alpha_bar_to, leg.alpha_bar)
        t = timestep(leg.t, x_0)
        base = r * x_t

        def f(y: Tensor, base: Tensor = base, c: float = c, t: Tensor = t) -> Tensor:
            return base + c * in_float64(eps_fn(back_like(y, x_0), t))

        start = x_t if eps is None else base + c * eps
        x_t = solve(f, start, num_iterations, memory)
        eps = (x_t - base) / c
        yield back_like(x_t, x_0)


@dataclass(frozen=True)
class Iterate:
    """A point ``y`` (B, ...), ``f_y`` there, and the norm of its residual (B,)."""

    y: Tensor
    f_y: Tensor
    norm: Tensor

    @property
    def residual(self) -> Tensor:
        """f(y) - y, (B, ...)."""
        return self.f_y - self.y


def solve(f: Callable[[Tensor], Tensor], start: Tensor, num_calls: int, memory: int) -> Tensor:
    """A y (B, ...) near which f(y) = y, from ``num_calls`` of ``f``; each item by itself.

    The end is one mixing step beyond the best iterate for those items whose last iterate fell, and the best
    iterate for the others.
    """
    best = _evaluate(f, start)
    others: list[Iterate] = []
    fell = torch.ones_like(best.norm, dtype=torch.bool)
    for _ in range(num_calls - 1):
        new = _evaluate(f, _mixed(best, others))
        fell = new.norm < best.norm
        best, other = _choose(fell, new, best), _choose(fell, best, new)
        others = [other, *others][:memory]
    return torch.where(per_item(fell, start).bool(), _mixed(best, others), best.y)


def _evaluate(f: Callable[[Tensor], Tensor], y: Tensor) -> Iterate:
    f_y = f(y)
    return Iterate(y, f_y, (f_y - y).flatten(1).norm(dim=1))


def _choose(first: Tensor, a: Iterate, b: Iterate) -> Iterate:
    """``a`` for the items where ``first`` (B,), ``b`` for the others."""
    mask = per_item(first, a.y).bool()
    return Iterate(
        torch.where(mask, a.y, b.y), torch.where(mask, a.f_y, b.f_y), torch.where(first, a.norm, b.norm)
    )


def _mixed(best: Iterate, others: list[Iterate]) -> Tensor:
    """The next iterate by Anderson's mixing of ``best`` with ``others``; plain f(y) where there are none."""
    if not others:
        return best.f_y
    slopes = torch.stack([(best.residual - o.residual).flatten(1) for o in others], dim=2)  # (B, D, m)
    gram = slopes.mT @ slopes
    # two iterates that agree would make the system singular; a ridge far below what float32 resolves does not
    ridge = 1e-10 * gram.diagonal(dim1=1, dim2=2).mean(dim=1) + torch.finfo(gram.dtype).tiny
    gram = gram + ridge[:, None, None] * torch.eye(len(others), dtype=gram.dtype, device=gram.device)
    gamma = torch.linalg.solve(gram, slopes.mT @ best.residual.flatten(1)[:, :, None])  # (B, m, 1)
    steps = torch.stack([(best.f_y - o.f_y).flatten(1) for o in others], dim=2)
    return best.f_y - (steps @ gamma).reshape(best.f_y.shape)
