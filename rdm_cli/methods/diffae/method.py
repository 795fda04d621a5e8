"""Diff-AE's entry in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rdm_cli.methods.diffae.config import DiffAEConfig
from rdm_cli.methods.diffae.convert import read_diffae
from rdm_cli.methods.diffae.model import DiffAE
from rdm_cli.methods.diffae.presets import PRESETS
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.method import Converted, Method
from rdm_cli.models.encoder import EncoderConfig
from rdm_cli.models.generator import GeneratorConfig
from rdm_cli.models.latent_mlp import LatentMLP
from rdm_cli.models.unet import UNetConfig
from rdm_cli.priors.latent_ddim import LatentDDIM, LatentDDIMConfig


def convert(files: Sequence[Path]) -> Converted:
    """Read the authors' checkpoints, in any order; see :mod:`rdm_cli.methods.diffae.convert`."""
    official = read_diffae(files)
    model = DiffAE(official.config)
    model.load_state_dict(dict(official.method_state))
    prior = None
    if official.prior_config is not None and official.prior_state is not None:
        prior = LatentDDIM(LatentDDIMConfig(network=official.prior_config))
        assert isinstance(prior.network, LatentMLP)
        prior.network.load_state_dict(dict(official.prior_state))
        assert official.z_mean is not None and official.z_std is not None
        prior.z_mean.copy_(official.z_mean)
        prior.z_std.copy_(official.z_std)
    directions = None
    if official.classifier is not None:
        assert official.z_mean is not None and official.z_std is not None
        weight, bias = official.classifier
        directions = Directions(
            names=official.attribute_names,
            weight=weight,
            bias=bias,
            z_mean=official.z_mean,
            z_std=official.z_std,
            scores={},
        )
    num_parameters = sum(p.numel() for p in model.parameters())
    parts = [f"{official.config.unet.image_size} px, {num_parameters:,} parameters"]
    parts += ["latent prior"] if prior is not None else []
    parts += [f"{len(directions.names)} attributes"] if directions is not None else []
    return Converted(model=model, prior=prior, directions=directions, summary=", ".join(parts))


METHOD = Method(
    name="diffae",
    title="Diff-AE (Preechakul et al., CVPR 2022, arXiv 2111.15640)",
    components={"encoder": EncoderConfig, "unet": UNetConfig, "generator": GeneratorConfig},
    optional=frozenset({"generator"}),
    config=DiffAEConfig,
    model=DiffAE,
    presets=PRESETS,
    convert=convert,
)
