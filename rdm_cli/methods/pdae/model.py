r"""PDAE (Zhang, Zhao, Lin, NeurIPS 2022, arXiv 2212.12990): an encoder for any pretrained DPM.

The DPM stays frozen. What its posterior's mean lacks of the true one, because x_t does not say which
x_0 it came from, is filled by a shift that knows z = Enc(x_0):

    L = w_t E || eps - (eps_frozen(x_t, t) + c_t G(x_t, t, z)) ||^2                   (eq. 13 and 14)

Encoder and G are trained together; G starts at zero, so that training starts from the DPM as it is.
One pass through the frozen way down feeds both ways up. :mod:`rdm_cli.methods.pdae.coefficients` has c_t
and w_t.

A DPM that predicts v is shifted in v, by G as it is, in training and in sampling: in eps, a small error
of G at the noisy end would be a large one of x_0 (by sqrt(1 - ab) / sqrt(ab), over a hundred at T).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rdm_cli.kernels.float64 import Table
from rdm_cli.kernels.parameterization import add_noise, per_item, training_target
from rdm_cli.kernels.spec import EpsFn
from rdm_cli.methods.denoising import UNetModel
from rdm_cli.methods.pdae.coefficients import loss_weight, mean_shift, score_shift
from rdm_cli.methods.pdae.config import PDAEConfig
from rdm_cli.models.backbones import Backbone, build_shift
from rdm_cli.models.shift_branch import ShiftConfig, noting
from rdm_cli.models.strided_encoder import StridedEncoder, StridedEncoderConfig

STOP_SHIFT = 0.3


class PDAE(UNetModel):
    """The frozen UNet with encoder and shift branch; ``forward`` is the loss."""

    config: PDAEConfig

    def __init__(self, config: PDAEConfig) -> None:
        super().__init__(config)
        self.encoder = StridedEncoder(config.encoder)
        self.shift: Any = build_shift(config.shift)
        self.unet.requires_grad_(False)
        schedule = config.sampling.schedule
        self.mean_shift = Table(mean_shift(schedule))
        self.score_shift = Table(score_shift(schedule))
        self.loss_weight = Table(loss_weight(schedule, config.shift.gamma))

    @property
    def stop_shift(self) -> float:
        """0.3, the paper's: an unconditional sample's last steps follow the DPM alone."""
        return STOP_SHIFT

    @property
    def z_shape(self) -> tuple[int, ...]:
        """Shape of one code."""
        return (self.config.encoder.z_width,)

    def component_config(self, name: str) -> Backbone | StridedEncoderConfig | ShiftConfig:
        """The config of ``unet``, ``encoder`` or ``shift``."""
        if name == "encoder":
            return self.config.encoder
        return self.config.shift if name == "shift" else self.config.unet

    def train(self, mode: bool = True) -> PDAE:
        """Train encoder and shift branch; the frozen UNet stays as in sampling, without dropout."""
        super().train(mode)
        self.unet.eval()
        return self

    def encode(self, x_0: Tensor) -> Tensor:
        """Images ``x_0`` (B, 3, H, W) in [-1, 1] to ``z`` (B, z_width)."""
        return self.encoder(x_0)

    def predict(self, x_t: Tensor, t: Tensor, *conditions: list[Tensor | None]) -> tuple[Tensor, ...]:
        """What the frozen UNet predicts and, for each of ``conditions``, G: all (B, 3, H, W).

        ``conditions`` are results of ``shift.condition``. No gradient reaches the frozen half.
        """
        seen: list[Tensor] = []
        with torch.no_grad():
            free = self.unet.condition(None)
            features = self.unet.features(x_t, t, free)
            prediction = self.unet.upward(features, free, noting(seen))
        return prediction, *(self.shift(features, condition, seen) for condition in conditions)

    def shifted(self, prediction: Tensor, g: Tensor, t: Tensor, coefficient: Table) -> Tensor:
        """The frozen ``prediction`` with the shift ``g``, in eps times ``coefficient`` at ``t``."""
        if self.prediction == "eps":
            return prediction + per_item(coefficient[t], g) * g
        return prediction + g

    def denoiser(self, z: Tensor, *, stop_below: int = 0) -> EpsFn:
        """eps(x_t, t) for ``z`` (B, z_width); what depends on z alone is computed here, once.

        At t < ``stop_below`` the DPM is left as it is: the paper's way of sampling without an image, whose
        last steps follow the DPM's own idea of detail.
        """
        condition = self.shift.condition(z)

        def eps_fn(x_t: Tensor, t: Tensor) -> Tensor:
            if bool((t < stop_below).all()):
                (answer,) = self.predict(x_t, t)
            else:
                prediction, g = self.predict(x_t, t, condition)
                answer = self.shifted(prediction, g, t, self.score_shift)
            return self.as_eps(answer, x_t, t)

        return eps_fn

    def one_step(self, x_t: Tensor, t: Tensor, z: Tensor, **conditions: Tensor) -> dict[str, Tensor]:
        """eps of the DPM alone, and with the shift that training teaches: that of the posterior's mean."""
        free, g = self.predict(x_t, t, self.shift.condition(z))
        shifted = self.shifted(free, g, t, self.mean_shift)
        answers = {"without z": free, "with z": shifted}
        return {name: self.as_eps(answer, x_t, t) for name, answer in answers.items()}

    def path_denoiser(self, z_first: Tensor, z_second: Tensor, weight: Tensor) -> EpsFn:
        """eps(x_t, t) on the way between two codes: at each step, the lerp of their two shifts.

        ``z_first`` and ``z_second`` (B, z_width), ``weight`` (B,) from 0 (the first) to 1. The frozen half
        runs once for both.
        """
        first, second = self.shift.condition(z_first), self.shift.condition(z_second)

        def eps_fn(x_t: Tensor, t: Tensor) -> Tensor:
            prediction, g_first, g_second = self.predict(x_t, t, first, second)
            g = torch.lerp(g_first, g_second, per_item(weight, g_first))
            answer = self.shifted(prediction, g, t, self.score_shift)
            return self.as_eps(answer, x_t, t)

        return eps_fn

    def loss(self, x_0: Tensor, t: Tensor, eps: Tensor, z: Tensor | None = None) -> Tensor:
        """Weighted mean squared error of each image, (B,), in what the frozen UNet predicts.

        ``t`` int64 (B,), ``eps`` like ``x_0``. ``z`` None encodes ``x_0``; another image's z measures how
        much the shift relies on it.
        """
        z = self.encode(x_0) if z is None else z
        alpha_bar = self.alpha_bar[t]
        x_t = add_noise(x_0, eps, alpha_bar)
        prediction, g = self.predict(x_t, t, self.shift.condition(z))
        answer = self.shifted(prediction.float(), g.float(), t, self.mean_shift)
        target = training_target(self.prediction, x_0, eps, alpha_bar)
        error = (answer - target).square().mean(dim=(1, 2, 3))
        return per_item(self.loss_weight[t], error) * error

    forward = loss

    def adopt(self, pretrained: nn.Module) -> None:
        """Take the weights of a plain DPM of the same UNet."""
        self.unet.load_state_dict(pretrained.unet.state_dict())  # type: ignore[union-attr]
