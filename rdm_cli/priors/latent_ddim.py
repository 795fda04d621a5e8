r"""The latent DDIM: a diffusion over standardised codes (Diff-AE, arXiv 2111.15640, section 4).

    z_n = (z - z_mean) / z_std,    z_t = sqrt(ab_t) z_n + sqrt(1 - ab_t) eps
    L   = E || eps(z_t, t) - eps ||_1 / d                 as published, where the network predicts eps
    L   = E || v(z_t, t, a) - v ||^2 / d                  where it predicts v

Codes are drawn by DDIM at eta = 0, or another solver of the same flow. They have no natural range, so the
predicted z_0 is not clamped.

A network may have been told attributes a: of each code some, of one in ten none. Then codes are drawn with
what is wanted of them, and :meth:`LatentDDIM.invert` finds the noise of a code under what is known of it:
that noise holds what the attributes do not say. Drawn from it with other attributes, the code is the one
that it would be if these held, as far as the prior knows (abduction, action, prediction: Pearl; Sanchez &
Tsaftaris 2022, arXiv 2202.10166).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rdm_cli.errors import UsageError, setting
from rdm_cli.kernels.ddim import last
from rdm_cli.kernels.fixed_point import fixed_point_encode
from rdm_cli.kernels.float64 import Table
from rdm_cli.kernels.parameterization import Prediction, add_noise, to_eps, training_target
from rdm_cli.kernels.schedules import LATENT_CONSTANT, ScheduleConfig, Spacing
from rdm_cli.kernels.solvers import FIXED_POINT, Solver
from rdm_cli.kernels.spec import EpsFn, SamplingSpec
from rdm_cli.models.latent_mlp import LatentMLP, LatentMLPConfig
from rdm_cli.models.residual_mlp import ResidualMLP, ResidualMLPConfig
from rdm_cli.registry import SOLVERS, load, nearest

Wanted = Mapping[str, bool | Tensor]
"""Attributes by name: yes or no for all codes, or (N,) of 1, 0 and, where nothing is said, NaN."""

INVERSION_STEPS = 20
INVERSION_CALLS = 10  # of the network, in each step of an inversion


@dataclass(frozen=True, kw_only=True)
class LatentDDIMConfig:
    """A latent DDIM; ``solver`` and ``steps`` are those by which it is drawn where the user names none.

    ``spacing`` says which steps DDIM's are; other solvers have their own. ``attributes`` are those that the
    network can be told, in its order. Raises ValueError for attributes that a network cannot be told.
    """

    network: LatentMLPConfig | ResidualMLPConfig
    schedule: ScheduleConfig = LATENT_CONSTANT
    steps: int = 100
    spacing: Spacing = "stride"
    solver: str = "ddim"
    prediction: Prediction = "eps"
    attributes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.attributes)) != len(self.attributes):
            raise ValueError(f"an attribute is named twice: {', '.join(self.attributes)}")
        if self.attributes and isinstance(self.network, LatentMLPConfig):
            raise ValueError("a LatentMLP cannot be told attributes")

    @property
    def sampling(self) -> SamplingSpec:
        """How codes are drawn: without clamping."""
        return SamplingSpec(schedule=self.schedule, spacing=self.spacing, clip_x_0=False, steps=self.steps)


class LatentDDIM(nn.Module):
    """The prior over codes z (B, d); ``forward`` is the loss. ``z_mean`` and ``z_std`` travel with it."""

    z_mean: Tensor
    z_std: Tensor

    def __init__(self, config: LatentDDIMConfig) -> None:
        super().__init__()
        self.config = config
        network = config.network
        self.network: nn.Module = (
            LatentMLP(network)
            if isinstance(network, LatentMLPConfig)
            else ResidualMLP(network, len(config.attributes))
        )
        self.register_buffer("z_mean", torch.zeros(self.z_width))
        self.register_buffer("z_std", torch.ones(self.z_width))
        self.alpha_bar = Table(config.schedule.alpha_bar())

    @property
    def z_width(self) -> int:
        """Number of values in a code, d."""
        return self.config.network.z_width

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the K attributes that it can be told."""
        return self.config.attributes

    def normalise(self, z: Tensor) -> Tensor:
        """Codes ``z`` (B, d) with the training codes' mean and std taken out."""
        return (z - self.z_mean) / self.z_std

    def denormalise(self, z_normalised: Tensor) -> Tensor:
        """The codes (B, d) that :meth:`normalise` turns into ``z_normalised``."""
        return z_normalised * self.z_std + self.z_mean

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        num_steps: int | None = None,
        solver: str | None = None,
        *,
        wanted: Wanted | None = None,
    ) -> Tensor:
        """Turn standard normal ``noise`` (N, d) into codes z (N, d), not standardised.

        ``num_steps`` and ``solver`` None take the configuration's; ``wanted`` are attributes that the codes
        are to have or to lack. Raises ValueError for noise of another width, UsageError for an unknown
        solver, for steps that its schedule has not, and for attributes that the prior does not know.
        """
        self._check_width(noise, "noise")
        chosen: Solver = load(SOLVERS, "solver", solver or self.config.solver)
        spec, num = self._way(chosen, self.config.steps if num_steps is None else num_steps)
        path = chosen.decode(self._eps_fn(self.said(wanted, noise)), noise, spec, num)
        return self.denormalise(last(path))

    @torch.no_grad()
    def invert(self, z: Tensor, num_steps: int = INVERSION_STEPS, *, known: Wanted | None = None) -> Tensor:
        """The noise (N, d) that :meth:`sample` turns into codes ``z`` (N, d), not standardised.

        In as many steps, by the solver "fixed-point", and with the same attributes ``wanted`` as are
        ``known`` here. Raises what :meth:`sample` does.
        """
        self._check_width(z, "z")
        spec, num = self._way(FIXED_POINT, num_steps)
        eps_fn, z_0 = self._eps_fn(self.said(known, z)), self.normalise(z)
        return last(fixed_point_encode(eps_fn, z_0, spec, num, num_iterations=INVERSION_CALLS))

    def said(self, wanted: Wanted | None, like: Tensor) -> Tensor | None:
        """``wanted`` of N codes ``like`` (N, d) as the network is told: (N, K) of 1, -1 and 0; None: nothing.

        Raises UsageError for attributes that the prior does not know.
        """
        if not wanted:
            return None
        said = like.new_zeros(len(like), len(self.attributes))
        for name, value in wanted.items():
            if name not in self.attributes:
                raise UsageError(
                    f"the prior knows no attribute {name!r}",
                    hint=nearest(name, self.attributes)
                    if self.attributes
                    else "it was trained without labels",
                )
            answer = torch.as_tensor(value, dtype=like.dtype, device=like.device)
            said[:, self.attributes.index(name)] = (2 * answer - 1).nan_to_num(0.0)
        return said

    def _check_width(self, values: Tensor, what: str) -> None:
        if values.ndim != 2 or values.shape[1] != self.z_width:
            raise ValueError(f"{what} must be (N, {self.z_width}), not {tuple(values.shape)}")

    def _way(self, solver: Solver, num_steps: int) -> tuple[SamplingSpec, int]:
        """How ``solver`` goes; UsageError where it does not go in so many steps."""
        spec = solver.spec(self.config.sampling)
        least = 2 if solver.in_pairs else 1
        if not least <= num_steps <= spec.max_steps:
            raise UsageError(
                f"{setting('prior_steps')} {num_steps}: the prior takes {least} to {spec.max_steps}"
            )
        return spec, num_steps

    def _eps_fn(self, said: Tensor | None) -> EpsFn:
        """The network as a solver asks it."""
        if self.config.prediction == "eps" and said is None:
            return self.network

        def eps_fn(z_t: Tensor, t: Tensor) -> Tensor:
            answer = self._answer(z_t, t, said)
            return to_eps(self.config.prediction, answer, z_t, self.alpha_bar[t])

        return eps_fn

    def _answer(self, z_t: Tensor, t: Tensor, said: Tensor | None) -> Tensor:
        answer: Tensor = self.network(z_t, t) if said is None else self.network(z_t, t, said)
        return answer

    def loss(self, z_0: Tensor, t: Tensor, eps: Tensor, said: Tensor | None = None) -> Tensor:
        """The error of each code's prediction, (B,): absolute in eps, as published, squared in all else.

        ``z_0`` (B, d) is standardised already; ``t`` int64 (B,); ``eps`` like ``z_0``; ``said`` (B, K) of 1,
        -1 and 0.
        """
        alpha_bar, kind = self.alpha_bar[t], self.config.prediction
        z_t = add_noise(z_0, eps, alpha_bar)
        error = self._answer(z_t, t, said) - training_target(kind, z_0, eps, alpha_bar)
        return (error.abs() if kind == "eps" else error.square()).mean(dim=1)

    forward = loss
