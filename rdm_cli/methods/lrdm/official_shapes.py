"""LRDM's networks, told from the shapes of the authors' weights.

What shapes do not show is given: the side of the latents, and how wide an attention head is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rdm_cli.errors import CheckpointError
from rdm_cli.models.first_stage import FirstStageConfig
from rdm_cli.models.latent_unet import LatentUNetConfig, Weighting
from rdm_cli.models.representation import PyramidConfig, RepresentationConfig
from rdm_cli.models.style_shape import StyleShapeConfig

State = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Levels:
    """One way, down or up, of a network: each level's width, number of blocks, and whether it attends."""

    widths: tuple[int, ...]
    num_blocks: int
    attends: tuple[bool, ...]

    def resolutions(self, latent_size: int) -> tuple[int, ...]:
        """Sides of the maps that attend, when the first level works at ``latent_size``."""
        return tuple(latent_size >> i for i, attends in enumerate(self.attends) if attends)


def _of(state: State, name: str) -> Tensor:
    if name not in state:
        raise CheckpointError(f"{name} is missing")
    return state[name]


def levels(state: State, way: str) -> Levels:
    """The levels of ``way``, "down" or "up", in the order of their numbers."""
    found = sorted({int(m.group(1)) for m in (re.match(rf"{way}\.(\d+)\.main\.", n) for n in state) if m})
    if found != list(range(len(found))) or not found:
        raise CheckpointError(f"its levels {way}.0, {way}.1, ... are not all there")
    widths, attends, blocks = [], [], set()
    for level in found:
        names = [n for n in state if re.fullmatch(rf"{way}\.{level}\.main\.\d+\.out_layers\.3\.weight", n)]
        blocks.add(len(names))
        widths.append(_of(state, f"{way}.{level}.main.0.out_layers.3.weight").shape[0])
        attends.append(f"{way}.{level}.main.1.qkv.weight" in state)
    if len(blocks) != 1:
        raise CheckpointError(f"its levels of {way} have different numbers of blocks")
    return Levels(widths=tuple(widths), num_blocks=blocks.pop(), attends=tuple(attends))


