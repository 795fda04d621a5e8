"""Diff-AE's presets: the published networks as published, and small ones that a CPU can train.

Published: arXiv 2111.15640, appendix A, and the reference's configurations (batch and images seen
beside each). Small: encoder, generator and UNet on 2x2 patches, v-prediction, no dropout, an encoder that
flattens its last map, Muon, timesteps even in log-SNR; docs/training.md has what was tried.
"""

from __future__ import annotations

from rdm_cli.methods.presets import MUON_RECIPE, SMALL_SPACING, Preset, Presets, Recipe


def _published(
    size: int,
    channels: int,
    unet_mult: tuple[int, ...],
    encoder_mult: tuple[int, ...],
    recipe: Recipe,
    prior_layers: int = 10,
) -> Preset:
    from rdm_cli.methods.diffae.config import DiffAEConfig
    from rdm_cli.models.encoder import EncoderConfig
    from rdm_cli.models.latent_mlp import LatentMLPConfig
    from rdm_cli.models.unet import UNetConfig

    return Preset(
        config=DiffAEConfig(
            encoder=EncoderConfig(image_size=size, model_channels=channels, channel_mult=encoder_mult),
            unet=UNetConfig(image_size=size, model_channels=channels, channel_mult=unet_mult),
        ),
        prior=LatentMLPConfig(num_layers=prior_layers),
        recipe=recipe,
    )


def _small(
    size: int,
    encoder_mult: tuple[int, ...],
    unet_mult: tuple[int, ...],
    generator_channels: tuple[int, ...],
    generator_blocks: tuple[int, ...],
    z_width: int = 256,
) -> Preset:
    """A generator of z from maps of 4 x 4 on, and a narrow UNet around its guess."""
    from rdm_cli.kernels.spec import SamplingSpec
    from rdm_cli.methods.diffae.config import DiffAEConfig
    from rdm_cli.models.encoder import EncoderConfig
    from rdm_cli.models.generator import GeneratorConfig
    from rdm_cli.models.residual_mlp import ResidualMLPConfig
    from rdm_cli.models.unet import UNetConfig

    return Preset(
        config=DiffAEConfig(
            encoder=EncoderConfig(
                image_size=size,
                model_channels=64,
                channel_mult=encoder_mult,
                num_res_blocks=1,
                attention_resolutions=(),
                z_width=z_width,
                patch_size=2,
                pool="flatten",
            ),
            unet=UNetConfig(
                image_size=size,
                model_channels=32,
                channel_mult=unet_mult,
                num_res_blocks=1,
                attention_resolutions=(),
                time_width=128,
                z_width=z_width,
                dropout=0.0,
                patch_size=2,
                guess_channels=generator_channels[::-1][: len(unet_mult)],
            ),
            generator=GeneratorConfig(
                image_size=size,
                channels=generator_channels,
                num_res_blocks=generator_blocks,
                z_width=z_width,
                patch_size=2,
            ),
            prediction="v",
            sampling=SamplingSpec(spacing=SMALL_SPACING),
        ),
        prior=ResidualMLPConfig(z_width=z_width),
        recipe=MUON_RECIPE,
    )


_FFHQ128_MULT = ((1, 1, 2, 3, 4), (1, 1, 2, 3, 4, 4))

PRESETS = Presets(
    {
        "small32": lambda: _small(32, (1, 2, 3), (1, 2), (192, 128, 64), (1, 2, 1)),
        "small64": lambda: _small(64, (1, 2, 3, 3), (1, 2, 3), (256, 192, 128, 64), (1, 2, 1, 1)),
        "celeba64": lambda: _published(
            64, 64, (1, 2, 4, 8), (1, 2, 4, 8, 8), Recipe(batch_size=128, num_images=72_000_000)
        ),
        "ffhq128": lambda: _published(
            128, 128, *_FFHQ128_MULT, Recipe(batch_size=128, num_images=130_000_000)
        ),
        "ffhq256": lambda: _published(
            256,
            128,
            (1, 1, 2, 2, 4, 4),
            (1, 1, 2, 2, 4, 4, 4),
            Recipe(batch_size=64, num_images=200_000_000),
        ),
        "horse128": lambda: _published(
            128, 128, *_FFHQ128_MULT, Recipe(batch_size=128, num_images=130_000_000), prior_layers=20
        ),
        "bedroom128": lambda: _published(
            128, 128, *_FFHQ128_MULT, Recipe(batch_size=128, num_images=120_000_000), prior_layers=20
        ),
    }
)
