"""Reads the PDAE authors' files and turns them into configs and states of our modules.

Checkpoints are told apart by what they hold: the autoencoder's (``ema_encoder``, ``ema_decoder``; the
decoder contains the frozen DPM), the latent DPM's, the attribute classifier's, the codes' mean and std,
and the pretrained DPM's own, which adds nothing but a check. Of the ``.yml`` files beside them, one is
needed: the pretrained DPM's, with its ``denoise_fn_config``. Averaged weights are taken throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rdm_cli.errors import CheckpointError
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.dpm.convert import (
    OWN,
    SETTINGS,
    dpm_config,
    dpm_state,
    plain_layout,
)
from rdm_cli.methods.official.names import latent_name, renamed, shift_name, strided_encoder_names
from rdm_cli.methods.official.pairs import is_text, listed, naming, read_mapping
from rdm_cli.methods.official.reading import load_official
from rdm_cli.methods.official.shapes import latent_mlp_config, shape_of
from rdm_cli.methods.pdae.config import PDAEConfig
from rdm_cli.models.latent_mlp import LatentMLP, LatentMLPConfig
from rdm_cli.models.shift_branch import ShiftBranch, ShiftConfig
from rdm_cli.models.strided_encoder import SIZES, StridedEncoder, StridedEncoderConfig

State = Mapping[str, Tensor]

# what a checkpoint of each kind is known by
KINDS = {
    "autoencoder": ("ema_encoder", "ema_decoder"),
    "latent DPM": ("ema_latent_denoise_fn",),
    "classifier": ("ema_classifier",),
    "statistics of codes": ("mean", "std"),
    "pretrained DPM": ("ema_denoise_fn",),
}
_KNOWN_SETTINGS = ("encoder_config", "decoder_config", "latent_denoise_fn_config", "train_dataset_config")
_TRAINED = ("shift_", "label_emb.")


@dataclass(frozen=True, kw_only=True)
class OfficialPDAE:
    """The authors' files, converted; what no file holds is None. d is the width of z.

    ``state`` has the names of a PDAE; ``prior_state`` those of a LatentMLP, for z standardised by ``z_mean``
    and ``z_std``, both (d,). ``classifier``: weight (K, d) and bias (K,) on standardised z.
    """

    config: PDAEConfig
    state: dict[str, Tensor]
    prior_config: LatentMLPConfig | None
    prior_state: dict[str, Tensor] | None
    z_mean: Tensor | None
    z_std: Tensor | None
    classifier: tuple[Tensor, Tensor] | None


def read_pdae(files: Sequence[Path]) -> OfficialPDAE:
    """Convert the authors' ``files``, given in any order.

    Raises CheckpointError, naming the file and what is wrong with it: of no known kind, two of one kind,
    no autoencoder, no settings of the frozen DPM, files of different models, weights that do not fit.
    """
    found: dict[str, tuple[Path, Mapping[str, Any]]] = {}
    for path in map(Path, files):
        kind, content = _open(path)
        if kind is None:
            continue
        if kind in found:
            raise CheckpointError(f"{found[kind][0]} and {path} are both of kind {kind!r}")
        found[kind] = path, content
    if "autoencoder" not in found:
        raise CheckpointError(f"{listed(files)}: the autoencoder is missing", hint="add its .pt file")
    path, content = found["autoencoder"]
    if OWN not in found:
        raise CheckpointError(
            f"{path}: the settings of its frozen DPM are missing, and heads cannot be told from weights",
            hint=f"add the pretrained DPM's .yml file, with a {OWN} of {', '.join(SETTINGS)}",
        )
    with naming(path):
        config, state = _autoencoder(content, found[OWN])
        if "pretrained DPM" in found:
            _check_same_dpm(content, found["pretrained DPM"])
    d = config.encoder.z_width
    prior_config, prior_state = _prior(found.get("latent DPM"), d)
    z_mean, z_std = _statistics(found.get("statistics of codes"), d)
    classifier = _classifier(found.get("classifier"), d)
    for kind in ("latent DPM", "classifier"):
        if kind in found and z_mean is None:
            raise CheckpointError(
                f"{found[kind][0]}: works on standardised codes, whose mean and std are missing",
                hint="add the file with mean and std",
            )
    return OfficialPDAE(
        config=config,
        state=state,
        prior_config=prior_config,
        prior_state=prior_state,
        z_mean=z_mean,
        z_std=z_std,
        classifier=classifier,
    )


def _open(path: Path) -> tuple[str | None, Mapping[str, Any]]:
    """A file's kind and content; the kind is None for settings that say nothing we need."""
    if is_text(path):
        values = read_mapping(path)
        if isinstance(values.get(OWN), Mapping):
            return OWN, values
        if not any(name in values for name in _KNOWN_SETTINGS):
            raise CheckpointError(f"{path}: settings with neither {OWN} nor {', '.join(_KNOWN_SETTINGS)}")
        return None, values
    content = load_official(path)
    for kind, names in KINDS.items():
        if all(name in content for name in names):
            return kind, content
    known = "; ".join(f"{' and '.join(names)} ({kind})" for kind, names in KINDS.items())
    raise CheckpointError(f"{path}: holds none of what PDAE's files hold: {known}")


def _tensors(content: Mapping[str, Any], name: str) -> State:
    state = content[name]
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"its {name} is empty")
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{name}.{key} is a {type(value).__name__}, not a tensor")
    return state


