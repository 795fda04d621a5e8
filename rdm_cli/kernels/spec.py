"""The kernels' two contracts: the denoiser, and how a paper samples with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from rdm_cli.kernels.schedules import (
    LINEAR,
    ScheduleConfig,
    Spacing,
    Trajectory,
    full_linspace_timesteps,
    linspace_timesteps,
    respace,
    stride_timesteps,
)
from rdm_cli.kernels.spacing import even_timesteps

Variance = Literal["posterior", "beta"]
EpsFn = Callable[[Tensor, Tensor], Tensor]
"""(x_t (B, C, H, W), t (B,) int64) -> eps (B, C, H, W)."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How x_T becomes x_0, or x_0 becomes x_T: by which ``solver`` of the registry, on which timesteps.

    ``spacing`` None is the solver's own or, where it has none, the method's; ``steps`` None is the solver's
    own number or, where it has none, the spec's. ``iterations`` are the network calls of a step that solves
    an equation, None being the solver's own number, and for a solver that solves none. ``stop_shift`` is the
    last fraction of a decode's steps in which PDAE's shift is left out.
    """

    solver: str = "ddim"
    spacing: Spacing | None = None
    steps: int | None = None
    iterations: int | None = None
    stop_shift: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SamplingSpec:
    """How a method samples; stored in its bundle, handed to the kernels whole.

    ``clip_x_0``: clamp the predicted x_0 to [-1, 1] and re-derive eps from it, in both directions.
    ``spacing``: which timesteps N steps are; Diff-AE's "stride" leads from alpha_bar 1 to 0, PDAE's
    "linspace" from timestep 0 to T - 1; LRDM's "ahead" from T - 1 to alpha_bar 1, and back from timestep 0 to
    T - 1; "karras", "log-snr" and "angle" are even in a measure of the noise (``kernels/spacing.py``), from
    timestep T - 1 to timestep 0 and on to alpha_bar 1. ``steps``: N where the user names none. ``variance``
    is that of the ancestral sampler's steps. ``sampler`` is for what was drawn: codes that were inferred keep
    to how they were. ``inverter`` is how x_T is inferred where the user names no inversion.
    """

    schedule: ScheduleConfig = field(default=LINEAR)
    spacing: Spacing = "stride"
    clip_x_0: bool = True
    steps: int = 100
    variance: Variance = "posterior"
    sampler: Sampling = field(default=Sampling())
    inverter: Sampling = field(default=Sampling())

    @property
    def max_steps(self) -> int:
        """The most steps that a trajectory can have."""
        return self.schedule.num_train_steps - (self.spacing == "linspace")

    def spaced(self, spacing: Spacing) -> SamplingSpec:
        """The same with other timesteps."""
        return replace(self, spacing=spacing)

    def stop_below(self, fraction: float, num_steps: int | None = None) -> int:
        """The timestep below which the last ``fraction`` of a decode's steps lie (PDAE's stop_percent)."""
        legs = self.trajectory(num_steps).decoding()
        num_last = int(fraction * len(legs))
        return legs[len(legs) - num_last].t + 1 if num_last else 0

    def trajectory(self, num_steps: int | None = None) -> Trajectory:
        """The trajectory of ``num_steps`` steps (None: the spec's own number)."""
        n = self.steps if num_steps is None else num_steps
        num_train_steps = self.schedule.num_train_steps
        if self.spacing == "linspace":
            return respace(self.schedule, linspace_timesteps(n, num_train_steps), within=True)
        if self.spacing == "ahead":
            return respace(self.schedule, full_linspace_timesteps(n, num_train_steps), ahead=True)
        if self.spacing == "stride":
            return respace(self.schedule, stride_timesteps(n, num_train_steps))
        return respace(self.schedule, even_timesteps(self.schedule.alpha_bar(), n, self.spacing))
