"""The networks of LPIPS (Zhang et al., CVPR 2018, arXiv 1801.03924): AlexNet and VGG16.

Layers are numbered as in torchvision's files of weights, ``features.0`` and so on. What is compared are the
maps after five of the ReLUs: the last before each pooling, and for AlexNet the two in between.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rdm_cli.models.shift_tolerant import TrunkName

# ImageNet's mean and deviation, for images in [-1, 1] and rounded as LPIPS has them
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# (kernel, stride, padding, width) of a convolution and its ReLU; None is a pooling
_Layer = tuple[int, int, int, int] | None
_LAYERS: dict[TrunkName, tuple[_Layer, ...]] = {
    "alex": (
        (11, 4, 2, 64), None, (5, 1, 2, 192), None, (3, 1, 1, 384), (3, 1, 1, 256), (3, 1, 1, 256),
    ),
    "vgg": (
        *[(3, 1, 1, 64)] * 2, None, *[(3, 1, 1, 128)] * 2, None, *[(3, 1, 1, 256)] * 3, None,
        *[(3, 1, 1, 512)] * 3, None, *[(3, 1, 1, 512)] * 3,
    ),
}  # fmt: skip
_TAPS: dict[TrunkName, tuple[int, ...]] = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
_POOLING_PX: dict[TrunkName, int] = {"alex": 3, "vgg": 2}


@dataclass(frozen=True, kw_only=True)
class LPIPSConfig:
    """Which trunk: ``alex`` (2.5 M weights) or ``vgg`` (14.7 M)."""

    trunk: TrunkName

    @property
    def smallest(self) -> int:
        """The fewest pixels a side that leave something to compare in the last map."""
        return {"alex": 31, "vgg": 16}[self.trunk]


class LPIPSNetwork(nn.Module):
    """The trunk, and for each of its five maps a ``head`` (1, C, 1, 1): how much each channel counts.

    ``forward`` takes images (B, 3, H, W) in [-1, 1] to those maps, (B, C, h, w) each. Raises ValueError for
    others, and for images smaller than ``config.smallest``.
    """

    def __init__(self, config: LPIPSConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        widths = [3]
        for layer in _LAYERS[config.trunk]:
            if layer is None:
                layers.append(nn.MaxPool2d(_POOLING_PX[config.trunk], stride=2))
                continue
            kernel, stride, padding, width = layer
            layers += [nn.Conv2d(widths[-1], width, kernel, stride, padding), nn.ReLU()]
            widths.append(width)
        self.features = nn.Sequential(*layers)
        tapped = [layers[i - 1] for i in _TAPS[config.trunk]]
        self.heads = nn.ParameterList(
            torch.zeros(1, conv.out_channels, 1, 1) for conv in tapped if isinstance(conv, nn.Conv2d)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        smallest = self.config.smallest
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < smallest:
            raise ValueError(
                f"LPIPS on {self.config.trunk} takes images (B, 3, H, W) of {smallest} pixels a side or "
                f"more, not {tuple(x.shape)}"
            )
        shift, scale = (x.new_tensor(values).view(1, 3, 1, 1) for values in (SHIFT, SCALE))
        x = (x - shift) / scale
        maps = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in _TAPS[self.config.trunk]:
                maps.append(x)
        return maps
