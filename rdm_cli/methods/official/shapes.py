"""What shapes tell of the authors' networks, under their official names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from rdm_cli.errors import CheckpointError
from rdm_cli.models.latent_mlp import LatentMLPConfig


def shape_of(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """The shape of a tensor; raises CheckpointError where it is missing."""
    if name not in state:
        raise CheckpointError(f"{name} is missing")
    return tuple(state[name].shape)


def count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers the group of ``pattern`` takes among the names."""
    matches = (re.match(pattern, name) for name in state)
    return len({match[1] for match in matches if match})


def latent_mlp_config(state: Mapping[str, Tensor]) -> LatentMLPConfig:
    """The LatentMLP of ``state``, whose names begin with ``time_embed`` and ``layers``."""
    hidden_width, z_width = shape_of(state, "layers.0.linear.weight")
    return LatentMLPConfig(
        z_width=z_width,
        hidden_width=hidden_width,
        num_layers=count(state, r"layers\.(\d+)\."),
        time_channels=shape_of(state, "time_embed.0.weight")[1],
    )
