"""First stages: diffusers' autoencoders between images and the latents that LRDM works on.

Latents of a ``VQModel`` are taken before quantisation, and quantised when they are decoded; those of an
``AutoencoderKL`` are its posterior, of which training draws and everything else takes the mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rdm_cli.models.foreign_config import ForeignConfig


@dataclass(frozen=True, kw_only=True)
class FirstStageConfig(ForeignConfig):
    """Of an ``AutoencoderKL``, a ``VQModel`` or an ``AutoencoderTiny``."""

    CLASSES: ClassVar[tuple[str, ...]] = ("AutoencoderKL", "VQModel", "AutoencoderTiny")

    @property
    def factor(self) -> int:
        """How many pixels a side one place of the latents stands for."""
        if self.class_name == "AutoencoderTiny":
            return int(2 ** (len(self.values.get("encoder_block_out_channels", (64,) * 4)) - 1))
        return int(2 ** (len(self.values.get("block_out_channels", (64,))) - 1))

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        if self.class_name == "VQModel" and self.values.get("vq_embed_dim"):
            return int(self.values["vq_embed_dim"])
        usual = {"AutoencoderKL": 4, "VQModel": 3, "AutoencoderTiny": 4}
        return int(self.values.get("latent_channels", usual[self.class_name]))

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return int(self.values.get("in_channels", 3))

    @property
    def is_drawn(self) -> bool:
        """Whether an image has a distribution of latents, of which training draws."""
        return self.class_name == "AutoencoderKL"


def f4(
    kind: str,
    widths: tuple[int, ...],
    *,
    num_codes: int = 0,
    layers: int = 2,
    latent_channels: int = 3,
    num_groups: int = 32,
    attends: bool = True,
) -> FirstStageConfig:
    """An autoencoder of ``kind`` "vq" or "kl" with as many levels as ``widths``.

    Three levels leave a quarter of each side. ``num_codes`` are those of a VQ's book. Norms take the channels
    in ``num_groups``. The fewer, the more of an image's colours and contrasts is left: in as many groups as
    channels a norm takes each map's mean away. ``attends``: there is an attention in the middle.
    """
    num = len(widths)
    values: dict[str, Any] = {
        "in_channels": 3, "out_channels": 3, "latent_channels": latent_channels,
        "block_out_channels": list(widths),
        "down_block_types": ["DownEncoderBlock2D"] * num, "up_block_types": ["UpDecoderBlock2D"] * num,
        "layers_per_block": layers, "act_fn": "silu", "norm_num_groups": num_groups,
    }  # fmt: skip
    if not attends:
        values["mid_block_add_attention"] = False
    if kind == "kl":
        return FirstStageConfig(class_name="AutoencoderKL", values=values)
    values |= {"vq_embed_dim": latent_channels, "num_vq_embeddings": num_codes}
    return FirstStageConfig(class_name="VQModel", values=values)


def small_kl() -> FirstStageConfig:
    """The autoencoder of small presets, for images of any size: 8 channels at a quarter of a side."""
    return f4("kl", (32, 64, 64), layers=1, latent_channels=8, num_groups=1, attends=False)


def build_first_stage(config: FirstStageConfig) -> nn.Module:
    """diffusers' network with fresh weights; raises ValueError or TypeError for what it does not know."""
    import diffusers

    with quiet_diffusers():
        network: nn.Module = getattr(diffusers, config.class_name).from_config(dict(config.values))
    return network


@contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Without its remarks about settings that it writes into a config and then does not expect there."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def to_moments(network: Any, x_0: Tensor) -> tuple[Tensor, Tensor | None]:
    """Images (B, C, H, W) in [-1, 1] to the mean of their latents and, where there is one, its spread."""
    answer = network.encode(x_0)
    if hasattr(answer, "latent_dist"):
        return answer.latent_dist.mean, answer.latent_dist.std
    return answer.latents, None


def to_latents(network: Any, x_0: Tensor) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] to latents (B, c, h, w): the mode, where there is a distribution."""
    return to_moments(network, x_0)[0]


def drawn_latents(network: Any, x_0: Tensor, noise: Tensor | None = None) -> Tensor:
    """As :func:`to_latents`, drawn where there is a distribution.

    ``noise`` (B, c, h, w) is standard normal; None draws it with torch's own generator.
    """
    mean, std = to_moments(network, x_0)
    if std is None:
        return mean
    return mean + std * (torch.randn_like(mean) if noise is None else noise)


def to_images(network: Any, latents: Tensor) -> Tensor:
    """Latents (B, c, h, w) to images (B, C, H, W)."""
    sample: Tensor = network.decode(latents).sample
    return sample
