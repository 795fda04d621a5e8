"""PDAE's gradient estimator (Zhang et al., NeurIPS 2022, arXiv 2212.12990, section 3.3).

A second way up on the features that a frozen UNet's way down has computed anyway, conditioned on z by
scale and shift. Its last convolution starts at zero, and so does the last of each of its residual
blocks: at the start it answers zero, which leaves the frozen model as it was.

rdm's own small presets show the branch more than the paper does: the maps of the frozen way up too, so that
what it adds can answer to what is there. Each joins the branch's own map at its place, by a 1 x 1 convolution
that starts at zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from rdm_cli.models.blocks import zero_init
from rdm_cli.models.unet import Features, Place, UNetConfig, UpwardHalf, place_widths, unchanged
from rdm_cli.models.unet2d_config import UNet2DConfig


@dataclass(frozen=True, kw_only=True)
class ShiftConfig:
    """``z_width`` values condition the branch, which has the architecture of the UNet ``unet``.

    ``gamma`` is the exponent of the loss that trains it; None weighs all timesteps alike.
    ``sees_prediction``: the branch is given the maps of the frozen way up.
    """

    unet: UNetConfig | UNet2DConfig
    z_width: int = 512
    gamma: float | None = 0.1
    sees_prediction: bool = False


class Joins(nn.Module):
    """The frozen way up's maps, of ``widths`` channels, joined to a branch's own."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(zero_init(nn.Conv2d(width, width, 1)) for width in widths)

    def place(self, seen: Sequence[Tensor]) -> Place:
        """Adds of ``seen``, the frozen maps in order, the one at each place."""
        return lambda i, h: h + self.convs[i](seen[i].contiguous())


def noting(seen: list[Tensor]) -> Place:
    """Appends the map at each place to ``seen``, and changes none."""

    def note(_: int, h: Tensor) -> Tensor:
        seen.append(h)
        return h

    return note


class ShiftBranch(UpwardHalf):
    """(features of x_t and t, z) to G, of the image's shape."""

    def __init__(self, config: ShiftConfig) -> None:
        assert isinstance(config.unet, UNetConfig)
        super().__init__(config.unet, config.unet.time_width, z_shifts=True)
        self.label_embed = nn.Linear(config.z_width, config.unet.time_width)
        self.joins = Joins(place_widths(config.unet)) if config.sees_prediction else None

    def condition(self, z: Tensor | None) -> list[Tensor | None]:
        """Everything the branch needs of ``z`` (B, z_width): a scale and a shift for each block."""
        return super().condition(None if z is None else self.label_embed(z))

    def forward(
        self, features: Features, z_scales: list[Tensor | None], seen: Sequence[Tensor] = ()
    ) -> Tensor:
        """G (B, C, H, W) from a frozen UNet's ``features`` and the result of :meth:`condition`.

        ``seen`` are the maps of its way up, if the branch is given them.

        The features are made contiguous: torch's CPU GroupNorm (2.13) crashes the process in the
        backward pass of a channels_last input that needs no gradient, which these may be.
        """
        contiguous = Features(features.time, [m.contiguous() for m in features.maps])
        place = unchanged if self.joins is None else self.joins.place(seen)
        return self.upward(contiguous, z_scales, place)
