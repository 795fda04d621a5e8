"""LRDM's representation: an encoder to a Gaussian, and a pyramid of maps from a draw of it.

(Traub 2022, arXiv 2210.11058, section 4.1.) The encoder answers mean and log-variance of z, a small map or
a vector; the pyramid, one map for each resolution of the UNet, which it conditions. There is no other
decoder: what z must hold, the diffusion loss says.

With a ``generator``, which the paper has not, the maps are its own, and besides them it gives a guess of the
latents themselves (:mod:`rdm_cli.models.generator`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from rdm_cli.models.foreign_config import LATER
from rdm_cli.models.generator import Generator, GeneratorConfig, Guess
from rdm_cli.models.latent_blocks import Embedding, HeadNorm
from rdm_cli.models.latent_tower import LatentTower, run_down, run_up

LOGVAR_RANGE = (-30.0, 10.0)
FIRST_LOGVAR = -5.0
"""Where the log-variance of a z that a generator reads begins: drawn as widely as at 0, z would say little of
an image for the first thousands of steps."""


@dataclass(frozen=True, kw_only=True)
class PyramidConfig:
    """Shape of a pyramid that was configured apart from the encoder; its fields mean what the encoder's do.

    ``hidden_channels`` None are the encoder's. It has as many levels as the encoder.
    """

    model_channels: int
    channel_mult: tuple[int, ...]
    attention_resolutions: tuple[int, ...] = ()
    hidden_channels: int | None = None

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the maps, from the shallowest level to the deepest."""
        return tuple(m * self.model_channels for m in self.channel_mult)


@dataclass(frozen=True, kw_only=True)
class RepresentationConfig:
    """Shape of a :class:`Representation` for latents of ``latent_channels`` and ``latent_size`` squared.

    z has ``z_channels`` maps of the side that is left after ``len(channel_mult) - 1`` halvings or, with
    ``z_width``, is a vector of that many values. ``hidden_channels`` lie between it and either network.
    ``time``: encoder and pyramid are functions of t as well (t-LRDM). Classes enter the encoder.
    ``kl_weight`` is the paper's lambda. ``pyramid`` None: the pyramid is shaped as the encoder is. A
    ``generator`` of latents stands in the pyramid's place; it needs a z that is a vector, one for all t.
    """

    NETWORK: ClassVar[str] = "Representation"

    latent_size: int
    latent_channels: int
    model_channels: int
    channel_mult: tuple[int, ...]
    z_channels: int
    hidden_channels: int
    num_encoder_blocks: int = 2
    num_decoder_blocks: int = 1
    attention_resolutions: tuple[int, ...] = ()
    dropout: float = 0.1
    z_width: int | None = None
    time: bool = False
    num_classes: int | None = None
    adaptive: bool = False
    kl_weight: float = 1e-4
    pyramid: PyramidConfig | None = field(default=None, metadata={LATER: True})
    generator: GeneratorConfig | None = field(default=None, metadata={LATER: True})

    def __post_init__(self) -> None:
        if self.generator is not None:
            self._check(self.generator)
        if len(self.pyramid_shape.channel_mult) != len(self.channel_mult):
            raise ValueError("encoder and pyramid have different numbers of levels")
        if self.latent_size % 2 ** (len(self.channel_mult) - 1):
            raise ValueError(f"latents of {self.latent_size} cannot be halved that often")

    def _check(self, generator: GeneratorConfig) -> None:
        if self.pyramid is not None or self.time:
            raise ValueError("a generator goes with no pyramid, and with no z that is a function of t")
        if generator.z_width != self.z_width:
            raise ValueError("the encoder and the generator disagree about the width of z")
        made = (generator.image_size, generator.image_channels, generator.patch_size)
        if made != (self.latent_size, self.latent_channels, 1):
            raise ValueError("the encoder and the generator disagree about the latents")

    @property
    def z_side(self) -> int:
        """Side of the deepest maps."""
        return self.latent_size >> (len(self.channel_mult) - 1)

    @property
    def z_shape(self) -> tuple[int, ...]:
        """Shape of one code."""
        return (self.z_channels, self.z_side, self.z_side) if self.z_width is None else (self.z_width,)

    @property
    def pyramid_shape(self) -> PyramidConfig:
        """The pyramid's own shape, or the encoder's."""
        return self.pyramid or PyramidConfig(
            model_channels=self.model_channels,
            channel_mult=self.channel_mult,
            attention_resolutions=self.attention_resolutions,
        )

    @property
    def map_channels(self) -> tuple[int, ...]:
        """Channels of the pyramid's, or the generator's, maps, from the shallowest level to the deepest."""
        return self.pyramid_shape.widths if self.generator is None else self.generator.channels[::-1]


