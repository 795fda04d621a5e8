"""What the authors' losses, held in test_golden, have no counterpart for: v."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rdm_cli.kernels.parameterization import Prediction, add_noise, per_item, to_eps, to_x_0, training_target
from rdm_cli.kernels.schedules import LINEAR
from rdm_cli.methods.lrdm.losses import loss_weights
from rdm_cli.methods.lrdm.presets import PRESETS


@pytest.mark.parametrize("other", ["x_0", "eps"])
def test_the_likelihood_is_one_whatever_is_predicted(other: Prediction) -> None:
    """One guess, said as v and as x_0 or eps: the weighted squared errors agree at every t."""
    torch.manual_seed(0)
    t = torch.arange(1000)
    alpha_bar = LINEAR.alpha_bar()
    x_0, eps, error = (torch.randn(1000, 4, dtype=torch.float64) for _ in range(3))
    x_t = add_noise(x_0, eps, alpha_bar)
    v = training_target("v", x_0, eps, alpha_bar)
    guessed_eps = to_eps("v", v + error, x_t, alpha_bar)
    guessed = {"eps": guessed_eps, "x_0": to_x_0(guessed_eps, x_t, alpha_bar)}[other]
    true = {"eps": eps, "x_0": x_0}[other]
    as_v = per_item(loss_weights(LINEAR, "v", "likelihood")[t], error) * error.square()
    as_other = per_item(loss_weights(LINEAR, other, "likelihood")[t], error) * (guessed - true).square()
    torch.testing.assert_close(as_v, as_other, rtol=1e-6, atol=1e-12)


def test_v_has_no_counterpart() -> None:
    config = PRESETS["small32"].config
    assert config.prediction == "v" and PRESETS["r64x8x8"].config.prediction == "x_0"
    with pytest.raises(ValueError, match="no other one's counterpart"):
        replace(config, unet=replace(config.unet, weighting="other"))
