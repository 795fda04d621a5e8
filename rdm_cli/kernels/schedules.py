r"""Noise schedules and the timesteps a sampler visits.

A diffusion of T steps is given by its betas; with alpha = 1 - beta,

    alpha_bar_t = prod_{s <= t} alpha_s,      x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps

(Ho et al. 2020, eq. 4). Tables are float64; they become float32 only where they meet an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

BetaKind = Literal["linear", "constant", "cosine", "scaled-linear", "sigmoid"]
Spacing = Literal["stride", "linspace", "ahead", "karras", "log-snr", "angle"]
MAX_COSINE_BETA = 0.999
MAX_TRAIN_STEPS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """T = ``num_train_steps`` betas: linear from ``beta_start`` to ``beta_end``, or all ``beta_start``.

    "scaled-linear" is linear in sqrt(beta), "sigmoid" follows a sigmoid from -6 to 6. "cosine" takes neither:
    alpha_bar follows cos^2 (Nichol & Dhariwal 2021, eq. 17), each beta at most .999. Raises ValueError for
    what is no schedule.
    """

    beta_kind: BetaKind = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    num_train_steps: int = 1000

    def __post_init__(self) -> None:
        if not 1 <= self.num_train_steps <= MAX_TRAIN_STEPS:
            raise ValueError(f"a schedule of {self.num_train_steps} steps, not of 1 to {MAX_TRAIN_STEPS}")
        if not (0 <= self.beta_start < 1 and 0 <= self.beta_end < 1):
            raise ValueError(f"betas from {self.beta_start} to {self.beta_end} do not lie between 0 and 1")

    def betas(self) -> Tensor:
        """The betas, float64 (T,)."""
        if self.beta_kind == "constant":
            return torch.full((self.num_train_steps,), self.beta_start, dtype=torch.float64)
        if self.beta_kind == "cosine":
            s = torch.arange(self.num_train_steps + 1, dtype=torch.float64) / self.num_train_steps
            signal = torch.cos((s + 0.008) / 1.008 * math.pi / 2).square()
            return (1 - signal[1:] / signal[:-1]).clamp(max=MAX_COSINE_BETA)
        start, end, num = self.beta_start, self.beta_end, self.num_train_steps
        if self.beta_kind == "scaled-linear":
            return torch.linspace(start**0.5, end**0.5, num, dtype=torch.float64).square()
        if self.beta_kind == "sigmoid":
            return torch.linspace(-6, 6, num, dtype=torch.float64).sigmoid() * (end - start) + start
        return torch.linspace(start, end, num, dtype=torch.float64)

    def alpha_bar(self) -> Tensor:
        """The products alpha_bar_t, float64 (T,)."""
        return torch.cumprod(1 - self.betas(), dim=0)


LINEAR = ScheduleConfig()
LATENT_CONSTANT = ScheduleConfig(beta_kind="constant", beta_start=0.008, beta_end=0.008)


def stride_timesteps(num_steps: int, num_train_steps: int = 1000) -> list[int]:
    """Diff-AE's ``num_steps`` timesteps, ascending: ``range(0, T, stride)``.

    The stride is the smallest integer that gives exactly ``num_steps``. Where none does, the steps
    are spread evenly, ``floor(i T / num_steps)``; a single step is the noisiest, T - 1.
    Raises ValueError outside 1..T.
    """
    if not 1 <= num_steps <= num_train_steps:
        raise ValueError(f"steps must lie between 1 and {num_train_steps}, not {num_steps}")
    if num_steps == 1:
        return [num_train_steps - 1]
    stride = -(-num_train_steps // num_steps)  # the smallest with at most num_steps steps
    steps = list(range(0, num_train_steps, stride))
    if len(steps) == num_steps:
        return steps
    return [i * num_train_steps // num_steps for i in range(num_steps)]


def linspace_timesteps(num_steps: int, num_train_steps: int = 1000) -> list[int]:
    """PDAE's timesteps, ascending: ``int(linspace(0, T - 1, num_steps + 1))``, between which N steps lead.

    Raises ValueError outside 1..T-1.
    """
    # in floating point, as the reference has it: at a few N some multiples fall just below an integer
    if not 1 <= num_steps < num_train_steps:
        raise ValueError(f"steps must lie between 1 and {num_train_steps - 1}, not {num_steps}")
    step = (num_train_steps - 1) / num_steps
    return [*(int(i * step) for i in range(num_steps)), num_train_steps - 1]


def full_linspace_timesteps(num_steps: int, num_train_steps: int = 1000) -> list[int]:
    """LRDM's ``num_steps`` timesteps, ascending, from 0 to T - 1; a single step is the noisiest, T - 1.

    Raises ValueError outside 1..T.
    """
    if not 1 <= num_steps <= num_train_steps:
        raise ValueError(f"steps must lie between 1 and {num_train_steps}, not {num_steps}")
    return [num_train_steps - 1] if num_steps == 1 else linspace_timesteps(num_steps - 1, num_train_steps)


class Leg(NamedTuple):
    """One step of a sampler: the network is asked at ``t``, x moves from ``alpha_bar`` to ``alpha_bar_to``.

    All are float64 scalars. ``alpha_bar_asked`` is that of ``t``, where x does not lie there; None: it does.
    """

    t: int
    alpha_bar: Tensor
    alpha_bar_to: Tensor
    alpha_bar_asked: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """The timesteps a sampler visits, ascending, and the signal they keep.

    ``t`` int64 (M,); ``alpha_bar`` float64 (M,). ``alpha_bar_prev`` ends a decode at 1 (no noise) and
    ``alpha_bar_next`` ends an encode at 0 (no signal): M steps. With ``within`` no step leads beyond the
    first and the last timestep, so that there are M - 1, and x_T is x at the last. With ``ahead`` decoding
    ends at 1, and encoding takes the image for x at the first timestep, leads to the last, and asks the
    network at each step about the timestep that it leads to (LRDM's "ddim_encode").
    """

    t: Tensor
    alpha_bar: Tensor
    within: bool = False
    ahead: bool = False

    def decoding(self) -> list[Leg]:
        """The steps towards x_0, in order."""
        legs = [
            Leg(int(t), ab, to) for t, ab, to in zip(self.t, self.alpha_bar, self.alpha_bar_prev, strict=True)
        ]
        return legs[::-1][: len(self)]

    def encoding(self) -> list[Leg]:
        """The steps towards x_T, in order."""
        if self.ahead:
            ahead = zip(self.t[1:], self.alpha_bar, self.alpha_bar[1:], strict=False)
            return [Leg(int(t), ab, to, to) for t, ab, to in ahead]
        legs = [
            Leg(int(t), ab, to) for t, ab, to in zip(self.t, self.alpha_bar, self.alpha_bar_next, strict=True)
        ]
        return legs[: len(self)]

    @property
    def alpha_bar_prev(self) -> Tensor:
        """alpha_bar one step cleaner, (N,)."""
        return torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar[:-1]])

    @property
    def alpha_bar_next(self) -> Tensor:
        """alpha_bar one step noisier, (N,)."""
        return torch.cat([self.alpha_bar[1:], self.alpha_bar.new_zeros(1)])

    @property
    def betas(self) -> Tensor:
        """The betas of the respaced chain: 1 - alpha_bar / alpha_bar_prev, (N,)."""
        return 1 - self.alpha_bar / self.alpha_bar_prev

    def __len__(self) -> int:
        """Number of steps of a decode."""
        return len(self.t) - self.within


def respace(
    schedule: ScheduleConfig, timesteps: Sequence[int], *, within: bool = False, ahead: bool = False
) -> Trajectory:
    """The part of ``schedule`` that visits ``timesteps`` (ascending, each in 0..T-1)."""
    t = torch.tensor(list(timesteps), dtype=torch.int64)
    if len(t) == 0 or t[0] < 0 or t[-1] >= schedule.num_train_steps or (t.diff() <= 0).any():
        raise ValueError("timesteps must ascend strictly and lie in 0..T-1")
    return Trajectory(t=t, alpha_bar=schedule.alpha_bar()[t], within=within, ahead=ahead)