def _mult(widths: tuple[int, ...], channels: int) -> tuple[int, ...]:
    if any(width % channels for width in widths):
        raise CheckpointError(f"its widths {widths} are no multiples of {channels}")
    return tuple(width // channels for width in widths)


def unet_config(
    state: State, *, latent_size: int, head_channels: int, dropout: float, weighting: Weighting
) -> LatentUNetConfig:
    """The conditioned UNet; raises CheckpointError for kinds that no published model is of."""
    if "time_conditioning.1.weight" not in state:
        raise CheckpointError("its time embedding is not the published one (time_conditioning.1 is missing)")
    way = levels(state, "down")
    channels, latent_channels = _of(state, "conv_in.weight").shape[:2]
    embed = _of(state, "down.0.main.0.emb_layers.1.weight")
    if embed.shape[0] != 2 * way.widths[0]:
        raise CheckpointError("its blocks have no adaptive group norm, as every published UNet has")
    entering = (channels, *way.widths[:-1])
    maps = tuple(
        _of(state, f"down.{i}.main.0.in_layers.0.weight").shape[0] - h for i, h in enumerate(entering)
    )
    classes = state.get("label_emb.weight")
    return LatentUNetConfig(
        latent_size=latent_size,
        latent_channels=latent_channels,
        model_channels=channels,
        channel_mult=_mult(way.widths, channels),
        num_res_blocks=way.num_blocks,
        attention_resolutions=way.resolutions(latent_size),
        head_channels=head_channels,
        dropout=dropout,
        map_channels=maps if any(maps) else (),
        # the files number their classes and do not name them
        class_names=() if classes is None else tuple(map(str, range(len(classes)))),
        weighting=weighting,
    )


def _time_channels(state: State) -> int | None:
    """The channels that a network's time embedding starts from; None where it is not told the time."""
    weight = state.get("time_conditioning.1.weight")
    return None if weight is None else weight.shape[1]


def _own_pyramid(
    encoder: Levels,
    decoder: Levels,
    *,
    latent_size: int,
    channels: tuple[int, int],
    hidden: tuple[int, int] = (0, 0),
) -> PyramidConfig | None:
    """The decoder's shape; None where it is the encoder's. Both ways are given from the shallowest level on.

    ``channels`` and ``hidden`` are the encoder's and the decoder's. Where widths are no multiples of the
    decoder's channels, nothing shows these, and it is not told the time, which alone depends on them.
    """
    alike = (encoder.widths, encoder.attends) == (decoder.widths, decoder.attends)
    if alike and channels[0] == channels[1] and hidden[0] == hidden[1]:
        return None
    base = channels[1] if all(w % channels[1] == 0 for w in decoder.widths) else math.gcd(*decoder.widths)
    return PyramidConfig(
        model_channels=base,
        channel_mult=_mult(decoder.widths, base),
        attention_resolutions=decoder.resolutions(latent_size),
        hidden_channels=None if hidden[0] == hidden[1] else hidden[1],
    )


def representation_config(
    state: State, *, latent_size: int, dropout: float, kl_weight: float
) -> RepresentationConfig:
    """Encoder and pyramid with the layers between; ``state`` has the names below ``repr_ae``."""
    encoder = {n.removeprefix("encoder."): t for n, t in state.items() if n.startswith("encoder.")}
    decoder = {n.removeprefix("decoder."): t for n, t in state.items() if n.startswith("decoder.")}
    way, back = levels(encoder, "down"), levels(decoder, "up")
    channels, latent_channels = _of(encoder, "conv_in.weight").shape[:2]
    two_z, hidden = _of(state, "quant_conv.weight").shape[:2]
    time = _time_channels(encoder)
    if (time is None) != (_time_channels(decoder) is None):
        raise CheckpointError("of its representation encoder and decoder, one alone is told the time")
    upward = Levels(widths=back.widths[::-1], num_blocks=back.num_blocks, attends=back.attends[::-1])
    classes, from_z = encoder.get("label_emb.weight"), state.get("post_quant_conv.weight")
    return RepresentationConfig(
        latent_size=latent_size,
        latent_channels=latent_channels,
        model_channels=channels,
        channel_mult=_mult(way.widths, channels),
        z_channels=two_z // 2,
        hidden_channels=hidden,
        num_encoder_blocks=way.num_blocks,
        num_decoder_blocks=back.num_blocks - 1,
        attention_resolutions=way.resolutions(latent_size),
        dropout=dropout,
        time=time is not None,
        kl_weight=kl_weight,
        num_classes=None if classes is None else len(classes),
        pyramid=_own_pyramid(
            way,
            upward,
            latent_size=latent_size,
            channels=(channels, _time_channels(decoder) or channels),
            hidden=(hidden, hidden if from_z is None else from_z.shape[0]),
        ),
    )


def style_shape_config(
    state: State, *, latent_size: int, dropout: float, kl_weight: float, warp: Mapping[str, Any]
) -> StyleShapeConfig:
    """Encoder and style pyramid; ``warp`` has grid_size and strength_factor."""
    encoder = {n.removeprefix("encoder."): t for n, t in state.items() if n.startswith("encoder.")}
    decoder = {n.removeprefix("decoder."): t for n, t in state.items() if n.startswith("decoder.")}
    way, other = levels(encoder, "down"), levels(decoder, "down")
    channels, latent_channels = _of(encoder, "conv_in.weight").shape[:2]
    own = _of(decoder, "conv_in.weight").shape[0]
    return StyleShapeConfig(
        latent_size=latent_size,
        latent_channels=latent_channels,
        model_channels=channels,
        channel_mult=_mult(way.widths, channels),
        z_channels=_of(decoder, "conv_r_in.weight").shape[1],
        num_encoder_blocks=way.num_blocks,
        num_decoder_blocks=other.num_blocks,
        attention_resolutions=way.resolutions(latent_size),
        dropout=dropout,
        kl_weight=kl_weight,
        grid_size=int(warp.get("grid_size", 8)),
        warp_strength=float(warp.get("strength_factor", 4.0)),
        pyramid=_own_pyramid(way, other, latent_size=latent_size, channels=(channels, own)),
    )


def first_stage_config(state: State) -> FirstStageConfig:
    """The authors' VQ or KL autoencoder as diffusers describes it."""
    conv_in = _of(state, "encoder.conv_in.weight")
    widths: list[int] = []
    blocks = set()
    while f"encoder.down.{len(widths)}.block.0.conv1.weight" in state:
        level = len(widths)
        if any(n.startswith(f"encoder.down.{level}.attn.") for n in state):
            raise CheckpointError("its first stage attends on its way down, which diffusers' do not")
        widths.append(state[f"encoder.down.{level}.block.0.conv1.weight"].shape[0])
        blocks.add(
            sum(n.startswith(f"encoder.down.{level}.block.") for n in state if n.endswith("conv1.weight"))
        )
    if not widths or len(blocks) != 1:
        raise CheckpointError("its first stage has no levels, or levels of different depth")
    latent_channels = _of(state, "post_quant_conv.weight").shape[0]
    num = len(widths)
    values: dict[str, Any] = {
        "in_channels": conv_in.shape[1],
        "out_channels": _of(state, "decoder.conv_out.weight").shape[0],
        "down_block_types": ["DownEncoderBlock2D"] * num,
        "up_block_types": ["UpDecoderBlock2D"] * num,
        "block_out_channels": widths,
        "layers_per_block": blocks.pop(),
        "latent_channels": latent_channels,
        "act_fn": "silu",
    }
    if "quantize.embedding.weight" in state:
        number, width = state["quantize.embedding.weight"].shape
        values |= {"num_vq_embeddings": number, "vq_embed_dim": width}
        return FirstStageConfig(class_name="VQModel", values=values)
    return FirstStageConfig(class_name="AutoencoderKL", values=values)
