r"""The weights over t of LRDM's losses (Traub 2022, arXiv 2210.11058, section 3.3; Ho et al. 2020).

With ab = alpha_bar_t, a = 1 - beta_t, the squared error of x_0 or of eps is multiplied by

    predicting    likelihood                            as if the other were predicted
    x_0           ab beta / (2 a (1 - ab)^2)            ab / (1 - ab)
    eps           beta / (2 a (1 - ab))                 (1 - ab) / ab
    v             ab beta / (2 a (1 - ab))

The paper predicts x_0 or eps. v (Salimans & Ho 2022, section 4) is here because a network that predicts x_0
errs in eps by its error times sqrt(ab / (1 - ab)), a hundred times at the first steps of an inversion: x_T is
then no noise any more. v's squared error is that of x_0 divided by 1 - ab, and eps's divided by ab; in the
likelihood the three are one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.schedules import ScheduleConfig
from rdm_cli.models.latent_unet import Weighting


def loss_weights(schedule: ScheduleConfig, prediction: Prediction, weighting: Weighting) -> Tensor:
    """The weight at each t, float64 (T,)."""
    beta, alpha_bar = schedule.betas(), schedule.alpha_bar()
    if weighting == "none":
        return torch.ones_like(beta)
    snr = alpha_bar / (1 - alpha_bar)
    likelihood = beta / (2 * (1 - beta) * (1 - alpha_bar))
    if prediction == "v":
        return alpha_bar * likelihood
    if prediction == "x_0":
        return snr * likelihood if weighting == "likelihood" else snr
    return likelihood if weighting == "likelihood" else 1 / snr
