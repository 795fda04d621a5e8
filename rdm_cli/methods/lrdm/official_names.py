"""LRDM's layers as their authors call them, and as rdm and diffusers do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

_BLOCKS = {
    "in_layers.0": "norm_1", "in_layers.2": "conv_1", "emb_layers.1": "embed_proj",
    "out_layers.0": "norm_2", "out_layers.3": "conv_2", "skip_connection": "skip",
}  # fmt: skip
_WHOLE = {
    "time_conditioning.1": "embedding.linear_1", "time_conditioning.3": "embedding.linear_2",
    "label_emb": "embedding.classes", "conv_out.0": "head.0", "conv_out.2": "head.2", "norm_out": "head.0",
    "conv_out": "head.2", "out.0": "head.0", "out.2": "head.2", "conv_in": "conv_in", "conv_r_in": "from_z",
}  # fmt: skip
_MIDDLE = {
    "0": "block_1", "1": "attention", "2": "block_2", "block_1": "block_1", "attn_1": "attention",
    "block_2": "block_2",
}  # fmt: skip
_LEVEL = re.compile(r"(down|up)\.(\d+)\.(?:main\.(\d+)|downsample|upsample)\.(.+)\.(weight|bias)")
_MIDDLE_LAYER = re.compile(r"mid\.(\w+)\.(.+)\.(weight|bias)")


def tower_names(names: Iterable[str], *, middle: str = "mid") -> dict[str, str | None]:
    """Our name for each of a UNet's, an encoder's or a pyramid's; None where there is none.

    In theirs, a level's blocks and attentions share one numbering: they alternate where it attends.
    """
    names = list(names)
    attends = {m.group(1, 2) for m in map(_LEVEL.fullmatch, names) if m and m.group(4) == "qkv"}
    return {name: _tower_name(name, attends, middle) for name in names}


def _tower_name(name: str, attends: set[tuple[str | None, ...]], middle: str) -> str | None:
    if match := _LEVEL.fullmatch(name):
        way, level, index, layer, kind = match.groups()
        if index is None:
            return f"{way}.{level}.resampler.{_BLOCKS.get(layer, layer)}.{kind}"
        if (way, level) not in attends:
            return f"{way}.{level}.blocks.{index}.{_BLOCKS.get(layer, layer)}.{kind}"
        half, is_attention = divmod(int(index), 2)
        part = "attentions" if is_attention else "blocks"
        return f"{way}.{level}.{part}.{half}.{_BLOCKS.get(layer, layer)}.{kind}"
    if match := _MIDDLE_LAYER.fullmatch(name):
        part, layer, kind = match.groups()
        ours = _MIDDLE.get(part)
        return None if ours is None else f"{middle}.{ours}.{_BLOCKS.get(layer, layer)}.{kind}"
    stem, _, kind = name.rpartition(".")
    return f"{_WHOLE[stem]}.{kind}" if stem in _WHOLE else None


_FIRST_STAGE = (
    (r"nin_shortcut", "conv_shortcut"),
    (r"mid\.block_(\d)", lambda m: f"mid_block.resnets.{int(m.group(1)) - 1}"),
    (r"mid\.attn_1\.norm", "mid_block.attentions.0.group_norm"),
    (r"mid\.attn_1\.([qkv])\.", r"mid_block.attentions.0.to_\1."),
    (r"mid\.attn_1\.proj_out", "mid_block.attentions.0.to_out.0"),
    (r"encoder\.down\.(\d+)\.block\.(\d+)", r"encoder.down_blocks.\1.resnets.\2"),
    (r"encoder\.down\.(\d+)\.downsample", r"encoder.down_blocks.\1.downsamplers.0"),
    (r"norm_out", "conv_norm_out"),
)


def first_stage_state(official: Mapping[str, Tensor], num_levels: int) -> dict[str, Tensor]:
    """The authors' VQ or KL autoencoder under diffusers' names.

    Their way up counts levels from the image, diffusers' from the latents; their attention's 1x1
    convolutions are linear layers there.
    """
    state = {}
    for name, tensor in official.items():
        ours = name
        for pattern, replacement in _FIRST_STAGE:
            ours = re.sub(pattern, replacement, ours)
        if match := re.fullmatch(r"decoder\.up\.(\d+)\.(block\.(\d+)|upsample)\.(.+)", ours):
            level = num_levels - 1 - int(match.group(1))
            part = "upsamplers.0" if match.group(3) is None else f"resnets.{match.group(3)}"
            ours = f"decoder.up_blocks.{level}.{part}.{match.group(4)}"
        if ".attentions." in ours and tensor.ndim == 4:
            tensor = tensor[:, :, 0, 0]
        state[ours] = tensor
    return state
