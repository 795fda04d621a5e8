"""Which network a configuration means: our own UNet, or diffusers', which is imported only for that."""

from __future__ import annotations

from torch import nn

from rdm_cli.models.shift_branch import ShiftBranch, ShiftConfig
from rdm_cli.models.unet import ConditionalUNet, UNetConfig
from rdm_cli.models.unet2d_config import UNet2DConfig

Backbone = UNetConfig | UNet2DConfig


def build_unet(config: Backbone) -> nn.Module:
    """The UNet that ``config`` describes, with fresh weights."""
    if isinstance(config, UNetConfig):
        return ConditionalUNet(config)
    from rdm_cli.models.unet2d import PretrainedUNet2D

    return PretrainedUNet2D.build(config)


def build_shift(config: ShiftConfig) -> nn.Module:
    """PDAE's shift branch for a UNet of either kind."""
    if isinstance(config.unet, UNetConfig):
        return ShiftBranch(config)
    from rdm_cli.models.unet2d import ShiftUNet2D

    return ShiftUNet2D(config)