class RepresentationEncoder(LatentTower):
    """Clean latents (B, C, H, W) to the ``hidden_channels`` maps from which mean and log-variance come."""

    def __init__(self, config: RepresentationConfig) -> None:
        c, widths = config, [m * config.model_channels for m in config.channel_mult]
        super().__init__(
            embed_width=4 * c.model_channels if c.time or c.num_classes else None, dropout=c.dropout,
            adaptive=c.adaptive, attention_resolutions=c.attention_resolutions,
        )  # fmt: skip
        self.config = config
        self.embedding = Embedding(c.model_channels, time=c.time, num_classes=c.num_classes)
        self.conv_in = nn.Conv2d(c.latent_channels, c.model_channels, 3, padding=1)
        self.down, _ = self.make_down(c.model_channels, widths, c.latent_size, c.num_encoder_blocks)
        self.mid = self.make_middle(widths[-1])
        self.head = HeadNorm(widths[-1], c.hidden_channels)

    def forward(self, z_0: Tensor, t: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        activated = self.embedding(t, y)
        h, _ = run_down(self.down, self.conv_in(z_0), activated)
        return self.head(self.mid(h, activated))


class Pyramid(LatentTower):
    """``hidden_channels`` maps, and t, to one map for each resolution, deepest first.

    The middle knows nothing of t, and classes enter nowhere: they are the UNet's own business.
    """

    def __init__(self, config: RepresentationConfig) -> None:
        c, shape, widths = config, config.pyramid_shape, config.map_channels
        super().__init__(
            embed_width=4 * shape.model_channels if c.time else None, dropout=0.0, adaptive=c.adaptive,
            attention_resolutions=shape.attention_resolutions,
        )  # fmt: skip
        self.config = config
        self.embedding = Embedding(shape.model_channels, time=c.time, num_classes=None)
        self.conv_in = nn.Conv2d(shape.hidden_channels or c.hidden_channels, widths[-1], 3, padding=1)
        self.mid = self.make_middle(widths[-1], embed=False)
        self.up = self.make_up(widths[-1], widths, c.z_side, c.num_decoder_blocks + 1, None)
        self.head = HeadNorm(widths[0], widths[0])

    def forward(self, h: Tensor, t: Tensor | None = None) -> list[Tensor]:
        activated = self.embedding(t, None)
        h, maps = run_up(self.up, self.mid(self.conv_in(h), None), activated, None)
        return [*maps, self.head(h)]


class Representation(nn.Module):
    """Encoder and pyramid with the layers between them and z; or encoder and generator."""

    def __init__(self, config: RepresentationConfig) -> None:
        super().__init__()
        self.config = c = config
        self.encoder = RepresentationEncoder(c)
        self.generator = None
        self.to_z: nn.Module
        self.from_z: nn.Module
        if c.generator is not None:
            assert c.z_width is not None
            self.generator = Generator(c.generator)
            last = nn.Linear(c.hidden_channels * c.z_side**2, 2 * c.z_width)
            nn.init.constant_(last.bias[c.z_width :], FIRST_LOGVAR)
            self.to_z = nn.Sequential(nn.Flatten(), last)
            return
        self.pyramid = Pyramid(c)
        hidden = c.pyramid_shape.hidden_channels or c.hidden_channels
        if c.z_width is None:
            self.to_z = nn.Conv2d(c.hidden_channels, 2 * c.z_channels, 1)
            self.from_z = nn.Conv2d(c.z_channels, hidden, 1)
        else:
            area = c.z_side**2
            maps = (hidden, c.z_side, c.z_side)
            self.to_z = nn.Sequential(nn.Flatten(), nn.Linear(c.hidden_channels * area, 2 * c.z_width))
            self.from_z = nn.Sequential(nn.Linear(c.z_width, hidden * area), nn.Unflatten(1, maps))

    def posterior(
        self, z_0: Tensor, t: Tensor | None = None, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, (B, *z_shape) each, of z for clean latents ``z_0`` (B, C, H, W)."""
        mean, logvar = self.to_z(self.encoder(z_0, t, y)).chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def maps(self, z: Tensor, t: Tensor | None = None) -> list[Tensor]:
        """The pyramid of ``z`` (B, *z_shape), deepest map first."""
        return self.pyramid(self.from_z(z), t)

    def guess(self, z: Tensor) -> Guess | None:
        """The latents that ``z`` (B, *z_shape) says, and the maps on the way; None without a generator."""
        return None if self.generator is None else self.generator(z)


def kl_to_normal(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)), summed over all but the batch: (B,)."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).flatten(1).sum(dim=1)


def draw(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """mean + exp(logvar / 2) noise."""
    return torch.addcmul(mean, (0.5 * logvar).exp(), noise)
