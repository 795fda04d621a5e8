"""Reads pretrained DPMs as ADM's and PDAE's authors write them.

Two files make a model: the checkpoint, either a trainer's (whose ``ema_denoise_fn`` is taken) or bare
weights, and the ``.yml`` with its ``denoise_fn_config``. The latter cannot be done without: weights do
not show how many heads their attention has, nor in which order it lays out q, k and v.

A class-conditional model adds its class's row of ``label_emb`` to the time embedding; for one class, that
row becomes part of the time embedding's last bias, and the model is a plain one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rdm_cli.errors import CheckpointError
from rdm_cli.kernels.schedules import ScheduleConfig
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.dpm.model import DPM, DPMConfig
from rdm_cli.methods.official.names import model_name, renamed
from rdm_cli.methods.official.pairs import naming, read_mapping, weights_and_settings
from rdm_cli.methods.official.reading import load_official
from rdm_cli.models.backbones import Backbone
from rdm_cli.models.unet import UNetConfig

SETTINGS = (
    "base_channel", "channel_multiplier", "num_residual_blocks_of_a_block", "attention_resolutions",
    "num_heads", "head_channel", "use_new_attention_order",
)  # fmt: skip
OWN = "denoise_fn_config"
_AVERAGE = "ema_denoise_fn"
_FIRST = "input_blocks.0.0.weight"
_LAST = ("out.2.weight", "out.2.bias")
_CLASSES = "label_emb.weight"
_TIME_BIAS = "time_embed.2.bias"


@dataclass(frozen=True, kw_only=True)
class OfficialDPM:
    """A pretrained DPM, converted: ``state`` has the names of :class:`DPM`."""

    config: DPMConfig
    state: dict[str, Tensor]


def read_dpm(files: Sequence[Path], class_label: int | None = None) -> OfficialDPM:
    """Convert a checkpoint and its ``.yml``, given in any order and told by their content.

    ``class_label`` is the class that a class-conditional model is used for. Raises CheckpointError, naming
    the file, for one that is neither, two of a kind, one that is missing, a class that is not there, and
    weights that are not those of the network that the settings describe.
    """
    weights, settings = weights_and_settings(
        files, read_weights=_read_weights, read_settings=_read_dpm_settings, suffix=".pt"
    )
    if settings is None:
        raise CheckpointError(
            f"{weights[0]}: its settings are missing, and heads cannot be told from weights",
            hint=f"add its .yml file, with a denoise_fn_config of {', '.join(SETTINGS)}",
        )
    with naming(weights[0]):
        state = _for_one_class(weights[1], class_label)
    try:
        config = dpm_config(settings[1], state)
    except (CheckpointError, TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"{settings[0]}: not the settings of {weights[0]}: {error}") from error
    with naming(weights[0]):
        return OfficialDPM(config=config, state=dpm_state(state, settings[1], config))


def _read_dpm_settings(path: Path) -> Mapping[str, Any]:
    values = read_mapping(path)
    if not isinstance(values.get(OWN), Mapping):
        raise CheckpointError(
            f"{path}: the settings have no {OWN}", hint="it is in the pretrained DPM's own .yml"
        )
    return values


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    content = load_official(path)
    state = content.get(_AVERAGE, content)
    if not isinstance(state, Mapping) or _FIRST not in state:
        raise CheckpointError(f"{path}: holds neither {_AVERAGE} nor the bare weights of a UNet ({_FIRST})")
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {name} is a {type(value).__name__}, not a tensor")
    return state


def _for_one_class(state: Mapping[str, Tensor], class_label: int | None) -> Mapping[str, Tensor]:
    """``state`` without ``label_emb``, whose row for ``class_label`` joins the time embedding."""
    if _CLASSES not in state:
        if class_label is not None:
            raise CheckpointError(
                "a class is named, and the model knows none", hint="leave --class-label out"
            )
        return state
    rows = state[_CLASSES]
    last = f"the last of its {len(rows)} classes is {len(rows) - 1}"
    if class_label is None:
        raise CheckpointError(
            f"the model is class-conditional; {last}", hint="name the class it is used for: --class-label N"
        )
    if class_label >= len(rows):
        raise CheckpointError(f"there is no class {class_label}; {last}")
    plain = {name: t for name, t in state.items() if name != _CLASSES}
    if _TIME_BIAS not in plain or plain[_TIME_BIAS].shape != rows[class_label].shape:
        raise CheckpointError(f"{_CLASSES} does not fit {_TIME_BIAS}")
    return plain | {_TIME_BIAS: plain[_TIME_BIAS].float() + rows[class_label].float()}


def dpm_config(values: Mapping[str, Any], state: Mapping[str, Tensor]) -> DPMConfig:
    """The network that the settings ``values`` describe, sampled as its authors do.

    Raises CheckpointError, TypeError, ValueError or ArithmeticError where they describe none.
    """
    own: Mapping[str, Any] = values[OWN]
    missing = [name for name in SETTINGS if name not in own]
    if missing:
        raise CheckpointError(f"denoise_fn_config does not say {missing[0]}")
    size = values.get("train_dataset_config", {}).get("image_size", own.get("image_size"))
    if not isinstance(size, int):
        raise CheckpointError("nothing says the image_size (train_dataset_config)")
    diffusion: Mapping[str, Any] = values.get("diffusion_config", {})
    kind = diffusion.get("betas_type", "linear")
    if kind not in ("linear", "cosine"):
        raise CheckpointError(f"its betas_type is {kind!r}; rdm reads linear and cosine")
    channels = int(own["base_channel"])
    head_channels = int(own["head_channel"])
    return DPMConfig(
        unet=UNetConfig(
            image_size=size,
            model_channels=channels,
            channel_mult=tuple(int(m) for m in own["channel_multiplier"]),
            num_res_blocks=int(own["num_residual_blocks_of_a_block"]),
            attention_resolutions=tuple(size // int(rate) for rate in own["attention_resolutions"]),
            num_heads=int(own["num_heads"]),
            head_channels=None if head_channels == -1 else head_channels,
            time_width=4 * channels,
            z_width=None,
            dropout=float(own.get("dropout", 0.0)),
            image_channels=state[_FIRST].shape[1],
        ),
        sampling=SamplingSpec(
            schedule=ScheduleConfig(beta_kind=kind, num_train_steps=int(diffusion.get("timesteps", 1000))),
            spacing="linspace",
        ),
    )


def dpm_state(
    weights: Mapping[str, Tensor], values: Mapping[str, Any], config: DPMConfig
) -> dict[str, Tensor]:
    """``weights`` under our names, without a learned variance, attention laid out head by head."""
    official = dict(weights)
    channels = config.unet.image_channels
    for name in _LAST:
        if name in official and len(official[name]) == 2 * channels:
            official[name] = official[name][:channels]
    with torch.device("meta"):
        model = DPM(config)
    state = renamed(official, {name: model_name(name) for name in official}, model.state_dict())
    return plain_layout(state, values, config.unet)


def plain_layout(state: Mapping[str, Tensor], values: Mapping[str, Any], unet: Backbone) -> dict[str, Tensor]:
    """``state`` (our names) in float32, with attention laid out head by head, whatever the settings say."""
    assert isinstance(unet, UNetConfig)  # ADM's is our own
    newer = values[OWN]["use_new_attention_order"]
    return {
        name: (head_by_head(t, unet.heads(len(t) // 3)) if newer and ".qkv." in f".{name}" else t)
        .detach()
        .float()
        .contiguous()
        for name, t in state.items()
    }


def head_by_head(qkv: Tensor, num_heads: int) -> Tensor:
    """Rows (3 C, ...) of ADM's newer attention, all q, all k, all v, as q | k | v of head after head."""
    rows = qkv.unflatten(0, (3, num_heads, -1)).transpose(0, 1)
    return rows.reshape(qkv.shape)