def _autoencoder(
    content: Mapping[str, Any], settings: tuple[Path, Mapping[str, Any]]
) -> tuple[PDAEConfig, dict[str, Tensor]]:
    encoder, decoder = _tensors(content, "ema_encoder"), _tensors(content, "ema_decoder")
    frozen = {n: t for n, t in decoder.items() if not n.startswith(_TRAINED)}
    trained = {n: t for n, t in decoder.items() if n.startswith(_TRAINED)}
    try:
        dpm = dpm_config(settings[1], frozen)
    except (CheckpointError, TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"{settings[0]}: not the settings of its frozen DPM: {error}") from error
    unet = dpm.unet
    encoder_config = _encoder_config(encoder)
    config = PDAEConfig(
        unet=unet,
        encoder=encoder_config,
        shift=ShiftConfig(unet=unet, z_width=shape_of(trained, "label_emb.weight")[1]),
        sampling=SamplingSpec(schedule=dpm.sampling.schedule, spacing="linspace"),
    )
    with torch.device("meta"):
        ours = StridedEncoder(encoder_config).state_dict()
    state = dpm_state(frozen, settings[1], dpm)
    for part, tensors in (
        ("encoder", renamed(encoder, strided_encoder_names(encoder), ours)),
        ("shift", shift_state(trained, settings[1], config.shift)),
    ):
        state |= {f"{part}.{name}": t.detach().float().contiguous() for name, t in tensors.items()}
    return config, state


def shift_state(official: State, settings: Mapping[str, Any], config: ShiftConfig) -> dict[str, Tensor]:
    """The trained half of the authors' decoder under the names of a ShiftBranch, checked in full."""
    with torch.device("meta"):
        expected = ShiftBranch(config).state_dict()
    ours = renamed(official, {name: shift_name(name) for name in official}, expected)
    return plain_layout(ours, settings, config.unet)


def _encoder_config(state: State) -> StridedEncoderConfig:
    """Convolutions tell the widths; the linear layer, the size of the last map, and so of the images."""
    names = strided_encoder_names(state)
    by_ours = {ours: state[name] for name, ours in names.items() if ours is not None}
    channels, i = [], 0
    while f"convs.{i}.weight" in by_ours:
        channels.append(by_ours[f"convs.{i}.weight"].shape[0])
        i += 1
    if not channels or "proj_out.weight" not in by_ours:
        raise CheckpointError("its ema_encoder is not made of strided convolutions and a linear layer")
    z_width, flat = by_ours["proj_out.weight"].shape
    side = round((flat // channels[-1]) ** 0.5)
    image_size = side << len(channels)
    if side * side * channels[-1] != flat or image_size not in SIZES:
        raise CheckpointError(f"its ema_encoder flattens {flat} values, which is no square map")
    return StridedEncoderConfig(
        image_size=image_size,
        channels=tuple(channels),
        z_width=z_width,
        image_channels=by_ours["convs.0.weight"].shape[1],
    )


def _check_same_dpm(content: Mapping[str, Any], pretrained: tuple[Path, Mapping[str, Any]]) -> None:
    decoder = _tensors(content, "ema_decoder")
    with naming(pretrained[0]):
        theirs = _tensors(pretrained[1], "ema_denoise_fn")
        for name, tensor in theirs.items():
            if name not in decoder or not tensor.equal(decoder[name]):
                raise CheckpointError(f"not the DPM that this autoencoder was trained on ({name} differs)")


def _check_width(width: int, d: int) -> None:
    if width != d:
        raise CheckpointError(f"is for z of {width} values, the autoencoder's has {d}")


def _prior(
    file: tuple[Path, Mapping[str, Any]] | None, d: int
) -> tuple[LatentMLPConfig | None, dict[str, Tensor] | None]:
    if file is None:
        return None, None
    with naming(file[0]):
        official = _tensors(file[1], "ema_latent_denoise_fn")
        config = latent_mlp_config(official)
        _check_width(config.z_width, d)
        with torch.device("meta"):
            expected = LatentMLP(config).state_dict()
        state = renamed(official, {n: latent_name(n, config.num_layers) for n in official}, expected)
    return config, {name: tensor.detach().float().contiguous() for name, tensor in state.items()}


def _statistics(file: tuple[Path, Mapping[str, Any]] | None, d: int) -> tuple[Tensor | None, Tensor | None]:
    if file is None:
        return None, None
    with naming(file[0]):
        both = []
        for name in ("mean", "std"):
            value = file[1][name]
            if not isinstance(value, Tensor):
                raise CheckpointError(f"its {name} is a {type(value).__name__}, not a tensor")
            _check_width(value.numel(), d)
            both.append(value.detach().float().flatten())
    return both[0], both[1]


def _classifier(file: tuple[Path, Mapping[str, Any]] | None, d: int) -> tuple[Tensor, Tensor] | None:
    if file is None:
        return None
    with naming(file[0]):
        state = _tensors(file[1], "ema_classifier")
        num, width = shape_of(state, "weight")
        _check_width(width, d)
        if shape_of(state, "bias") != (num,):
            raise CheckpointError(f"its classifier has {num} rows and {shape_of(state, 'bias')} biases")
        return state["weight"].detach().float(), state["bias"].detach().float()
