"""What every diffusion model offers the core unless its method says otherwise.

It diffuses images as they are, one z serves all timesteps, and nothing else conditions it. A method
gives ``encode`` and ``denoiser``; what follows from these is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rdm_cli.kernels.float64 import Table
from rdm_cli.kernels.parameterization import Prediction, per_item, to_eps
from rdm_cli.kernels.spec import EpsFn, SamplingSpec
from rdm_cli.methods.conditions import NOTHING, Conditions, ConditionSpec


class Diffusion(Protocol):
    """What every such model's config says, besides what is the method's own."""

    @property
    def prediction(self) -> Prediction:
        """What the network predicts."""
        ...

    @property
    def sampling(self) -> SamplingSpec:
        """How the method samples."""
        ...


class DiffusionModel(nn.Module, ABC):
    """A schedule, what the network predicts on it, and how it is asked."""

    config: Any

    def __init__(self, config: Diffusion) -> None:
        super().__init__()
        self.config = config
        self.alpha_bar = Table(config.sampling.schedule.alpha_bar())

    @property
    def sampling(self) -> SamplingSpec:
        """How the reference, or the preset, samples."""
        return self.config.sampling

    @property
    def prediction(self) -> Prediction:
        """What the network predicts."""
        return self.config.prediction

    @property
    def stop_shift(self) -> float | None:
        """The last fraction of a sample's steps without PDAE's shift; None: there is no shift."""
        return None

    @property
    def conditions(self) -> tuple[ConditionSpec, ...]:
        """z alone."""
        return ()

    @property
    def time_dependent(self) -> bool:
        """One z serves all timesteps."""
        return False

    def training_conditions(self, x_0: Tensor) -> dict[str, Tensor]:
        """Nothing besides."""
        return {}

    @property
    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """eps alone."""
        return {}

    def enter(self, x_0: Tensor) -> Tensor:
        """Images as they are."""
        return x_0

    def leave(self, x: Tensor) -> Tensor:
        """As it is."""
        return x

    def as_eps(self, answer: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The network's ``answer`` at ``x_t`` and ``t`` (B,) as eps, in x_t's precision."""
        return to_eps(self.prediction, answer.to(x_t.dtype), x_t, self.alpha_bar[t])

    @abstractmethod
    def encode(
        self, x_0: Tensor, given: Conditions = NOTHING, *, timesteps: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """``x_0`` (B, *x_T_shape) to all that :meth:`denoiser` takes; a method's own."""

    @abstractmethod
    def denoiser(self, conditions: Conditions, *, timesteps: Sequence[int] | None = None) -> EpsFn:
        """eps(x_t, t) under ``conditions``, z (B, *z_shape) among them; a method's own."""

    def one_step(self, x_t: Tensor, t: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """eps at ``x_t``, under the name of what predicts it; PDAE has two answers, without and with z."""
        denoise = self.denoiser(conditions, timesteps=t[:1].tolist())
        return {"with z" if conditions["z"].numel() else "without z": denoise(x_t, t)}

    def path_denoiser(
        self,
        first: Conditions,
        second: Conditions,
        weight: Tensor,
        *,
        timesteps: Sequence[int] | None = None,
    ) -> EpsFn:
        """eps(x_t, t) on the way between two codes: at each step, the lerp of their two answers.

        ``weight`` (B,) from 0 (the first) to 1. PDAE calls this a trajectory.
        """
        start, end = (self.denoiser(conditions, timesteps=timesteps) for conditions in (first, second))
        return between(start, end, weight)


def between(first: EpsFn, second: EpsFn, weight: Tensor) -> EpsFn:
    """The lerp of two denoisers' answers, ``weight`` (B,) of the way from the first to the second."""

    def eps_fn(x_t: Tensor, t: Tensor) -> Tensor:
        return torch.lerp(first(x_t, t), second(x_t, t), per_item(weight, x_t))

    return eps_fn
