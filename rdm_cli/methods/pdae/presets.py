"""PDAE's presets: encoder and shift branch for the DPM that ``--dpm`` names.

The frozen UNet, what it predicts and how it samples come from that DPM; a preset says the rest.
"""

from __future__ import annotations

from rdm_cli.methods.dpm.presets import PRESETS as DPM_PRESETS
from rdm_cli.methods.presets import SMALL_RECIPE, Preset, Presets, Recipe


def _preset(
    dpm: Preset,
    *,
    gamma: float | None,
    recipe: Recipe,
    channels: tuple[int, ...] | None = None,
    sees_prediction: bool = False,
    **prior: int,
) -> Preset:
    """Encoder and shift branch for ``dpm``; ``prior``: what is not usual of the latent prior's network."""
    from rdm_cli.methods.pdae.config import pdae_config
    from rdm_cli.models.latent_mlp import LatentMLPConfig

    network = LatentMLPConfig(**prior)
    return Preset(
        config=pdae_config(
            dpm.config.unet,
            z_width=network.z_width,
            prediction=dpm.config.prediction,
            sampling=dpm.config.sampling,
            gamma=gamma,
            channels=channels,
            sees_prediction=sees_prediction,
        ),
        prior=network,
        recipe=recipe,
    )


def _small(size: int, channels: tuple[int, ...] | None = None) -> Preset:
    """Without a weighting: these shift v, whose errors are of one size at every t."""
    return _preset(
        DPM_PRESETS[f"small{size}"],
        gamma=None,
        recipe=SMALL_RECIPE,
        channels=channels,
        sees_prediction=True,
        z_width=256,
        hidden_width=384,
        num_layers=5,
        time_channels=64,
    )


PRESETS = Presets(
    {
        "small32": lambda: _small(32),
        "small64": lambda: _small(64, (64, 128, 192, 192)),
        "published": lambda: _preset(
            DPM_PRESETS["small64"], gamma=0.1, recipe=Recipe(batch_size=128, num_images=130_000_000)
        ),
    }
)
