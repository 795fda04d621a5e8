"""Reads the LRDM authors' Lightning checkpoints, with the ``*-project.yaml`` that lies beside them.

The checkpoint holds the UNet, raw and averaged (under names without dots), the representation, raw alone,
and with most models the first stage and the latents' scale. Shapes tell the networks; the settings say
what shapes do not: the side of the latents, what the UNet predicts, how the loss is weighed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rdm_cli.errors import CheckpointError
from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.methods.lrdm.config import LRDM_SAMPLING, LRDMConfig
from rdm_cli.methods.lrdm.model import LRDM
from rdm_cli.methods.lrdm.official_names import first_stage_state, tower_names
from rdm_cli.methods.lrdm.official_shapes import (
    first_stage_config,
    representation_config,
    style_shape_config,
    unet_config,
)
from rdm_cli.methods.official.names import renamed
from rdm_cli.methods.official.pairs import naming, read_mapping, weights_and_settings
from rdm_cli.methods.official.reading import load_official
from rdm_cli.models.latent_unet import Weighting
from rdm_cli.models.representation import RepresentationConfig
from rdm_cli.models.style_shape import StyleShapeConfig

State = Mapping[str, Tensor]
_LOSSES: dict[str, Prediction] = {"DDPMImageLoss": "x_0", "DDPMNoiseLoss": "eps"}
_WEIGHTINGS: dict[str, Weighting] = {
    "likelihood_weighting": "likelihood", "eps_weighting": "other", "x0_weighting": "other",
}  # fmt: skip
PUBLISHED_LATENT_SIZE = 64
PUBLISHED_HEAD_CHANNELS = 64


@dataclass(frozen=True, kw_only=True)
class OfficialLRDM:
    """A checkpoint, converted: ``state`` has the names of an :class:`LRDM`, with the averaged UNet.

    ``raw_unet`` holds the UNet's weights as they were trained, by the same names.
    """

    config: LRDMConfig
    state: dict[str, Tensor]
    raw_unet: dict[str, Tensor]


def read_lrdm(files: Sequence[Path]) -> OfficialLRDM:
    """Convert a checkpoint and, where it is given, its settings, in any order, told by their content.

    Raises CheckpointError, naming the file, for one that is neither, two of a kind, no checkpoint, kinds of
    model that no published one is of, and weights that are not all there.
    """
    weights, settings = weights_and_settings(
        files, read_weights=_read_state, read_settings=_read_project, suffix=".ckpt"
    )
    try:
        with naming(weights[0]):
            return _convert(weights[1], {} if settings is None else settings[1])
    except (TypeError, ValueError) as error:
        where = weights[0] if settings is None else settings[0]
        raise CheckpointError(f"{where}: {error}") from error


def _read_project(path: Path) -> Mapping[str, Any]:
    """``model.params`` of a ``*-project.yaml``."""
    values = read_mapping(path)
    if "based_on" in values:
        raise CheckpointError(
            f"{path}: is based on other settings ({values['based_on']})",
            hint="the project.yaml that training writes beside a checkpoint has them all merged",
        )
    model = values.get("model")
    params = model.get("params") if isinstance(model, Mapping) else None
    if not isinstance(params, Mapping) or "diffusion_model_config" not in params:
        raise CheckpointError(f"{path}: settings without a model.params.diffusion_model_config")
    return params


def _read_state(path: Path) -> State:
    content = load_official(path)
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping) or not any(str(name).startswith("diff_model.") for name in state):
        raise CheckpointError(f"{path}: no checkpoint of an LRDM: it holds no diff_model")
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    return tensors


def _below(state: State, prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def _params(settings: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The params of a nested ``target`` and ``params``; {} where there are none."""
    for name in path:
        found = settings.get(name)
        settings = found.get("params", {}) if isinstance(found, Mapping) else {}
    return settings if isinstance(settings, Mapping) else {}


