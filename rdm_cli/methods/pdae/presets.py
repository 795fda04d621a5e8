"""PDAE's presets: encoder, shift branch and, in the small ones, generator for the DPM that ``--dpm`` names.

The frozen UNet, what it predicts and how it samples come from that DPM; a preset says the rest.
"""

from __future__ import annotations

from rdm_cli.methods.dpm.presets import PRESETS as DPM_PRESETS
from rdm_cli.methods.presets import MUON_RECIPE, Preset, Presets, Recipe


def _small(
    size: int,
    encoder_mult: tuple[int, ...],
    generator_channels: tuple[int, ...],
    generator_blocks: tuple[int, ...],
    z_width: int = 256,
) -> Preset:
    """A generator of z from maps of 4 x 4 on, and a shift branch around its guess."""
    from rdm_cli.methods.pdae.config import pdae_config
    from rdm_cli.models.encoder import EncoderConfig
    from rdm_cli.models.generator import GeneratorConfig
    from rdm_cli.models.residual_mlp import ResidualMLPConfig

    dpm = DPM_PRESETS[f"small{size}"].config
    return Preset(
        config=pdae_config(
            dpm.unet,
            z_width=z_width,
            prediction=dpm.prediction,
            sampling=dpm.sampling,
            gamma=None,
            encoder=EncoderConfig(
                image_size=size,
                model_channels=32,
                channel_mult=encoder_mult,
                num_res_blocks=1,
                attention_resolutions=(),
                z_width=z_width,
                patch_size=2,
                pool="flatten",
            ),
            sees_prediction=True,
            generator=GeneratorConfig(
                image_size=size,
                channels=generator_channels,
                num_res_blocks=generator_blocks,
                z_width=z_width,
                patch_size=2,
            ),
        ),
        prior=ResidualMLPConfig(z_width=z_width),
        recipe=MUON_RECIPE,
    )


def _published() -> Preset:
    """As published, around the small DPM unless another is named."""
    from rdm_cli.methods.pdae.config import pdae_config
    from rdm_cli.models.latent_mlp import LatentMLPConfig

    dpm, prior = DPM_PRESETS["small64"].config, LatentMLPConfig()
    return Preset(
        config=pdae_config(
            dpm.unet,
            z_width=prior.z_width,
            prediction=dpm.prediction,
            sampling=dpm.sampling,
            gamma=0.1,
        ),
        prior=prior,
        recipe=Recipe(batch_size=128, num_images=130_000_000),
    )


PRESETS = Presets(
    {
        "small32": lambda: _small(32, (2, 3, 4), (192, 128, 64), (1, 2, 1)),
        "small64": lambda: _small(64, (2, 3, 4, 4), (256, 192, 128, 64), (1, 2, 1, 1)),
        "published": _published,
    }
)
