"""A diffusers ``UNet2DModel`` in two halves, and PDAE's shift branch on its classes.

The halves do what ``UNet2DModel.forward`` does, to the bit, but leave what the way down computes for a
second way up. That one is a fresh way up of the same architecture whose residual blocks also take z:
diffusers' blocks hand ``temb`` on to them without looking at it, so it can be a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdm_cli.models.blocks import zero_init
from rdm_cli.models.shift_branch import Joins, ShiftConfig, Shown, guess_joins, with_guess
from rdm_cli.models.unet import Features, Place, unchanged
from rdm_cli.models.unet2d_config import CLASS_LABEL, UNet2DConfig

if TYPE_CHECKING:  # diffusers' annotations do not say that its networks are modules
    UNet2DModel = Any
    ResnetBlock2D = nn.Module
    Attention = nn.Module
else:
    from diffusers import UNet2DModel
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import ResnetBlock2D

Modulation = tuple[Tensor, Tensor]


class PretrainedUNet2D(UNet2DModel):  # type: ignore[misc]
    """A ``UNet2DModel`` with the interface of :class:`~rdm_cli.models.unet.ConditionalUNet`."""

    rdm_config: UNet2DConfig

    @classmethod
    def build(cls, config: UNet2DConfig) -> PretrainedUNet2D:
        """The network that ``config`` describes, with fresh weights; raises ValueError or TypeError."""
        network: PretrainedUNet2D = cls.from_config(dict(config.values))
        network.rdm_config = config
        return network

    def condition(self, z: None) -> list[Tensor | None]:
        """Nothing: there is no z."""
        return []

    def features(self, x_t: Tensor, t: Tensor, condition: list[Tensor | None]) -> Features:
        """The way down, from ``x_t`` (B, C, H, W) and ``t`` (B,)."""
        h = self.conv_in(2 * x_t - 1 if self.config.center_input_sample else x_t)
        time = self.time_embedding(self.time_proj(t).to(self.dtype))
        if self.class_embedding is not None:
            label = torch.full((len(x_t),), self.rdm_config.values[CLASS_LABEL], device=x_t.device)
            by_time = self.config.class_embed_type == "timestep"
            time = time + self.class_embedding(self.time_proj(label) if by_time else label).to(self.dtype)
        maps = [h]
        for block in self.down_blocks:
            h, laterals = block(hidden_states=h, temb=time)
            maps += laterals
        return Features(time, maps)

    def upward(
        self, features: Features, condition: list[Tensor | None], at_place: Place = unchanged
    ) -> Tensor:
        """From the way down's ``features`` to (B, C, H, W), without a learned variance."""
        h = walk_up(self, features, features.time, at_place)
        return self.conv_out(h)[:, : self.rdm_config.image_channels]


def walk_up(network: Any, features: Features, time: Any, at_place: Place) -> Tensor:
    """The middle and the way up, to the last activation; ``time`` is handed to each residual block.

    The places are after the middle, and after each of diffusers' up blocks.
    """
    laterals = list(features.maps)
    h = laterals[-1]
    if network.mid_block is not None:
        h = network.mid_block(h, time)
    h = at_place(0, h)
    for i, block in enumerate(network.up_blocks):
        num = len(block.resnets)
        h = at_place(i + 1, block(h, tuple(laterals[-num:]), time))
        del laterals[-num:]
    return F.silu(network.conv_norm_out(h))


class ShiftedResnet(nn.Module):
    """A ``ResnetBlock2D`` whose second normalisation z scales and shifts as well, after the time did."""

    def __init__(self, block: Any, time_width: int, index: int) -> None:
        super().__init__()
        self.block = block
        self.z_proj = nn.Linear(time_width, 2 * block.out_channels)
        self.index = index
        zero_init(block.conv2)

    def forward(self, x: Tensor, temb: tuple[Tensor, list[Modulation]]) -> Tensor:
        time, modulations = temb  # diffusers' name, by which its blocks pass it on
        block = self.block
        z_scale, z_shift = modulations[self.index]
        h = block.nonlinearity(block.norm1(x))
        resample = block.upsample or block.downsample
        if resample is not None:
            # diffusers' nearest upsampling fails on large channels_last batches
            x, h = resample(x.contiguous()), resample(h.contiguous())
        h = block.conv1(h)
        by_time = block.time_emb_proj(time if block.skip_time_act else block.nonlinearity(time))
        by_time = by_time[:, :, None, None]
        if block.time_embedding_norm == "scale_shift":
            scale, shift = by_time.chunk(2, dim=1)
            h = block.norm2(h) * (1 + scale) + shift
        else:
            h = block.norm2(h + by_time)
        h = block.nonlinearity((1 + z_scale) * h + z_shift)
        h = block.conv2(block.dropout(h))
        if block.conv_shortcut is not None:
            x = block.conv_shortcut(x.contiguous())
        return (x + h) / block.output_scale_factor


class ShiftUNet2D(nn.Module):
    """(features of x_t and t, z) to G, of the image's shape; see :mod:`rdm_cli.models.shift_branch`."""

    def __init__(self, config: ShiftConfig) -> None:
        super().__init__()
        assert isinstance(config.unet, UNet2DConfig)
        width = config.unet.time_width
        self.label_embed = nn.Linear(config.z_width, width)
        fresh = PretrainedUNet2D.build(config.unet)
        self.mid_block, self.up_blocks = fresh.mid_block, fresh.up_blocks
        self.conv_norm_out = fresh.conv_norm_out
        conv_out = nn.Conv2d(fresh.conv_out.in_channels, config.unet.image_channels, 3, padding=1)
        self.conv_out = zero_init(conv_out)
        widths = tuple(fresh.config.block_out_channels)[::-1]
        self.joins = Joins([widths[0], *widths]) if config.sees_prediction else None
        self.guess_joins = guess_joins(config, *_sides_and_widths(config.unet, fresh.config))
        self._blocks: list[ShiftedResnet] = []
        for module in list(self.modules()):
            if isinstance(module, Attention):
                zero_init(cast(Any, module).to_out[0])
            for name, child in list(module.named_children()):
                if isinstance(child, ResnetBlock2D):
                    self._blocks.append(ShiftedResnet(child, width, len(self._blocks)))
                    setattr(module, name, self._blocks[-1])

    def condition(self, z: Tensor) -> list[Modulation]:
        """Everything the branch needs of ``z`` (B, z_width): a scale and a shift for each block."""
        activated = F.silu(self.label_embed(z))
        return [block.z_proj(activated)[:, :, None, None].chunk(2, dim=1) for block in self._blocks]

    def forward(
        self,
        features: Features,
        condition: list[Modulation],
        seen: Sequence[Tensor] = (),
        shown: Shown | None = None,
    ) -> Tensor:
        """G (B, C, H, W); features are made contiguous for the reason that ShiftBranch gives."""
        maps = with_guess([m.contiguous() for m in features.maps], self.guess_joins, shown)
        place = unchanged if self.joins is None else self.joins.place(seen, shown)
        return self.conv_out(walk_up(self, Features(features.time, maps), (features.time, condition), place))


def _sides_and_widths(config: UNet2DConfig, network: Any) -> tuple[list[int], list[int]]:
    """Of every map that the way down of ``network``, a ``UNet2DModel``'s config, leaves, in order."""
    channels = tuple(network.block_out_channels)
    sides, widths = [config.image_size], [channels[0]]
    for level, width in enumerate(channels):
        halves = level < len(channels) - 1
        sides += [config.image_size >> level] * network.layers_per_block
        sides += [config.image_size >> (level + 1)] * halves
        widths += [width] * (network.layers_per_block + halves)
    return sides, widths
