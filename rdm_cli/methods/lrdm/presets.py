"""LRDM's presets: the published networks at 256 pixels, and small ones, which train on a CPU."""

from __future__ import annotations

from typing import Any

from rdm_cli.methods.lrdm.config import LRDMConfig
from rdm_cli.methods.presets import SMALL_RECIPE, Preset, Recipe
from rdm_cli.models.first_stage import FirstStageConfig
from rdm_cli.models.latent_mlp import LatentMLPConfig
from rdm_cli.models.latent_unet import LatentUNetConfig
from rdm_cli.models.representation import RepresentationConfig


def vq_f4(widths: tuple[int, ...], *, num_codes: int, layers: int = 2) -> FirstStageConfig:
    """A VQ autoencoder that leaves a quarter of each side, in 3 channels."""
    num = len(widths)
    values: dict[str, Any] = {
        "in_channels": 3, "out_channels": 3, "latent_channels": 3, "vq_embed_dim": 3,
        "down_block_types": ["DownEncoderBlock2D"] * num, "up_block_types": ["UpDecoderBlock2D"] * num,
        "block_out_channels": list(widths), "layers_per_block": layers, "act_fn": "silu",
        "num_vq_embeddings": num_codes,
    }  # fmt: skip
    return FirstStageConfig(class_name="VQModel", values=values)


def _published(
    *, unet_mult: tuple[int, ...], unet_attends: tuple[int, ...], mult: tuple[int, ...],
    attends: tuple[int, ...], z_channels: int, time: bool = False,
) -> Preset:  # fmt: skip
    representation = RepresentationConfig(
        latent_size=64, latent_channels=3, model_channels=128, channel_mult=mult, z_channels=z_channels,
        hidden_channels=z_channels, attention_resolutions=attends, time=time,
    )  # fmt: skip
    return Preset(
        config=LRDMConfig(
            unet=LatentUNetConfig(
                latent_size=64, latent_channels=3, model_channels=128, channel_mult=unet_mult,
                attention_resolutions=unet_attends, map_channels=representation.map_channels,
            ),
            representation=representation,
            first_stage=vq_f4((128, 256, 512), num_codes=8192),
        ),
        prior=LatentMLPConfig(),
        recipe=Recipe(batch_size=64, num_images=30_000_000),
    )  # fmt: skip
