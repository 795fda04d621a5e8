"""What a method gives the core: how its networks lie in a bundle, its presets and its conversion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.spec import EpsFn, SamplingSpec
from rdm_cli.methods.conditions import NOTHING, Conditions, ConditionSpec
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.presets import Preset
from rdm_cli.priors.latent_ddim import LatentDDIM


class RepresentationModel(Protocol):
    """A trained method, as the core uses it."""

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        ...

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        ...

    @property
    def x_T_shape(self) -> tuple[int, ...]:
        """Shape of one noise map."""
        ...

    @property
    def z_shape(self) -> tuple[int, ...]:
        """Shape of one code."""
        ...

    @property
    def sampling(self) -> SamplingSpec:
        """How the method samples."""
        ...

    @property
    def prediction(self) -> Prediction:
        """What the network was trained to predict."""
        ...

    @property
    def stop_shift(self) -> float | None:
        """The last fraction of a sample's steps without PDAE's shift; None: there is no shift."""
        ...

    @property
    def conditions(self) -> tuple[ConditionSpec, ...]:
        """What ``denoiser`` takes besides z."""
        ...

    def training_conditions(self, x_0: Tensor) -> dict[str, Tensor]:
        """What ``loss`` takes in place of the image's own conditions, from images ``x_0`` (B, 3, H, W)."""
        ...

    @property
    def noise_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Names, and an image's shapes, of the standard normal ``noise`` that ``forward`` takes besides eps.

        Where there is some, ``forward`` takes all of it as a dict; a model draws nothing but dropout itself.
        """
        ...

    @property
    def time_dependent(self) -> bool:
        """Whether z is one for each timestep of a trajectory, (S, ...)."""
        ...

    def enter(self, x_0: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to the space in which the model diffuses, (B, *x_T_shape)."""
        ...

    def leave(self, x: Tensor) -> Tensor:
        """Back from there to images."""
        ...

    def encode(
        self, x_0: Tensor, given: Conditions = NOTHING, *, timesteps: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """What :meth:`enter` gives, (B, *x_T_shape), to all that ``denoiser`` takes, with z (B, *z_shape).

        ``given`` are the conditions that are given by name; they are in the answer. ``timesteps`` are those
        of the trajectory that is to come, ascending; None: the sampler's own.
        """
        ...

    def denoiser(self, conditions: Conditions, *, timesteps: Sequence[int] | None = None) -> EpsFn:
        """eps(x_t, t) under what :meth:`encode` gives; with a ``stop_shift``, takes ``stop_below`` too."""
        ...

    def one_step(self, x_t: Tensor, t: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """eps at x_t (B, C, H, W) and t (B,), "without z" or "with z" or, where the method has them, both."""
        ...

    def path_denoiser(
        self,
        first: Conditions,
        second: Conditions,
        weight: Tensor,
        *,
        timesteps: Sequence[int] | None = None,
    ) -> EpsFn:
        """eps(x_t, t) between two codes, ``weight`` (B,) of the way from the first to the second."""
        ...

    def loss(self, x_0: Tensor, t: Tensor, eps: Tensor, conditions: Conditions = NOTHING) -> Tensor:
        """Loss of each image, (B,); without a ``z`` among the conditions, with the image's own."""
        ...

    def component_config(self, name: str) -> Any:
        """The config of the network that lies in a bundle's sub-folder ``name``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Converted:
    """Official checkpoints, turned into what a bundle stores; ``summary`` is one line for people."""

    model: nn.Module
    prior: LatentDDIM | None
    directions: Directions | None
    summary: str


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """What a method is trained around: of which ``kind``, by which ``option`` it is named.

    ``purpose`` says what the method does with it, ``hint`` where to get one.
    """

    kind: Literal["dpm", "first-stage"]
    option: str
    purpose: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class Method:
    """A paper's entry in the registry.

    ``components`` maps each sub-folder of a bundle, which is also the model's attribute that holds the
    network, to the class of its config (``Backbone``: either kind of UNet). ``config`` is the class of a
    whole config: it has those by the same names and, where there is a sampler, ``sampling`` and
    ``prediction``. ``model`` makes of one a model with fresh weights. ``adopt`` changes a preset's config as
    the command's options say and, in a method that is trained around a ``pretrained`` model, to fit that
    model, whose weights the built model then takes by its own ``adopt``; in others it is given None for it.
    ``adopted`` says which options make a config. ``convert`` takes the authors' files and
    ``convert_options``, by name. ``prior`` is what draws z unless the user says otherwise: "gaussian" where
    training makes z normal. A bundle may lack the ``optional`` components; its config then has None for
    them. ``averaged`` is the only network whose weights are averaged in training; None: all are. Without
    ``samples`` there is no sampler to store.
    ``usual_preset`` is trained where the user names none.
    """

    name: str
    title: str
    components: Mapping[str, Any]
    config: type[Any]
    model: Callable[[Any], nn.Module]
    presets: Mapping[str, Preset]
    convert: Callable[..., Converted]
    pretrained: Pretrained | None = None
    adopt: Callable[..., Any] | None = None
    adopted: Callable[[Any], Mapping[str, Any]] = lambda config: {}
    convert_options: frozenset[str] = frozenset()
    prior: str = "latent-ddim"
    optional: frozenset[str] = frozenset()
    averaged: str | None = None
    samples: bool = True
    usual_preset: str = "small64"
