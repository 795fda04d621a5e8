"""N(0, I) as a prior over codes: for methods whose training pulls z there, as LRDM's KL term does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rdm_cli.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class GaussianPrior:
    """Codes of ``z_width`` values, drawn as they are: no network stands between."""

    z_width: int

    @property
    def z_mean(self) -> Tensor:
        """Mean of the codes, (d,)."""
        return torch.zeros(self.z_width, dtype=torch.float32)

    @property
    def z_std(self) -> Tensor:
        """Their standard deviation, (d,)."""
        return torch.ones(self.z_width, dtype=torch.float32)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that it can be told: none."""
        return ()

    def sample(
        self,
        noise: Tensor,
        num_steps: int | None = None,
        solver: str | None = None,
        *,
        wanted: Mapping[str, bool | Tensor] | None = None,
    ) -> Tensor:
        """``noise`` (N, d), which is the codes; there is nothing to solve, and there are no steps.

        Raises ValueError for noise of another width, UsageError for attributes ``wanted``.
        """
        if wanted:
            raise UsageError(f"N(0, I) knows no attribute {next(iter(wanted))!r}")
        if noise.ndim != 2 or noise.shape[1] != self.z_width:
            raise ValueError(f"noise must be (N, {self.z_width}), not {tuple(noise.shape)}")
        return noise
