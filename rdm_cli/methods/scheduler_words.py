"""diffusers' words for noise schedules and predictions."""

from __future__ import annotations

from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.schedules import BetaKind

BETA_SCHEDULES: dict[str, BetaKind] = {
    "linear": "linear",
    "constant": "constant",
    "squaredcos_cap_v2": "cosine",
    "scaled_linear": "scaled-linear",
    "sigmoid": "sigmoid",
}
PREDICTION_TYPES: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v", "sample": "x_0"}
