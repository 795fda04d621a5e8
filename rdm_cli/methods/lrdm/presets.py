"""LRDM's presets: the published networks at 256 pixels, and small ones, which train on a CPU.

The small ones predict v, for which :mod:`rdm_cli.methods.lrdm.losses` has the reason, and sample on timesteps
even in log-SNR; the published ones are the paper's in both. Those whose name says nothing but a size have a
generator of z in the pyramid's place; the others are shaped as the paper's are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rdm_cli.methods.presets import MUON_RECIPE, SMALL_RECIPE, SMALL_Z_WIDTH, Preset, Presets, Recipe

if TYPE_CHECKING:
    from rdm_cli.models.first_stage import FirstStageConfig
    from rdm_cli.models.representation import RepresentationConfig
    from rdm_cli.models.style_shape import StyleShapeConfig


def _lrdm(
    representation: RepresentationConfig | StyleShapeConfig,
    unet_mult: tuple[int, ...],
    *,
    first_stage: FirstStageConfig,
    recipe: Recipe,
    z_width: int | None = None,
    num_res_blocks: int = 2,
    dropout: float = 0.2,
    **config: Any,
) -> Preset:
    """A UNet of ``representation``'s size, channels and attention, around it.

    ``z_width`` is that of a small prior, None: the published one; ``config``: what else is unusual.
    """
    from rdm_cli.methods.lrdm.config import LRDMConfig
    from rdm_cli.models.latent_mlp import LatentMLPConfig
    from rdm_cli.models.latent_unet import LatentUNetConfig
    from rdm_cli.models.residual_mlp import ResidualMLPConfig

    unet = LatentUNetConfig(
        latent_size=representation.latent_size,
        latent_channels=representation.latent_channels,
        model_channels=representation.model_channels,
        channel_mult=unet_mult,
        num_res_blocks=num_res_blocks,
        attention_resolutions=representation.attention_resolutions,
        map_channels=representation.map_channels,
        dropout=dropout,
    )
    return Preset(
        config=LRDMConfig(unet=unet, representation=representation, first_stage=first_stage, **config),
        prior=LatentMLPConfig() if z_width is None else ResidualMLPConfig(z_width=z_width),
        recipe=recipe,
    )


def _r(
    channel_mult: tuple[int, ...], attention: tuple[int, ...], z_channels: int, *, time: bool = False
) -> RepresentationConfig:
    """A published representation of 64 x 64 latents.

    Their sizes (48.71, 34.82 and, of t-LRDM, 35.48 M parameters) leave open whether the encoder has 4
    blocks a level and the pyramid 3, as here, or 3 and 4.
    """
    from rdm_cli.models.representation import RepresentationConfig

    return RepresentationConfig(
        latent_size=64, latent_channels=3, model_channels=128, channel_mult=channel_mult,
        z_channels=z_channels, hidden_channels=z_channels, num_encoder_blocks=4, num_decoder_blocks=2,
        attention_resolutions=attention, time=time,
    )  # fmt: skip


def _published(
    representation: RepresentationConfig | StyleShapeConfig,
    unet_mult: tuple[int, ...],
    num_res_blocks: int = 2,
) -> Preset:
    from rdm_cli.models.first_stage import f4

    return _lrdm(
        representation,
        unet_mult,
        first_stage=f4("vq", (128, 256, 512), num_codes=8192),
        recipe=Recipe(batch_size=64, num_images=30_000_000),
        num_res_blocks=num_res_blocks,
    )


def _on_a_cpu(
    representation: RepresentationConfig | StyleShapeConfig, unet_mult: tuple[int, ...] = (1, 2, 2)
) -> Preset:
    from rdm_cli.methods.lrdm.config import LRDM_SAMPLING
    from rdm_cli.models.first_stage import f4

    return _lrdm(
        representation,
        unet_mult,
        first_stage=f4("vq", (32, 64, 64), num_codes=512, layers=1),
        recipe=replace(SMALL_RECIPE, num_images=600_000),
        z_width=SMALL_Z_WIDTH,
        num_res_blocks=1,
        dropout=0.0,
        prediction="v",
        sampling=LRDM_SAMPLING.spaced("log-snr"),
    )


def _guessing(
    latent_size: int,
    encoder_mult: tuple[int, ...],
    unet_mult: tuple[int, ...],
    generator_channels: tuple[int, ...],
    generator_blocks: tuple[int, ...],
) -> Preset:
    """A generator of a z of 256 values from maps of 4 x 4 on, and a narrow UNet around its guess."""
    from rdm_cli.methods.lrdm.config import LRDM_SAMPLING, LRDMConfig
    from rdm_cli.models.first_stage import small_kl
    from rdm_cli.models.generator import GeneratorConfig
    from rdm_cli.models.latent_unet import LatentUNetConfig
    from rdm_cli.models.representation import RepresentationConfig
    from rdm_cli.models.residual_mlp import ResidualMLPConfig

    stage, z_width = small_kl(), SMALL_Z_WIDTH
    representation = RepresentationConfig(
        latent_size=latent_size,
        latent_channels=stage.latent_channels,
        model_channels=64,
        channel_mult=encoder_mult,
        z_channels=16,
        hidden_channels=128,
        num_encoder_blocks=1,
        dropout=0.0,
        z_width=z_width,
        kl_weight=1e-5,
        generator=GeneratorConfig(
            image_size=latent_size,
            channels=generator_channels,
            num_res_blocks=generator_blocks,
            z_width=z_width,
            spread=0.2,
            image_channels=stage.latent_channels,
            patch_size=1,
        ),
    )
    unet = LatentUNetConfig(
        latent_size=latent_size,
        latent_channels=stage.latent_channels,
        model_channels=32,
        channel_mult=unet_mult,
        num_res_blocks=1,
        dropout=0.0,
        map_channels=generator_channels[::-1][: len(unet_mult)],
        sees_guess=True,
    )
    return Preset(
        config=LRDMConfig(
            unet=unet,
            representation=representation,
            first_stage=stage,
            prediction="v",
            sampling=replace(LRDM_SAMPLING.spaced("log-snr"), steps=20),
        ),
        prior=ResidualMLPConfig(z_width=z_width),
        recipe=MUON_RECIPE,
    )


def _small(latent_size: int, **changes: Any) -> RepresentationConfig:
    from rdm_cli.models.representation import RepresentationConfig

    settings: dict[str, Any] = {
        "latent_size": latent_size, "latent_channels": 3, "model_channels": 64, "channel_mult": (1, 2, 2),
        "z_channels": 16, "hidden_channels": 64, "num_encoder_blocks": 1, "num_decoder_blocks": 1,
        "attention_resolutions": (latent_size // 4,), "dropout": 0.0,
    }  # fmt: skip
    return RepresentationConfig(**(settings | changes))


def _style(latent_size: int, model_channels: int, channel_mult: tuple[int, ...]) -> StyleShapeConfig:
    """Style and shape, as published: z of 16 channels. Small ones pull z harder to N(0, I).

    By the published lambda their z, which is large for what it holds, takes the style as well.
    """
    from rdm_cli.models.style_shape import StyleShapeConfig

    return StyleShapeConfig(
        latent_size=latent_size, latent_channels=3, model_channels=model_channels,
        channel_mult=channel_mult, z_channels=16, num_encoder_blocks=4 if latent_size > 16 else 1,
        num_decoder_blocks=2 if latent_size > 16 else 1,
        attention_resolutions=(latent_size // 2 ** (len(channel_mult) - 1),),
        dropout=0.1 if latent_size > 16 else 0.0,
        kl_weight=5e-6 if latent_size > 16 else 1e-4,
    )  # fmt: skip


PRESETS = Presets(
    {
        "small32": lambda: _guessing(8, (1, 2), (2, 2), (192, 128), (1, 2)),
        "small64": lambda: _guessing(16, (1, 2, 3), (2, 2), (192, 192, 128), (1, 2, 2)),
        "small128": lambda: _guessing(32, (1, 2, 2, 2), (1, 2, 2), (192, 192, 128, 64), (1, 2, 1, 1)),
        "small32-map": lambda: _on_a_cpu(_small(8)),
        "small64-map": lambda: _on_a_cpu(_small(16)),
        "small64-vector": lambda: _on_a_cpu(_small(16, z_width=256)),
        "small32-t": lambda: _on_a_cpu(_small(8, time=True)),
        "small64-t": lambda: _on_a_cpu(_small(16, time=True)),
        "small32-style": lambda: _on_a_cpu(_style(8, 64, (1, 2)), (1, 2)),
        "small64-style": lambda: _on_a_cpu(_style(16, 64, (1, 2, 2))),
        "r64x8x8": lambda: _published(_r((1, 2, 2, 2), (32, 16, 8), 64), (1, 2, 2, 2), num_res_blocks=3),
        "r16x16x16": lambda: _published(_r((1, 2, 2), (32, 16), 16), (1, 2, 4)),
        "t-r16x16x16": lambda: _published(_r((1, 2, 2), (32, 16), 16, time=True), (1, 2, 4)),
        "style": lambda: _published(_style(64, 128, (1, 4)), (1, 4)),
    }
)
