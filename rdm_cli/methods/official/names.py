"""Parameter names of the networks of ADM, Diff-AE and PDAE, and ours for the same parameters.

The authors number blocks and the layers inside them (``input_blocks.3.0.in_layers.2``); ours are
named (``unet.down.2.res.conv_1``). Every official name has exactly one of ours; two official names
may share one, where the authors registered a layer twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from rdm_cli.errors import CheckpointError

_RES = {
    "in_layers.0": "norm_1",
    "in_layers.2": "conv_1",
    "emb_layers.1": "time_proj",
    "cond_emb_layers.1": "z_proj",
    "emb_z_layers.1": "z_proj",
    "out_layers.0": "norm_2",
    "out_layers.3": "conv_2",
    "skip_connection": "skip",
}
_ATTENTION = {name: name for name in ("norm", "qkv", "proj_out")}
_UNET = {
    "time_embed.time_embed.0": "unet.time_embed.linear_1",
    "time_embed.time_embed.2": "unet.time_embed.linear_2",
    "time_embed.0": "unet.time_embed.linear_1",
    "time_embed.2": "unet.time_embed.linear_2",
    "input_blocks.0.0": "unet.conv_in",
    "out.0": "unet.norm_out",
    "out.2": "unet.conv_out",
    "encoder.input_blocks.0.0": "encoder.conv_in",
    "encoder.out.0": "encoder.norm_out",
    "encoder.out.3": "encoder.proj_out",
}
_SHIFT = "shift_"
_STRIDED = re.compile(r"encoder\.(\d+)(?:\.(norm|qkv|proj_out))?")
_LATENT = {
    "time_embed.0": "time_embed.linear_1",
    "time_embed.2": "time_embed.linear_2",
}
_LATENT_LAYER = {
    "linear": "linear",
    "linear_emb": "time_proj",
    "cond_layers.1": "time_proj",
    "norm": "norm",
}
_DOWN = re.compile(r"(encoder\.)?input_blocks\.(\d+)\.([01])\.(.+)")
_MIDDLE = re.compile(r"(encoder\.)?middle_block\.([012])\.(.+)")
_UP = re.compile(r"output_blocks\.(\d+)\.([012])\.(.+)")
_LAYER = re.compile(r"layers\.(\d+)\.(.+)")


def model_name(official: str) -> str | None:
    """Our name in a DiffAE or DPM for ``official`` (without ``ema_model.``); None where there is none."""
    layer, _, kind = official.rpartition(".")
    ours = _model_layer(layer)
    return f"{ours}.{kind}" if ours else None


def _model_layer(layer: str) -> str | None:
    if layer in _UNET:
        return _UNET[layer]
    if match := _DOWN.fullmatch(layer):
        encoder, i, part, rest = match.groups()
        net = "encoder" if encoder else "unet"
        block, names = ("res", _RES) if part == "0" else ("attention", _ATTENTION)
        return _join(f"{net}.down.{int(i) - 1}.{block}", names.get(rest)) if int(i) > 0 else None
    if match := _MIDDLE.fullmatch(layer):
        encoder, i, rest = match.groups()
        unet_block = ("unet.middle_1", "unet.middle_attention", "unet.middle_2")[int(i)]
        block = f"encoder.middle.{i}" if encoder else unet_block
        return _join(block, (_ATTENTION if i == "1" else _RES).get(rest))
    if match := _UP.fullmatch(layer):
        j, part, rest = match.groups()
        if rest in _RES:
            return _join(f"unet.up.{j}.{'res' if part == '0' else 'up'}", _RES[rest])
        return _join(f"unet.up.{j}.attention", _ATTENTION.get(rest)) if part == "1" else None
    return None


def shift_name(official: str) -> str | None:
    """Our name in a PDAE's ``shift`` for a trained layer of the authors' decoder, or None."""
    if official.startswith("label_emb."):
        return official.replace("label_emb", "label_embed", 1)
    if not official.startswith(_SHIFT):
        return None
    ours = model_name(official.removeprefix(_SHIFT))
    return None if ours is None else ours.removeprefix("unet.")


def strided_encoder_names(official: Iterable[str]) -> dict[str, str | None]:
    """Our names in a PDAE's ``encoder`` for the authors', who number what they do layer by layer.

    Convolution, attention where there is one, norm; then SiLU and flattening, which have no weights.
    """
    kinds: dict[int, str] = {}
    for name in official:
        if match := _STRIDED.match(name):
            kinds[int(match[1])] = "attention" if match[2] else kinds.get(int(match[1]), "layer")
    layers = [i for i in sorted(kinds) if kinds[i] == "layer"]
    places = {i: f"{('convs', 'norms')[k % 2]}.{k // 2}" for k, i in enumerate(layers[:-1])}
    places |= {i: "proj_out" for i in layers[-1:]}
    names: dict[str, str | None] = {}
    for name in official:
        match = _STRIDED.match(name)
        if match is None:
            names[name] = None
        elif match[2]:
            names[name] = f"attention.{match[2]}.{name.rpartition('.')[2]}"
        else:
            names[name] = f"{places[int(match[1])]}.{name.rpartition('.')[2]}"
    return names


def latent_name(official: str, num_layers: int) -> str | None:
    """Our name in a LatentMLP for ``official`` (without ``ema_model.latent_net.``), or None."""
    layer, _, kind = official.rpartition(".")
    if layer in _LATENT:
        return f"{_LATENT[layer]}.{kind}"
    if match := _LAYER.fullmatch(layer):
        k, rest = int(match[1]), match[2]
        if k == num_layers - 1:
            return f"linear_out.{kind}" if rest == "linear" else None
        return _join(f"layers.{k}", _LATENT_LAYER.get(rest), kind)
    return None


def _join(block: str, *parts: str | None) -> str | None:
    return None if None in parts else ".".join([block, *(part for part in parts if part)])


def renamed(
    official: Mapping[str, Tensor], names: Mapping[str, str | None], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors of ``official`` under our ``names``, which must be exactly those of ``expected``.

    Raises CheckpointError where a name is unknown, missing or of another shape, or where two official
    names of one parameter hold different values.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in official.items():
        ours = names[name]
        if ours is None or ours not in expected:
            raise CheckpointError(f"{name} belongs to no layer that rdm knows")
        if tensor.shape != expected[ours].shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(expected[ours].shape)}"
            raise CheckpointError(f"{name} has shape {shapes}")
        if ours in state and not state[ours].equal(tensor):
            raise CheckpointError(f"{name} differs from its other name's values")
        state[ours] = tensor
    missing = sorted(set(expected) - set(state))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(f"nothing for {missing[0]}{more}")
    return state
