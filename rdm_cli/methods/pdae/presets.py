"""PDAE's presets: encoder and shift branch for the DPM that ``--dpm`` names.

The frozen UNet, what it predicts and how it samples come from that DPM; a preset says the rest.
"""

from __future__ import annotations

from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.dpm.presets import PRESETS as DPM_PRESETS
from rdm_cli.methods.pdae.config import PDAEConfig
from rdm_cli.methods.presets import SMALL_RECIPE, Preset, Recipe
from rdm_cli.models.backbones import Backbone
from rdm_cli.models.latent_mlp import LatentMLPConfig
from rdm_cli.models.shift_branch import ShiftConfig
from rdm_cli.models.strided_encoder import StridedEncoderConfig, published_channels


def pdae_config(
    unet: Backbone,
    *,
    z_width: int,
    prediction: Prediction,
    sampling: SamplingSpec,
    gamma: float | None,
    channels: tuple[int, ...] | None = None,
    sees_prediction: bool = False,
) -> PDAEConfig:
    """The networks around a frozen ``unet``; raises ValueError for a size that no encoder takes.

    ``channels`` of the encoder None: the published ones, and the like at other sizes.
    """
    return PDAEConfig(
        unet=unet,
        encoder=StridedEncoderConfig(
            image_size=unet.image_size,
            channels=channels or published_channels(unet.image_size),
            z_width=z_width,
            image_channels=unet.image_channels,
        ),
        shift=ShiftConfig(unet=unet, z_width=z_width, gamma=gamma, sees_prediction=sees_prediction),
        prediction=prediction,
        sampling=sampling,
    )


def _preset(
    dpm: Preset,
    *,
    z_width: int,
    gamma: float | None,
    prior: LatentMLPConfig,
    recipe: Recipe,
    channels: tuple[int, ...] | None = None,
    sees_prediction: bool = False,
) -> Preset:
    return Preset(
        config=pdae_config(
            dpm.config.unet,
            z_width=z_width,
            prediction=dpm.config.prediction,
            sampling=dpm.config.sampling,
            gamma=gamma,
            channels=channels,
            sees_prediction=sees_prediction,
        ),
        prior=prior,
        recipe=recipe,
    )


_SMALL_PRIOR = LatentMLPConfig(z_width=256, hidden_width=384, num_layers=5, time_channels=64)

PRESETS: dict[str, Preset] = {
    # no weighting: these shift v, whose errors are of one size at every t
    "small32": _preset(
        DPM_PRESETS["small32"],
        z_width=256,
        gamma=None,
        prior=_SMALL_PRIOR,
        recipe=SMALL_RECIPE,
        sees_prediction=True,
    ),
    "small64": _preset(
        DPM_PRESETS["small64"],
        z_width=256,
        gamma=None,
        prior=_SMALL_PRIOR,
        recipe=SMALL_RECIPE,
        channels=(64, 128, 192, 192),
        sees_prediction=True,
    ),
    "published": _preset(
        DPM_PRESETS["small64"],
        z_width=512,
        gamma=0.1,
        prior=LatentMLPConfig(),
        recipe=Recipe(batch_size=128, num_images=130_000_000),
    ),
}
