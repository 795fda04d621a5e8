r"""Diff-AE (Preechakul et al., CVPR 2022, arXiv 2111.15640).

An encoder gives z = Enc(x_0); a UNet eps(x_t, t, z) is trained with it by the simple loss,

    L = E || eps(sqrt(ab_t) x_0 + sqrt(1 - ab_t) eps, t, Enc(x_0)) - eps ||^2        (eq. 6)

and its deterministic DDIM, run backwards, gives x_T: what z leaves out. The small presets predict v
instead of eps (see :mod:`rdm_cli.kernels.parameterization`).

They also have a generator, which the paper has not: z alone gives a guess of the image, and the UNet,
which is shown the guess and what x_t says beside it, predicts how far x_0 is from it. So the picture is the
generator's wherever noise dominates, and the noise cannot show in it. The guess is trained with the rest,

    L = E [ (1 - ab_t + spread^2 ab_t) || v - v_t ||^2 + || guess - x_0 ||^2 ]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from rdm_cli.kernels.parameterization import per_item, v_around, weight_around, wiener_residual
from rdm_cli.methods.conditions import NOTHING, Conditions
from rdm_cli.methods.denoising import UNetModel
from rdm_cli.methods.diffae.config import DiffAEConfig
from rdm_cli.models.encoder import EncoderConfig, SemanticEncoder
from rdm_cli.models.generator import Generator, GeneratorConfig, Guess
from rdm_cli.models.unet import UNetConfig


class Condition(NamedTuple):
    """What depends on z alone: the UNet's scales and, where there is a generator, its guess."""

    scales: list[Tensor | None]
    guess: Guess | None


class DiffAE(UNetModel):
    """Encoder and decoder, trained together; ``forward`` is the loss that trains them."""

    config: DiffAEConfig

    def __init__(self, config: DiffAEConfig) -> None:
        super().__init__(config)
        self.encoder = SemanticEncoder(config.encoder)
        self.generator = None if config.generator is None else Generator(config.generator)

    @property
    def z_shape(self) -> tuple[int, ...]:
        """Shape of one code."""
        return (self.config.encoder.z_width,)

    def component_config(self, name: str) -> EncoderConfig | UNetConfig | GeneratorConfig | None:
        """The config of ``encoder``, ``unet`` or ``generator``."""
        if name == "generator":
            return self.config.generator
        return self.config.encoder if name == "encoder" else self.config.unet

    def _condition(self, z: Tensor | None) -> Condition:
        assert z is not None
        return Condition(self.unet.condition(z), None if self.generator is None else self.generator(z))

    def _answer(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        scales, guess = condition
        if guess is None or self.config.generator is None:
            return super()._answer(x_t, t, scales)
        about = (guess.picture, self.config.generator.spread, self.alpha_bar[t])
        seen = wiener_residual(x_t, *about)
        answer = self.unet(seen, t, scales, guess)
        return v_around(answer.to(x_t.dtype), x_t, *about)

    def encode(
        self, x_0: Tensor, given: Conditions = NOTHING, *, timesteps: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Images ``x_0`` (B, 3, H, W) in [-1, 1] to ``z`` (B, z_width)."""
        return {"z": self.encoder(x_0)}

    def loss(self, x_0: Tensor, t: Tensor, eps: Tensor, conditions: Conditions = NOTHING) -> Tensor:
        """Mean squared error of each image, (B,), in what the network predicts.

        ``t`` int64 (B,), ``eps`` like ``x_0``. Without a ``z``, ``x_0`` is encoded; another image's z
        measures how much the decoder relies on it.
        """
        return self.denoising_loss(x_0, t, eps, (conditions or self.encode(x_0))["z"])

    def forward(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What is minimised, of each image, (B,): :meth:`loss`, or with a generator the loss above."""
        condition = self._condition(self.encoder(x_0))
        loss = self._denoising_loss(x_0, t, eps, condition)
        if condition.guess is None or self.config.generator is None:
            return loss
        weight = weight_around(self.config.generator.spread, self.alpha_bar[t])
        return per_item(weight, loss) * loss + (condition.guess.picture - x_0).square().mean(dim=(1, 2, 3))
