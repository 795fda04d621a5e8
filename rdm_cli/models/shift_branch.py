"""PDAE's gradient estimator (Zhang et al., NeurIPS 2022, arXiv 2212.12990, section 3.3).

A second way up on the features that a frozen UNet's way down has computed anyway, conditioned on z by
scale and shift. Its last convolution starts at zero, and so does the last of each of its residual
blocks: at the start it answers zero, which leaves the frozen model as it was.

rdm's own small presets show the branch more than the paper does: the maps of the frozen way up too, so that
what it adds can answer to what is there. Each joins the branch's own map at its place, by a 1 x 1 convolution
that starts at zero.

With a generator (:mod:`rdm_cli.models.generator`) the branch is shown what z alone says as well: at each of
the frozen way down's maps, the generator's map of that size, its picture, and what x_t and the frozen
prediction say beside that. It then does not answer G, but how far x_0 is from what they make together. The
frozen maps count as much as x_t still says: a branch that was given them as they are passed noise on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdm_cli.models.blocks import resample, zero_init
from rdm_cli.models.foreign_config import LATER
from rdm_cli.models.generator import GeneratorConfig, Guess
from rdm_cli.models.unet import (
    Features,
    Place,
    UNetConfig,
    UpwardHalf,
    map_sides,
    map_widths,
    place_widths,
    unchanged,
)
from rdm_cli.models.unet2d_config import UNet2DConfig


@dataclass(frozen=True, kw_only=True)
class ShiftConfig:
    """``z_width`` values condition the branch, which has the architecture of the UNet ``unet``.

    ``gamma`` is the exponent of the loss that trains it; None weighs all timesteps alike.
    ``sees_prediction``: the branch is given the maps of the frozen way up. ``generator``: of the guess that
    the branch is shown; None: it is shown none.
    """

    unet: UNetConfig | UNet2DConfig
    z_width: int = 512
    gamma: float | None = 0.1
    sees_prediction: bool = False
    generator: GeneratorConfig | None = field(default=None, metadata={LATER: True})


@dataclass(frozen=True)
class Shown:
    """A ``guess``, and what is said beside it: ``residuals`` (B, 2 C, H, W), x_t's and the frozen model's.

    The frozen model's maps count by a ``weight`` (B, 1, 1, 1), from 0 to 1.
    """

    guess: Guess
    residuals: Tensor
    weight: Tensor


class GuessJoins(nn.Module):
    """What is shown of a guess, joined by 1 x 1 convolutions to maps of ``sides`` and ``widths``."""

    def __init__(self, generator: GeneratorConfig, sides: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.sides = tuple(sides)
        self.levels = {side: level for level, side in enumerate(generator.sides)}
        self.image_size = generator.image_size
        self.convs = nn.ModuleList()
        for side, width in zip(sides, widths, strict=True):
            channels = 3 * generator.image_channels * (4 if side < self.image_size else 1)
            if side in self.levels:
                channels += generator.channels[self.levels[side]]
            self.convs.append(nn.Conv2d(channels, width, 1))

    def forward(self, maps: Sequence[Tensor], shown: Shown) -> list[Tensor]:
        """Frozen ``maps`` with, on each, what is shown of its side."""
        pictures = torch.cat([shown.residuals, shown.guess.picture], dim=1)
        at_side = {self.image_size: pictures}
        side, h = self.image_size // 2, F.pixel_unshuffle(pictures, 2)
        while side >= min(self.sides):
            at_side[side] = h
            side, h = side // 2, resample(h, "down") if side > 1 else h
        for side, level in self.levels.items():
            if side in at_side:
                at_side[side] = torch.cat([shown.guess.maps[level], at_side[side]], dim=1)
        joins = zip(maps, self.convs, self.sides, strict=True)
        return [h * shown.weight.to(h.dtype) + conv(at_side[side]) for h, conv, side in joins]


class Joins(nn.Module):
    """The frozen way up's maps, of ``widths`` channels, joined to a branch's own."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(zero_init(nn.Conv2d(width, width, 1)) for width in widths)

    def place(self, seen: Sequence[Tensor], shown: Shown | None) -> Place:
        """Adds of ``seen``, the frozen maps in order, the one at each place."""
        if shown is not None:
            seen = [h * shown.weight.to(h.dtype) for h in seen]
        return lambda i, h: h + self.convs[i](seen[i].contiguous())


def noting(seen: list[Tensor]) -> Place:
    """Appends the map at each place to ``seen``, and changes none."""

    def note(_: int, h: Tensor) -> Tensor:
        seen.append(h)
        return h

    return note


def guess_joins(config: ShiftConfig, sides: Sequence[int], widths: Sequence[int]) -> GuessJoins | None:
    """The joins of a branch on maps of ``sides`` and ``widths``; None: it is shown no guess."""
    return None if config.generator is None else GuessJoins(config.generator, sides, widths)


def with_guess(maps: list[Tensor], joins: GuessJoins | None, shown: Shown | None) -> list[Tensor]:
    """``maps`` with what is ``shown``; as they are where there are no ``joins``."""
    if joins is None:
        return maps
    assert shown is not None
    joined: list[Tensor] = joins(maps, shown)
    return joined


class ShiftBranch(UpwardHalf):
    """(features of x_t and t, z) to G, of the image's shape."""

    def __init__(self, config: ShiftConfig) -> None:
        assert isinstance(config.unet, UNetConfig)
        super().__init__(config.unet, config.unet.time_width, z_shifts=True)
        self.label_embed = nn.Linear(config.z_width, config.unet.time_width)
        self.joins = Joins(place_widths(config.unet)) if config.sees_prediction else None
        self.guess_joins = guess_joins(config, map_sides(config.unet), map_widths(config.unet))

    def condition(self, z: Tensor | None) -> list[Tensor | None]:
        """Everything the branch needs of ``z`` (B, z_width): a scale and a shift for each block."""
        return super().condition(None if z is None else self.label_embed(z))

    def forward(
        self,
        features: Features,
        z_scales: list[Tensor | None],
        seen: Sequence[Tensor] = (),
        shown: Shown | None = None,
    ) -> Tensor:
        """G (B, C, H, W) from a frozen UNet's ``features`` and the result of :meth:`condition`.

        ``seen`` are the maps of its way up, if the branch is given them; ``shown``: if it is shown a guess.

        The features are made contiguous: torch's CPU GroupNorm (2.13) crashes the process in the
        backward pass of a channels_last input that needs no gradient, which these may be.
        """
        maps = with_guess([m.contiguous() for m in features.maps], self.guess_joins, shown)
        place = unchanged if self.joins is None else self.joins.place(seen, shown)
        return self.upward(Features(features.time, maps), z_scales, place)
