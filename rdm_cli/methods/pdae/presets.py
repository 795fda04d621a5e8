"""PDAE's presets: encoder, shift branch and, in the small ones, generator for the DPM that ``--dpm`` names.

The frozen UNet, what it predicts and how it samples come from that DPM; a preset says the rest.
"""

from __future__ import annotations

from rdm_cli.methods.dpm.presets import PRESETS as DPM_PRESETS
from rdm_cli.methods.presets import MUON_RECIPE, SMALL_Z_WIDTH, Preset, Presets, Recipe, small_parts


def _small(size: int, encoder_mult: tuple[int, ...]) -> Preset:
    """A generator of z from maps of 4 x 4 on, and a shift branch around its guess."""
    from rdm_cli.methods.pdae.config import pdae_config
    from rdm_cli.models.residual_mlp import ResidualMLPConfig

    dpm = DPM_PRESETS[f"small{size}"].config
    encoder, generator = small_parts(size, encoder_channels=32, encoder_mult=encoder_mult)
    return Preset(
        config=pdae_config(
            dpm.unet,
            z_width=SMALL_Z_WIDTH,
            prediction=dpm.prediction,
            sampling=dpm.sampling,
            gamma=None,
            encoder=encoder,
            sees_prediction=True,
            generator=generator,
        ),
        prior=ResidualMLPConfig(z_width=SMALL_Z_WIDTH),
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
        "small32": lambda: _small(32, (2, 3, 4)),
        "small64": lambda: _small(64, (2, 3, 4, 4)),
        "published": _published,
    }
)