def _convert(official: State, settings: Mapping[str, Any]) -> OfficialLRDM:
    prediction, weighting = _loss(settings)
    unet_settings = _params(settings, "diffusion_model_config")
    latent_size = int(unet_settings.get("resolution", PUBLISHED_LATENT_SIZE))
    raw = _below(official, "diff_model.")
    unet = unet_config(
        raw,
        latent_size=latent_size,
        head_channels=int(unet_settings.get("num_ch_per_head", PUBLISHED_HEAD_CHANNELS)),
        dropout=float(unet_settings.get("dropout", 0.2)),
        weighting=weighting,
    )
    inner = _below(official, "repr_ae.")
    dropout = float(_params(settings, "representation_ae_config", "enc_config").get("dropout", 0.1))
    warp = settings.get("warp_kwargs", {})
    first_stage = _below(official, "ae_model.")
    sde = _params(settings, "sde_config")
    published = {"beta_min": 0.1, "beta_max": 20, "N": 1000}
    if any(sde.get(name, usual) != usual for name, usual in published.items()) or settings.get("continuous"):
        raise CheckpointError("its diffusion is not the published one: betas 0.1 to 20, N = 1000, discrete")
    trained = {
        "latent_size": latent_size,
        "dropout": dropout,
        "kl_weight": float(settings.get("representation_kl_weight", 1e-4)),
    }
    representation: RepresentationConfig | StyleShapeConfig | None = None
    if "quant_conv.weight" in inner:
        representation = representation_config(inner, **trained)  # type: ignore[arg-type]
    elif inner:
        representation = style_shape_config(inner, warp=warp, **trained)  # type: ignore[arg-type]
    config = LRDMConfig(
        unet=unet,
        representation=representation,
        first_stage=first_stage_config(first_stage) if first_stage else None,
        prediction=prediction,
        sampling=LRDM_SAMPLING,
    )
    with torch.device("meta"):
        expected = LRDM(config).state_dict()
    return _named(official, config, expected)


def _loss(settings: Mapping[str, Any]) -> tuple[Prediction, Weighting]:
    found = settings.get("loss_config", {})
    kind = str(found.get("target", "DDPMImageLoss")).rpartition(".")[2]
    if kind not in _LOSSES:
        raise CheckpointError(f"it was trained with {kind}; rdm knows {' and '.join(_LOSSES)}")
    used = [name for name, on in found.get("params", {}).items() if on and name in _WEIGHTINGS]
    return _LOSSES[kind], _WEIGHTINGS[used[0]] if used else "none"


def _named(official: State, config: LRDMConfig, expected: Mapping[str, Tensor]) -> OfficialLRDM:
    raw = _below(official, "diff_model.")
    names = tower_names(raw, middle="middle")
    wanted = {n.removeprefix("unet."): t for n, t in expected.items() if n.startswith("unet.")}
    del wanted["scale_factor"]
    raw_unet = renamed(raw, names, wanted)
    stored = _below(official, "ema.")
    averaged = {n: stored.get(n.replace(".", ""), t) for n, t in raw.items()}
    state = {f"unet.{n}": t for n, t in renamed(averaged, names, wanted).items()}
    state["unet.scale_factor"] = official.get("scale_factor", torch.ones(())).reshape(())
    if config.representation is not None:
        state |= _representation(official, expected)
    if config.first_stage is not None:
        levels = len(config.first_stage.values["block_out_channels"])
        found = first_stage_state(_below(official, "ae_model."), levels)
        prefix = "first_stage."
        ours = {n.removeprefix(prefix): t for n, t in expected.items() if n.startswith(prefix)}
        named = renamed(found, {n: n for n in found}, ours)
        state |= {f"{prefix}{n}": t for n, t in named.items()}
    plain = {n: t.detach().float().contiguous() for n, t in state.items()}
    return OfficialLRDM(
        config=config, state=plain, raw_unet={n: t.detach().float() for n, t in raw_unet.items()}
    )


def _representation(official: State, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Encoder, pyramid and what lies between; layers for an embedding that there is none of are left out."""
    found: dict[str, Tensor] = {}
    names: dict[str, str | None] = {}
    prefix = "representation."
    wanted = {n.removeprefix(prefix): t for n, t in expected.items() if n.startswith(prefix)}
    for theirs, ours in (("encoder", "encoder"), ("decoder", "pyramid")):
        part = _below(official, f"repr_ae.{theirs}.")
        for name, layer in tower_names(part).items():
            full = None if layer is None else f"{ours}.{layer}"
            if full is not None and ".embed_proj." in full and full not in wanted:
                continue
            found[f"{theirs}.{name}"] = part[name]
            names[f"{theirs}.{name}"] = full
    for theirs, ours in (("quant_conv", "to_z"), ("post_quant_conv", "from_z")):
        for kind in ("weight", "bias"):
            if f"repr_ae.{theirs}.{kind}" in official:
                found[f"{theirs}.{kind}"] = official[f"repr_ae.{theirs}.{kind}"]
                names[f"{theirs}.{kind}"] = f"{ours}.{kind}"
    return {f"{prefix}{n}": t for n, t in renamed(found, names, wanted).items()}
