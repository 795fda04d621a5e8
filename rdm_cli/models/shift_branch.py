"""PDAE's gradient estimator (Zhang et al., NeurIPS 2022, arXiv 2212.12990, section 3.3).

A second way up on the features that a frozen UNet's way down has computed anyway, conditioned on z by
scale and shift. Its last convolution starts at zero, and so does the last of each of its residual
blocks: at the start it answers zero, which leaves the frozen model as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from rdm_cli.models.unet import Features, UNetConfig, UpwardHalf
from rdm_cli.models.unet2d_config import UNet2DConfig


@dataclass(frozen=True, kw_only=True)
class ShiftConfig:
    """``z_width`` values condition the branch, which has the architecture of the UNet ``unet``.

    ``gamma`` is the exponent of the loss that trains it; None weighs all timesteps alike.
    """

    unet: UNetConfig | UNet2DConfig
    z_width: int = 512
    gamma: float | None = 0.1


class ShiftBranch(UpwardHalf):
    """(features of x_t and t, z) to G, of the image's shape."""

    def __init__(self, config: ShiftConfig) -> None:
        assert isinstance(config.unet, UNetConfig)
        super().__init__(config.unet, config.unet.time_width, z_shifts=True)
        self.label_embed = nn.Linear(config.z_width, config.unet.time_width)

    def condition(self, z: Tensor | None) -> list[Tensor | None]:
        """Everything the branch needs of ``z`` (B, z_width): a scale and a shift for each block."""
        return super().condition(None if z is None else self.label_embed(z))

    def forward(self, features: Features, z_scales: list[Tensor | None]) -> Tensor:
        """G (B, C, H, W) from a frozen UNet's ``features`` and the result of :meth:`condition`.

        The features are made contiguous: torch's CPU GroupNorm (2.13) crashes the process in the
        backward pass of a channels_last input that needs no gradient, which these may be.
        """
        contiguous = Features(features.time, [m.contiguous() for m in features.maps])
        return self.upward(contiguous, z_scales)
