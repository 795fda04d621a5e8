"""A plain, unconditional diffusion model (Ho et al., NeurIPS 2020, arXiv 2006.11239).

Its code is x_T alone, inferred and decoded by DDIM (Song et al. 2021): it has no encoder, and its z
has no values. PDAE gives such a model an encoder.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.spec import EpsFn, SamplingSpec
from rdm_cli.methods.denoising import UNetModel
from rdm_cli.models.backbones import Backbone


@dataclass(frozen=True, kw_only=True)
class DPMConfig:
    """An unconditional UNet, what it predicts, and how it samples."""

    unet: Backbone
    prediction: Prediction = "eps"
    sampling: SamplingSpec = field(default_factory=SamplingSpec)

    def __post_init__(self) -> None:
        if self.unet.z_width is not None:
            raise ValueError("the UNet of a plain DPM takes no z")


class DPM(UNetModel):
    """The trained UNet; ``forward`` is the loss."""

    config: DPMConfig

    def __init__(self, config: DPMConfig) -> None:
        super().__init__(config)

    @property
    def z_shape(self) -> tuple[int, ...]:
        """(0,): there is no z."""
        return (0,)

    def component_config(self, name: str) -> Backbone:
        """The config of ``unet``."""
        return self.config.unet

    def encode(self, x_0: Tensor) -> Tensor:
        """Images ``x_0`` (B, 3, H, W) to codes without values, (B, 0)."""
        return x_0.new_zeros(len(x_0), 0)

    def denoiser(self, z: Tensor) -> EpsFn:
        """eps(x_t, t); ``z`` (B, 0) says nothing."""
        return self.denoiser_for(None)

    def loss(self, x_0: Tensor, t: Tensor, eps: Tensor, z: Tensor | None = None) -> Tensor:
        """Mean squared error of each image, (B,), in what the network predicts."""
        return self.denoising_loss(x_0, t, eps, None)

    forward = loss
