r"""LRDM (Traub 2022, arXiv 2210.11058): a latent diffusion model with a representation trained jointly.

    L = E || f(sqrt(ab_t) z_0 + sqrt(1 - ab_t) eps, t, pyramid(z)) - target ||^2
        + lambda E KL(q(z | z_0) || N(0, I))

with z_0 the first stage's latents of the image, scaled to unit variance, z drawn from the encoder's
Gaussian, the first a mean over elements and the KL a sum over them. Because of the KL, z can be drawn
from N(0, I): no second model is needed. The paper writes r for z and z for the latents.

The small presets around an ``AutoencoderKL`` have a generator in the pyramid's place, which the paper has not
and Diff-AE's small presets have as well (:mod:`rdm_cli.methods.diffae.model`): z alone gives a guess of z_0,
and the UNet, which is shown the guess and what z_t says beside it, predicts how far z_0 is from it,

    L = E [ (1 - ab_t + spread^2 ab_t) || v - v_t ||^2 + || guess - z_0 ||^2 ] + lambda E KL
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rdm_cli.kernels.float64 import Table
from rdm_cli.kernels.parameterization import (
    add_noise,
    per_item,
    training_target,
    v_around,
    weight_around,
    wiener_residual,
)
from rdm_cli.kernels.spec import EpsFn
from rdm_cli.kernels.warp import moved, tps_warp
from rdm_cli.methods.conditions import NOTHING, Conditions, ConditionSpec
from rdm_cli.methods.diffusion_model import DiffusionModel
from rdm_cli.methods.lrdm.config import LRDMConfig
from rdm_cli.methods.lrdm.losses import loss_weights
from rdm_cli.models.first_stage import build_first_stage, drawn_latents, to_images, to_latents
from rdm_cli.models.latent_unet import LatentUNet
from rdm_cli.models.representation import Representation, RepresentationConfig, draw, kl_to_normal
from rdm_cli.models.style_shape import StyleShape, StyleShapeConfig


class Condition(NamedTuple):
    """What depends on z alone: the maps, deepest first, and a generator's guess of the latents."""

    maps: list[Tensor]
    guess: Tensor | None = None


