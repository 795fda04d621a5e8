"""Diff-AE's presets: the published networks as published, and small ones that a CPU can train.

Published: arXiv 2111.15640, appendix A, and the reference's configurations (batch and images seen
beside each). Small: encoder, generator and UNet on 2x2 patches, v-prediction, no dropout, an encoder that
flattens its last map, Muon, timesteps even in log-SNR; docs/training.md has what was tried.
"""

from __future__ import annotations

from rdm_cli.methods.presets import (
    MUON_RECIPE,
    SMALL_SPACING,
    SMALL_Z_WIDTH,
    Preset,
    Presets,
    Recipe,
    small_parts,
)


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


def _small(size: int, encoder_mult: tuple[int, ...], unet_mult: tuple[int, ...]) -> Preset:
    """A generator of z from maps of 4 x 4 on, and a narrow UNet around its guess."""
    from rdm_cli.kernels.spec import SamplingSpec
    from rdm_cli.methods.diffae.config import DiffAEConfig
    from rdm_cli.models.residual_mlp import ResidualMLPConfig
    from rdm_cli.models.unet import UNetConfig

    encoder, generator = small_parts(size, encoder_channels=64, encoder_mult=encoder_mult)
    return Preset(
        config=DiffAEConfig(
            encoder=encoder,
            unet=UNetConfig(
                image_size=size,
                model_channels=32,
                channel_mult=unet_mult,
                num_res_blocks=1,
                attention_resolutions=(),
                time_width=128,
                z_width=SMALL_Z_WIDTH,
                dropout=0.0,
                patch_size=2,
                guess_channels=generator.channels[::-1][: len(unet_mult)],
            ),
            generator=generator,
            prediction="v",
            sampling=SamplingSpec(spacing=SMALL_SPACING),
        ),
        prior=ResidualMLPConfig(z_width=SMALL_Z_WIDTH),
        recipe=MUON_RECIPE,
    )


_FFHQ128_MULT = ((1, 1, 2, 3, 4), (1, 1, 2, 3, 4, 4))

PRESETS = Presets(
    {
        "small32": lambda: _small(32, (1, 2, 3), (1, 2)),
        "small64": lambda: _small(64, (1, 2, 3, 3), (1, 2, 3)),
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
