"""What every preset says, whichever paper it belongs to.

A method's presets are named once, in the ``presets.py`` of its folder. Neither that file nor this one imports
torch before a preset is used: the command line's help lists the names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rdm_cli.models.encoder import EncoderConfig
    from rdm_cli.models.generator import GeneratorConfig
    from rdm_cli.models.latent_mlp import LatentMLPConfig
    from rdm_cli.models.residual_mlp import ResidualMLPConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a preset is trained where the user says nothing else.

    ``num_images`` counts images seen. ``warmup_steps`` rise linearly to ``lr``; over the last
    ``decay_fraction`` of training it falls linearly to zero. ``optimizer`` "muon" is Muon for matrices, and
    Adam for the rest. ``timesteps`` are drawn uniformly, or even in log-SNR.
    """

    batch_size: int
    num_images: int
    lr: float = 1e-4
    weight_decay: float = 0.0
    warmup_steps: int = 0
    decay_fraction: float = 0.0
    ema_decay: float = 0.9999
    flip: bool = True
    optimizer: Literal["adam", "muon"] = "adam"
    timesteps: Literal["uniform", "log-snr"] = "uniform"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A method's configuration, its latent prior's network (None where there is no z), and its recipe."""

    config: Any
    prior: LatentMLPConfig | ResidualMLPConfig | None
    recipe: Recipe


class Presets(Mapping[str, Preset]):
    """A method's presets by name. Each is built when it is first asked for."""

    def __init__(self, builders: Mapping[str, Callable[[], Preset]]) -> None:
        self._builders = builders
        self._built: dict[str, Preset] = {}

    def __getitem__(self, name: str) -> Preset:
        if name not in self._built:
            self._built[name] = self._builders[name]()
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._builders)

    def __len__(self) -> int:
        return len(self._builders)


SMALL_RECIPE = Recipe(
    batch_size=32,
    num_images=400_000,
    lr=4e-4,
    weight_decay=0.01,
    warmup_steps=200,
    decay_fraction=0.3,
    ema_decay=0.999,
)
"""How small presets are trained on a CPU; the published 0.9999 would be far too slow for 10,000 steps."""

MUON_RECIPE = replace(
    SMALL_RECIPE,
    num_images=1_000_000,
    lr=1.5e-3,
    warmup_steps=100,
    ema_decay=0.9998,
    optimizer="muon",
    timesteps="log-snr",
)
"""How small presets are trained that have a generator, or go with one; docs/training.md compares the two."""

SMALL_SPACING: Literal["log-snr"] = "log-snr"
"""On which timesteps small presets of images sample. On the shipped faces DDIM both ways is 5 to 7 dB better
than on the papers' even timesteps (the bundles' cards), and with random x_T 0.1 to 0.2 dB worse."""

SMALL_Z_WIDTH = 256
"""How many values z has in small presets."""

_SMALL_GENERATORS = {32: ((192, 128, 64), (1, 2, 1)), 64: ((256, 192, 128, 64), (1, 2, 1, 1))}
"""Channels and blocks of a small generator at each size of images, from maps of 4 x 4 on."""


def small_parts(
    size: int, *, encoder_channels: int, encoder_mult: tuple[int, ...]
) -> tuple[EncoderConfig, GeneratorConfig]:
    """Encoder and generator of a small preset for images of ``size``, both on patches of 2 x 2."""
    from rdm_cli.models.encoder import EncoderConfig
    from rdm_cli.models.generator import GeneratorConfig

    encoder = EncoderConfig(
        image_size=size,
        model_channels=encoder_channels,
        channel_mult=encoder_mult,
        num_res_blocks=1,
        attention_resolutions=(),
        z_width=SMALL_Z_WIDTH,
        patch_size=2,
        pool="flatten",
    )
    channels, blocks = _SMALL_GENERATORS[size]
    generator = GeneratorConfig(
        image_size=size, channels=channels, num_res_blocks=blocks, z_width=SMALL_Z_WIDTH, patch_size=2
    )
    return encoder, generator
