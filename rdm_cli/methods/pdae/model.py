r"""PDAE (Zhang, Zhao, Lin, NeurIPS 2022, arXiv 2212.12990): an encoder for any pretrained DPM.

The DPM stays frozen. What its posterior's mean lacks of the true one, because x_t does not say which
x_0 it came from, is filled by a shift that knows z = Enc(x_0):

    L = w_t E || eps - (eps_frozen(x_t, t) + c_t G(x_t, t, z)) ||^2                   (eq. 13 and 14)

Encoder and G are trained together; G starts at zero, so that training starts from the DPM as it is.
One pass through the frozen way down feeds both ways up. :mod:`rdm_cli.methods.pdae.coefficients` has c_t
and w_t.

A DPM that predicts v is shifted in v, by G as it is, in training and in sampling: in eps, a small error
of G at the noisy end would be a large one of x_0 (by sqrt(1 - ab) / sqrt(ab), over a hundred at T).

The small presets have a generator as well, as Diff-AE's have (:mod:`rdm_cli.methods.diffae.model`): z alone
gives a guess of the image. Where noise dominates, the shift leads from what the frozen model says to the
guess, so that the noise cannot show; where there is little, it is small. The second way up, which is shown
the guess beside the frozen maps, says what is lacking still. Errors are of v, whatever the model predicts:

    L = E [ (1 - ab_t + spread^2 ab_t) || v - v_t ||^2 + || guess - x_0 ||^2 ]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rdm_cli.kernels.float64 import Table
from rdm_cli.kernels.parameterization import (
    add_noise,
    per_item,
    to_x_0,
    training_target,
    weight_around,
    wiener_residual,
)
from rdm_cli.kernels.spec import EpsFn
from rdm_cli.methods.conditions import NOTHING, Conditions
from rdm_cli.methods.denoising import UNetModel
from rdm_cli.methods.pdae.coefficients import (
    frozen_weight,
    loss_weight,
    mean_shift,
    score_shift,
    shift_around,
)
from rdm_cli.methods.pdae.config import EncoderKind, PDAEConfig
from rdm_cli.models.backbones import Backbone, build_shift
from rdm_cli.models.encoder import EncoderConfig, SemanticEncoder
from rdm_cli.models.generator import Generator, GeneratorConfig, Guess
from rdm_cli.models.shift_branch import ShiftConfig, Shown, noting
from rdm_cli.models.strided_encoder import StridedEncoder
from rdm_cli.models.unet import Features

STOP_SHIFT = 0.3


class Condition(NamedTuple):
    """What depends on z alone: the shift branch's scales and, where there is a generator, its guess."""

    scales: Any
    guess: Guess | None


