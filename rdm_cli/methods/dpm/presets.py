"""Presets of plain diffusion models: small ones, which train on a CPU.

They work on 2 x 2 patches and predict v, as Diff-AE's small presets do, and are smaller than those: a bundle
of PDAE holds such a network and, beside it, most of a second one, an encoder and a generator.
"""

from __future__ import annotations

from rdm_cli.methods.presets import MUON_RECIPE, SMALL_SPACING, Preset, Presets


def _small(size: int, channel_mult: tuple[int, ...]) -> Preset:
    from rdm_cli.kernels.spec import SamplingSpec
    from rdm_cli.methods.dpm.model import DPMConfig
    from rdm_cli.models.unet import UNetConfig

    return Preset(
        config=DPMConfig(
            unet=UNetConfig(
                image_size=size,
                model_channels=32,
                channel_mult=channel_mult,
                num_res_blocks=1,
                attention_resolutions=(size // 2 // 2 ** (len(channel_mult) - 1),),
                time_width=64,
                z_width=None,
                dropout=0.0,
                patch_size=2,
            ),
            prediction="v",
            sampling=SamplingSpec(spacing=SMALL_SPACING),
        ),
        prior=None,
        recipe=MUON_RECIPE,
    )


PRESETS = Presets(
    {
        "small32": lambda: _small(32, (2, 3)),
        "small64": lambda: _small(64, (1, 2, 3)),
    }
)