class LRDM(DiffusionModel):
    """The networks; ``forward`` is the loss on images."""

    config: LRDMConfig

    def __init__(self, config: LRDMConfig) -> None:
        super().__init__(config)
        self.unet = LatentUNet(config.unet)
        self.representation: Any = None
        if isinstance(config.representation, StyleShapeConfig):
            self.representation = StyleShape(config.representation)
        elif config.representation is not None:
            self.representation = Representation(config.representation)
        self.first_stage: Any = None
        if config.first_stage is not None:
            self.first_stage = build_first_stage(config.first_stage).eval().requires_grad_(False)
        weights = loss_weights(config.sampling.schedule, config.prediction, config.unet.weighting)
        self.loss_weight = Table(weights)

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.config.image_size

    @property
    def x_T_shape(self) -> tuple[int, ...]:
        """Shape of one noise map: that of the latents."""
        c = self.config.unet
        return (c.latent_channels, c.latent_size, c.latent_size)

    @property
    def z_shape(self) -> tuple[int, ...]:
        """Shape of one code; t-LRDM's is one z for each timestep of the sampler's own number of steps."""
        if self.config.representation is None:
            return (0,)
        shape = self.config.representation.z_shape
        return (self.sampling.steps, *shape) if self.time_dependent else shape

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return (self.config.image_channels, self.image_size, self.image_size)

    def component_config(self, name: str) -> Any:
        """The config of ``first_stage``, ``unet`` or ``representation``; None for one that there is not."""
        return getattr(self.config, name)

    def enter(self, x_0: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] to latents of about unit variance, (B, *x_T_shape)."""
        latents = x_0 if self.first_stage is None else to_latents(self.first_stage, x_0)
        return latents * self.unet.scale_factor.to(latents.dtype)

    def enter_to_train(self, x_0: Tensor, noise: Tensor | None = None) -> Tensor:
        """As :meth:`enter`, drawn where the first stage has a distribution, by ``noise`` (B, *x_T_shape)."""
        latents = x_0 if self.first_stage is None else drawn_latents(self.first_stage, x_0, noise)
        return latents * self.unet.scale_factor.to(latents.dtype)

    def leave(self, z_0: Tensor) -> Tensor:
        """Latents (B, *x_T_shape) to images (B, C, H, W)."""
        latents = z_0 / self.unet.scale_factor.to(z_0.dtype)
        return latents if self.first_stage is None else to_images(self.first_stage, latents)

    def train(self, mode: bool = True) -> LRDM:
        """Train all but the first stage."""
        super().train(mode)
        if self.first_stage is not None:
            self.first_stage.eval()
        return self

    def posterior(
        self, z_0: Tensor, t: Tensor | None = None, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z, (B, *z_shape) each, for latents ``z_0``; t-LRDM's depend on ``t``."""
        given = (z_0,) if self.style_shape else (z_0, t if self.time_dependent else None, y)
        mean, logvar = self.representation.posterior(*given)
        return mean, logvar

    def pyramid(self, z: Tensor | None, t: Tensor | None = None, style: Tensor | None = None) -> list[Tensor]:
        """The maps of ``z`` (B, *z_shape), deepest first; [] for a model without a representation.

        t-LRDM's depend on ``t``; style/shape needs the latents ``style``, and raises ValueError without.
        """
        if self.representation is None or z is None:
            return []
        if self.style_shape:
            if style is None:
                raise ValueError("the style comes from an image's latents")
            return list(self.representation.maps(z, style))
        return list(self.representation.maps(z, t if self.time_dependent else None))

    def condition(self, z: Tensor | None, t: Tensor | None = None, style: Tensor | None = None) -> Condition:
        """All that the UNet is told of ``z`` (B, *z_shape); ``t`` and ``style`` as in :meth:`pyramid`."""
        if self.config.generator is None or z is None:
            return Condition(self.pyramid(z, t, style))
        guess = self.representation.guess(z)
        return Condition(list(guess.maps[-len(self.config.unet.map_channels) :]), guess.picture)

    @property
    def time_dependent(self) -> bool:
        """Whether z is a function of t as well (t-LRDM)."""
        return (
            isinstance(self.config.representation, RepresentationConfig) and self.config.representation.time
        )

    @property
    def conditions(self) -> tuple[ConditionSpec, ...]:
        """The class, where it knows some, and latents whose style is taken, in a model of style and shape."""
        classes, style = self.config.class_names, self.style_shape
        found = [ConditionSpec(name="class", names=classes)] if classes else []
        return (*found, *([ConditionSpec(name="style", shape=self.x_T_shape)] if style else []))

    @property
    def style_shape(self) -> bool:
        """Whether the pyramid needs another image's latents, for their style."""
        return isinstance(self.config.representation, StyleShapeConfig)

    def encode(
        self, z_0: Tensor, given: Conditions = NOTHING, *, timesteps: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Latents (B, *x_T_shape) to the mean of ``z``, (B, *z_shape); (B, 0) without a representation.

        Beside z are the ``class`` (B,), if one is given, and in a model of style and shape the ``style``, the
        latents themselves. t-LRDM gives a z for each of ``timesteps``, ascending, (B, S, ...); None: those of
        the sampler.
        """
        own = {"style": z_0} if self.style_shape else {}
        return {**given, "z": self._mean_of(z_0, given.get("class"), timesteps), **own}

    def _mean_of(self, z_0: Tensor, y: Tensor | None, timesteps: Sequence[int] | None) -> Tensor:
        if self.representation is None:
            return z_0.new_zeros(len(z_0), 0)
        if not self.time_dependent:
            return self.posterior(z_0, y=y)[0]
        if timesteps is None:
            timesteps = self.sampling.trajectory().t.tolist()
        times = [torch.full((len(z_0),), t, dtype=torch.int64, device=z_0.device) for t in timesteps]
        return torch.stack([self.posterior(z_0, t, y)[0] for t in times], dim=1)

    def predict(self, z_t: Tensor, t: Tensor, pyramid: list[Tensor], y: Tensor | None = None) -> Tensor:
        """What the UNet predicts at ``z_t`` (B, *x_T_shape) and ``t`` (B,)."""
        answer: Tensor = self.unet(z_t, t, pyramid, y)
        return answer

    def _answer(self, z_t: Tensor, t: Tensor, condition: Condition, y: Tensor | None) -> Tensor:
        """What is predicted, with the result of :meth:`condition`."""
        if condition.guess is None or self.config.generator is None:
            return self.predict(z_t, t, condition.maps, y)
        about = (condition.guess, self.config.generator.spread, self.alpha_bar[t])
        answer = self.unet(wiener_residual(z_t, *about), t, condition.maps, y, condition.guess)
        return v_around(answer.to(z_t.dtype), z_t, *about)

    def denoiser(self, conditions: Conditions, *, timesteps: Sequence[int] | None = None) -> EpsFn:
        """eps(z_t, t) for ``z`` (B, *z_shape); the pyramid is computed here, once.

        ``class`` (B,) and ``style`` (B, *x_T_shape) are as :meth:`encode` gives them. t-LRDM's z is one for
        each of ``timesteps``, and is asked about no others.
        """
        z, y = conditions["z"], conditions.get("class")
        if self.time_dependent:
            seen = self.sampling.trajectory().t.tolist() if timesteps is None else timesteps
            places = {int(t): i for i, t in enumerate(seen)}
            return self.denoiser_of_time(lambda t: z[:, places[int(t[0])]], y)
        condition = self.condition(z, style=conditions.get("style"))

        def eps_fn(z_t: Tensor, t: Tensor) -> Tensor:
            return self.as_eps(self._answer(z_t, t, condition, y), z_t, t)

        return eps_fn

    def denoiser_of_time(self, z_at: Callable[[Tensor], Tensor], y: Tensor | None = None) -> EpsFn:
        """t-LRDM's eps(z_t, t): at each step with the z (B, *z_shape) that ``z_at(t)`` gives for it."""

        def eps_fn(z_t: Tensor, t: Tensor) -> Tensor:
            return self.as_eps(self._answer(z_t, t, self.condition(z_at(t), t), y), z_t, t)

        return eps_fn

    def diffusion_loss(
        self, z_0: Tensor, t: Tensor, eps: Tensor, condition: Condition, y: Tensor | None = None
    ) -> Tensor:
        """Weighted mean squared error of each image's prediction, (B,)."""
        alpha_bar = self.alpha_bar[t]
        answer = self._answer(add_noise(z_0, eps, alpha_bar), t, condition, y).float()
        target = training_target(self.prediction, z_0, eps, alpha_bar)
        error = (answer - target).square().flatten(1).mean(dim=1)
        return per_item(self.loss_weight[t], error) * error

    def _weighed_loss(
        self, z_0: Tensor, t: Tensor, eps: Tensor, condition: Condition, y: Tensor | None
    ) -> Tensor:
        """The diffusion loss as it is minimised, (B,): with a generator, weighed anew, the guess's added."""
        loss = self.diffusion_loss(z_0, t, eps, condition, y)
        if condition.guess is None or self.config.generator is None:
            return loss
        weight = weight_around(self.config.generator.spread, self.alpha_bar[t])
        return per_item(weight, loss) * loss + (condition.guess - z_0).square().flatten(1).mean(dim=1)

    def loss(
        self,
        z_0: Tensor,
        t: Tensor,
        eps: Tensor,
        conditions: Conditions = NOTHING,
        *,
        noise: Tensor | None = None,
    ) -> Tensor:
        """The joint loss of each image, (B,), for latents ``z_0`` (B, *x_T_shape).

        ``noise`` draws z from the encoder's Gaussian; None draws it with torch's own generator. With a ``z``
        given, another image's perhaps, there is no KL. The other ``conditions`` are those of :meth:`encode`.
        """
        z, y, style = (conditions.get(name) for name in ("z", "class", "style"))
        if z is not None and self.time_dependent and z.shape[1] == 1:
            z = z[:, 0]  # as encode gives it for one timestep
        if z is not None or self.config.representation is None:
            return self.diffusion_loss(z_0, t, eps, self.condition(z, t, style), y)
        mean, logvar = self.posterior(z_0, t, y)
        z = draw(mean, logvar, torch.randn_like(mean) if noise is None else noise)
        kl = kl_to_normal(mean.float(), logvar.float())
        return (
            self._weighed_loss(z_0, t, eps, self.condition(z, t, style), y)
            + self.config.representation.kl_weight * kl
        )

    def adopt(self, pretrained: Any) -> None:
        """Take the weights of a ``pretrained`` first stage."""
        self.first_stage.load_state_dict(pretrained.network.state_dict())

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Measure the spread of the latents of images, and scale them to unit variance from now on."""
        self.unet.scale_factor.fill_(1.0)
        latents = torch.cat([self.enter(x_0).float().cpu() for x_0 in batches])
        self.unet.scale_factor.fill_(float(1 / latents.std().clamp(min=1e-6)))

    @property
    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """What draws z, the first stage's latents and the warp of the style's image, where there are such."""
        config = self.config.representation
        shapes: dict[str, tuple[int, ...]] = {} if config is None else {"z": config.z_shape}
        if self.config.first_stage is not None and self.config.first_stage.is_drawn:
            shapes["latents"] = self.x_T_shape
        if isinstance(config, StyleShapeConfig):
            shapes["warp"] = (config.grid_size**2, 2)
        return shapes

    def forward(
        self, x_0: Tensor, t: Tensor, eps: Tensor, y: Tensor | None = None, noise: Mapping[str, Tensor] = {}
    ) -> Tensor:
        """The joint loss, (B,), of images ``x_0`` (B, C, H, W) in [-1, 1] or their latents, not scaled yet.

        ``eps`` has the latents' shape; ``y`` (B,) are classes, where it knows any; ``noise`` is that of
        :attr:`noise_shapes`, and what is missing of it is drawn with torch's own generator.
        """
        with torch.no_grad():
            if x_0.shape[1:] == self.x_T_shape:
                z_0 = x_0 * self.unet.scale_factor
            else:
                z_0 = self.enter_to_train(x_0, noise.get("latents")).float()
            conditions = self.training_conditions(x_0, noise.get("warp"))
        known = {} if y is None else {"class": y}
        return self.loss(z_0, t, eps, known | conditions, noise=noise.get("z"))

    @torch.no_grad()
    def training_conditions(self, x_0: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        """The latents of randomly warped copies of images ``x_0``, which have their style; {} without one.

        ``noise`` (B, g^2, 2), standard normal, says how they are warped; None: torch's own generator does.
        """
        config = self.config.representation
        if not isinstance(config, StyleShapeConfig):
            return {}
        if noise is None:
            noise = torch.randn(len(x_0), config.grid_size**2, 2, device=x_0.device)
        uniform = torch.erf(noise / math.sqrt(2))  # of a normal number: uniform on (-1, 1)
        warped = tps_warp(x_0, moved(uniform, config.grid_size, config.warp_strength))
        return {"style": self.enter(warped).float()}