class PDAE(UNetModel):
    """The frozen UNet with encoder, shift branch and maybe a generator; ``forward`` is the loss."""

    config: PDAEConfig

    def __init__(self, config: PDAEConfig) -> None:
        super().__init__(config)
        self.encoder: nn.Module = (
            SemanticEncoder(config.encoder)
            if isinstance(config.encoder, EncoderConfig)
            else StridedEncoder(config.encoder)
        )
        self.shift: Any = build_shift(config.shift)
        self.generator = None if config.generator is None else Generator(config.generator)
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

    def component_config(self, name: str) -> Backbone | EncoderKind | ShiftConfig | GeneratorConfig | None:
        """The config of ``unet``, ``encoder``, ``shift`` or ``generator``."""
        configs = {"encoder": self.config.encoder, "shift": self.config.shift, "unet": self.config.unet}
        return self.config.generator if name == "generator" else configs[name]

    def train(self, mode: bool = True) -> PDAE:
        """Train encoder and shift branch; the frozen UNet stays as in sampling, without dropout."""
        super().train(mode)
        self.unet.eval()
        return self

    def encode(
        self, x_0: Tensor, given: Conditions = NOTHING, *, timesteps: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Images ``x_0`` (B, 3, H, W) in [-1, 1] to ``z`` (B, z_width)."""
        return {"z": self.encoder(x_0)}

    def _condition(self, z: Tensor | None) -> Condition:
        """What is computed of ``z`` (B, z_width), once for a whole trajectory."""
        assert z is not None
        return Condition(self.shift.condition(z), None if self.generator is None else self.generator(z))

    def predict(self, x_t: Tensor, t: Tensor, *conditions: Condition) -> tuple[Tensor, ...]:
        """What the frozen UNet predicts and, for each of ``conditions``, the shift: all (B, 3, H, W).

        The shift is G or, with a generator, what leads to the answer that knows z. No gradient reaches the
        frozen half.
        """
        seen: list[Tensor] = []
        with torch.no_grad():
            free = self.unet.condition(None)
            features = self.unet.features(x_t, t, free)
            prediction = self.unet.upward(features, free, noting(seen))
        if self.config.generator is not None:
            prediction = prediction.to(x_t.dtype)

        def shift(condition: Condition) -> Tensor:
            scales, guess = condition
            if guess is not None:
                return self._shift_to(guess, scales, x_t, t, features, seen, prediction)
            g: Tensor = self.shift(features, scales, seen)
            return g

        return prediction, *(shift(condition) for condition in conditions)

    def _shift_to(
        self,
        guess: Guess,
        scales: Any,
        x_t: Tensor,
        t: Tensor,
        features: Features,
        seen: Sequence[Tensor],
        prediction: Tensor,
    ) -> Tensor:
        """The shift from the frozen ``prediction`` to what ``guess`` and branch say, in its own units."""
        assert self.config.generator is not None
        spread, alpha_bar = self.config.generator.spread, self.alpha_bar[t]
        frozen = to_x_0(self.as_eps(prediction, x_t, t), x_t, alpha_bar)
        gap = frozen - guess.picture
        weight = per_item(frozen_weight(spread, alpha_bar), x_t)
        beside = [wiener_residual(x_t, guess.picture, spread, alpha_bar), weight.square() / spread * gap]
        answer = self.shift(features, scales, seen, Shown(guess, torch.cat(beside, dim=1), weight))
        shift = shift_around(answer.to(x_t.dtype), gap, spread, alpha_bar)
        return per_item(self._of_v(alpha_bar), shift) * shift

    def _of_v(self, alpha_bar: Tensor) -> Tensor:
        """What a change of v by one is in what the frozen UNet predicts, (B,)."""
        if self.prediction == "v":
            return torch.ones_like(alpha_bar)
        return alpha_bar.sqrt() if self.prediction == "eps" else -(1 - alpha_bar).sqrt()

    def shifted(self, prediction: Tensor, g: Tensor, t: Tensor, coefficient: Table) -> Tensor:
        """The frozen ``prediction`` with the shift ``g``; G is worth ``coefficient`` at ``t`` in eps."""
        if self.prediction == "eps" and self.generator is None:
            return prediction + per_item(coefficient[t], g) * g
        return prediction + g

    def denoiser(
        self, conditions: Conditions, *, timesteps: Sequence[int] | None = None, stop_below: int = 0
    ) -> EpsFn:
        """eps(x_t, t) for ``z`` (B, z_width); what depends on z alone is computed here, once.

        At t < ``stop_below`` the DPM is left as it is: the paper's way of sampling without an image, whose
        last steps follow the DPM's own idea of detail.
        """
        condition = self._condition(conditions["z"])

        def eps_fn(x_t: Tensor, t: Tensor) -> Tensor:
            if bool((t < stop_below).all()):
                (answer,) = self.predict(x_t, t)
            else:
                prediction, g = self.predict(x_t, t, condition)
                answer = self.shifted(prediction, g, t, self.score_shift)
            return self.as_eps(answer, x_t, t)

        return eps_fn

    def one_step(self, x_t: Tensor, t: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """eps of the DPM alone, and with the shift that training teaches: that of the posterior's mean."""
        free, g = self.predict(x_t, t, self._condition(conditions["z"]))
        shifted = self.shifted(free, g, t, self.mean_shift)
        answers = {"without z": free, "with z": shifted}
        return {name: self.as_eps(answer, x_t, t) for name, answer in answers.items()}

    def path_denoiser(
        self,
        first: Conditions,
        second: Conditions,
        weight: Tensor,
        *,
        timesteps: Sequence[int] | None = None,
    ) -> EpsFn:
        """eps(x_t, t) on the way between two codes: at each step, the lerp of their two shifts.

        ``weight`` (B,) from 0 (the first) to 1. The frozen half runs once for both.
        """
        ends = self._condition(first["z"]), self._condition(second["z"])

        def eps_fn(x_t: Tensor, t: Tensor) -> Tensor:
            prediction, g_first, g_second = self.predict(x_t, t, *ends)
            g = torch.lerp(g_first, g_second, per_item(weight, g_first))
            answer = self.shifted(prediction, g, t, self.score_shift)
            return self.as_eps(answer, x_t, t)

        return eps_fn

    def loss(self, x_0: Tensor, t: Tensor, eps: Tensor, conditions: Conditions = NOTHING) -> Tensor:
        """Weighted mean squared error of each image, (B,), in what the frozen UNet predicts.

        With a generator, in v.

        ``t`` int64 (B,), ``eps`` like ``x_0``. Without a ``z``, ``x_0`` is encoded; another image's z
        measures how much the shift relies on it.
        """
        return self._loss(x_0, t, eps, self._condition((conditions or self.encode(x_0))["z"]))

    def _loss(self, x_0: Tensor, t: Tensor, eps: Tensor, condition: Condition) -> Tensor:
        alpha_bar = self.alpha_bar[t]
        x_t = add_noise(x_0, eps, alpha_bar)
        prediction, g = self.predict(x_t, t, condition)
        answer = self.shifted(prediction.float(), g.float(), t, self.mean_shift)
        target = training_target(self.prediction, x_0, eps, alpha_bar)
        error = (answer - target).square().mean(dim=(1, 2, 3))
        if self.generator is not None:
            error = error / per_item(self._of_v(alpha_bar).square(), error)
        return per_item(self.loss_weight[t], error) * error

    def forward(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What is minimised, of each image, (B,): :meth:`loss`, or with a generator the loss above."""
        condition = self._condition(self.encoder(x_0))
        loss = self._loss(x_0, t, eps, condition)
        if condition.guess is None or self.config.generator is None:
            return loss
        if self.config.shift.gamma is None:
            loss = per_item(weight_around(self.config.generator.spread, self.alpha_bar[t]), loss) * loss
        return loss + (condition.guess.picture - x_0).square().mean(dim=(1, 2, 3))

    def adopt(self, pretrained: nn.Module) -> None:
        """Take the weights of a plain DPM of the same UNet."""
        self.unet.load_state_dict(pretrained.unet.state_dict())  # type: ignore[union-attr]
