"""PDAE's entry in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from rdm_cli.methods.attribute_names import CELEBA_ATTRIBUTES
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.dpm.model import DPM
from rdm_cli.methods.method import Converted, Method, Pretrained
from rdm_cli.methods.pdae.config import EncoderKind, PDAEConfig, pdae_config
from rdm_cli.methods.pdae.convert import OfficialPDAE, read_pdae
from rdm_cli.methods.pdae.model import PDAE
from rdm_cli.methods.pdae.presets import PRESETS
from rdm_cli.models.backbones import Backbone
from rdm_cli.models.generator import GeneratorConfig
from rdm_cli.models.latent_mlp import LatentMLP
from rdm_cli.models.shift_branch import ShiftConfig
from rdm_cli.priors.latent_ddim import LatentDDIM, LatentDDIMConfig


def adopt(config: PDAEConfig, pretrained: nn.Module, gamma: float | None = None) -> PDAEConfig:
    """``config``'s encoder, shift branch and generator, around a ``pretrained`` plain DPM of any size.

    ``gamma`` None keeps the preset's. Raises ValueError where ``pretrained`` is no plain DPM of images, or of
    a size that no encoder takes.
    """
    if not isinstance(pretrained, DPM):
        raise ValueError("not a plain DPM")
    if pretrained.config.first_stage is not None:
        raise ValueError("it diffuses the latents of a first stage, and PDAE works on images")
    dpm = pretrained
    return pdae_config(
        dpm.config.unet,
        z_width=config.encoder.z_width,
        prediction=dpm.prediction,
        sampling=dpm.sampling,
        gamma=config.shift.gamma if gamma is None else gamma,
        encoder=config.encoder,
        sees_prediction=config.shift.sees_prediction,
        generator=config.generator,
    )


def adopted(config: PDAEConfig) -> dict[str, Any]:
    """Which options of :func:`adopt` make ``config``."""
    return {"gamma": config.shift.gamma}


def convert(files: Sequence[Path]) -> Converted:
    """Read the authors' checkpoints, in any order; see :mod:`rdm_cli.methods.pdae.convert`."""
    official = read_pdae(files)
    model = PDAE(official.config)
    model.load_state_dict(official.state)
    prior, directions = _prior(official), _directions(official)
    num_parameters = sum(p.numel() for p in model.parameters())
    parts = [f"{model.image_size} px, {num_parameters:,} parameters"]
    parts += ["latent prior"] if prior is not None else []
    parts += [f"{len(directions.names)} attributes"] if directions is not None else []
    return Converted(model=model, prior=prior, directions=directions, summary=", ".join(parts))


def _prior(official: OfficialPDAE) -> LatentDDIM | None:
    if official.prior_config is None or official.prior_state is None:
        return None
    prior = LatentDDIM(LatentDDIMConfig(network=official.prior_config, spacing="linspace"))
    assert isinstance(prior.network, LatentMLP)
    prior.network.load_state_dict(official.prior_state)
    assert official.z_mean is not None and official.z_std is not None
    prior.z_mean.copy_(official.z_mean)
    prior.z_std.copy_(official.z_std)
    return prior


def _directions(official: OfficialPDAE) -> Directions | None:
    if official.classifier is None:
        return None
    assert official.z_mean is not None and official.z_std is not None
    weight, bias = official.classifier
    known = len(weight) == len(CELEBA_ATTRIBUTES)
    names = CELEBA_ATTRIBUTES if known else tuple(f"attribute_{i}" for i in range(len(weight)))
    return Directions(
        names=names, weight=weight, bias=bias, z_mean=official.z_mean, z_std=official.z_std, scores={}
    )


METHOD = Method(
    name="pdae",
    title="PDAE (Zhang et al., NeurIPS 2022, arXiv 2212.12990)",
    components={
        "unet": Backbone,
        "encoder": EncoderKind,
        "shift": ShiftConfig,
        "generator": GeneratorConfig,
    },
    optional=frozenset({"generator"}),
    config=PDAEConfig,
    model=PDAE,
    presets=PRESETS,
    convert=convert,
    pretrained=Pretrained(
        kind="dpm",
        option="--dpm",
        purpose="gives a pretrained diffusion model an encoder",
        hint="name it with --dpm BUNDLE; rdm train dpm trains one, rdm bundles convert dpm converts one",
    ),
    adopt=adopt,
    adopted=adopted,
)
