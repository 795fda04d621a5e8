r"""The latent DDIM: a diffusion over standardised codes (Diff-AE, arXiv 2111.15640, section 4).

    z_n = (z - z_mean) / z_std,    z_t = sqrt(ab_t) z_n + sqrt(1 - ab_t) eps
    L   = E || eps(z_t, t) - eps ||_1 / d

Codes are drawn by DDIM at eta = 0, or another solver of the same flow. They have no natural range, so the
predicted z_0 is not clamped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rdm_cli.errors import UsageError, setting
from rdm_cli.kernels.ddim import last
from rdm_cli.kernels.float64 import Table
from rdm_cli.kernels.parameterization import add_noise
from rdm_cli.kernels.schedules import LATENT_CONSTANT, ScheduleConfig, Spacing
from rdm_cli.kernels.solvers import Solver
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.models.latent_mlp import LatentMLP, LatentMLPConfig
from rdm_cli.registry import SOLVERS, load


@dataclass(frozen=True, kw_only=True)
class LatentDDIMConfig:
    """A latent DDIM; ``solver`` and ``steps`` are those by which it is drawn where the user names none.

    ``spacing`` says which steps DDIM's are; other solvers have their own.
    """

    network: LatentMLPConfig
    schedule: ScheduleConfig = LATENT_CONSTANT
    steps: int = 100
    spacing: Spacing = "stride"
    solver: str = "ddim"

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
        self.network = LatentMLP(config.network)
        self.register_buffer("z_mean", torch.zeros(self.z_width))
        self.register_buffer("z_std", torch.ones(self.z_width))
        self.alpha_bar = Table(config.schedule.alpha_bar())

    @property
    def z_width(self) -> int:
        """Number of values in a code, d."""
        return self.config.network.z_width

    def normalise(self, z: Tensor) -> Tensor:
        """Codes ``z`` (B, d) with the training codes' mean and std taken out."""
        return (z - self.z_mean) / self.z_std

    def denormalise(self, z_normalised: Tensor) -> Tensor:
        """The codes (B, d) that :meth:`normalise` turns into ``z_normalised``."""
        return z_normalised * self.z_std + self.z_mean

    @torch.no_grad()
    def sample(self, noise: Tensor, num_steps: int | None = None, solver: str | None = None) -> Tensor:
        """Turn standard normal ``noise`` (N, d) into codes z (N, d), not standardised.

        ``num_steps`` and ``solver`` None take the configuration's. Raises ValueError for noise of another
        width, UsageError for an unknown solver and for steps that its schedule has not.
        """
        if noise.ndim != 2 or noise.shape[1] != self.z_width:
            raise ValueError(f"noise must be (N, {self.z_width}), not {tuple(noise.shape)}")
        chosen: Solver = load(SOLVERS, "solver", solver or self.config.solver)
        spec = chosen.spec(self.config.sampling)
        num = spec.steps if num_steps is None else num_steps
        least = 2 if chosen.in_pairs else 1
        if not least <= num <= spec.max_steps:
            raise UsageError(f"{setting('prior_steps')} {num}: the prior takes {least} to {spec.max_steps}")
        path = chosen.decode(self.network, noise, spec, num)
        return self.denormalise(last(path))

    def loss(self, z_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Mean absolute error in eps of each code, (B,).

        ``z_0`` (B, d) is standardised already; ``t`` int64 (B,); ``eps`` like ``z_0``.
        """
        z_t = add_noise(z_0, eps, self.alpha_bar[t])
        return (self.network(z_t, t) - eps).abs().mean(dim=1)

    forward = loss
