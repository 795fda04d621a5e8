r"""The networks of ST-LPIPS (Ghildyal & Liu, ECCV 2022, arXiv 2207.13686): AlexNet and VGG16, bearing shifts.

What a layer of stride 2 or more sees changes with every pixel that the image moves. So, as in Zhang 2019
(arXiv 1904.11486), whatever skipped places looks at them all, and a blur then keeps every second:

    pooling (stride 2)            ->  maximum (stride 1), then [1 2 1] x [1 2 1] / 16 (stride 2)
    AlexNet's 11 x 11 (stride 4)  ->  convolution (stride 1), then the same blur, before its ReLU

The blur sees maps mirrored by two places, one more than it needs: what enters and leaves at the border then
counts for less. Layers are numbered as in the published weights, ``slice2.4`` and so on; each slice ends with
the ReLU whose map is compared.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TrunkName = Literal["alex", "vgg"]


class BlurPool(nn.Module):
    """(B, C, H, W) blurred by ``filt`` (C, 1, 3, 3), every second place kept: (B, C, (H + 1) // 2 + 1, ...).

    H and W are at least 3, or there is nothing to mirror: torch raises RuntimeError.
    """

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("filt", torch.outer(taps, taps).repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), self.filt, stride=2, groups=x.shape[1])


def _alex() -> list[list[nn.Module]]:
    return [
        [nn.Conv2d(3, 64, 11, padding=2), BlurPool(64), nn.ReLU()],
        [nn.MaxPool2d(3, stride=1), BlurPool(64), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()],
        [nn.MaxPool2d(3, stride=1), BlurPool(192), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()],
    ]


def _vgg() -> list[list[nn.Module]]:
    slices: list[list[nn.Module]] = []
    channels = 3
    for width, num_convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers: list[nn.Module] = [nn.MaxPool2d(2, stride=1), BlurPool(channels)] if slices else []
        for _ in range(num_convolutions):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        slices.append(layers)
    return slices


def _numbered(slices: Iterable[Iterable[nn.Module]]) -> nn.ModuleDict:
    """``slice1``, ``slice2``, ...; their layers are counted through from 0."""
    numbers = count()
    return nn.ModuleDict(
        {
            f"slice{k}": nn.Sequential(OrderedDict((str(next(numbers)), layer) for layer in layers))
            for k, layers in enumerate(slices, start=1)
        }
    )


@dataclass(frozen=True, kw_only=True)
class ShiftTolerantConfig:
    """Which trunk: ``alex`` (2.5 M weights) or ``vgg`` (14.7 M)."""

    trunk: TrunkName

    @property
    def smallest(self) -> int:
        """The fewest pixels a side that leave every map large enough to be mirrored by two."""
        return {"alex": 21, "vgg": 18}[self.trunk]

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each map that is compared."""
        return {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}[self.trunk]


class ShiftTolerantNetwork(nn.Module):
    """The trunk, and for each of its five maps a ``head`` (1, C, 1, 1): how much each channel counts.

    ``forward`` takes images (B, 3, H, W) in [-1, 1] to those maps, (B, C, h, w) each. Raises ValueError for
    others, and for images smaller than ``config.smallest``.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, config: ShiftTolerantConfig) -> None:
        super().__init__()
        self.config = config
        # ImageNet's mean and deviation, for images in [-1, 1] and rounded as LPIPS has them
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.net: Any = _numbered(_alex() if config.trunk == "alex" else _vgg())
        self.heads = nn.ParameterList(torch.zeros(1, c, 1, 1) for c in config.channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        smallest = self.config.smallest
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < smallest:
            raise ValueError(
                f"ST-LPIPS on {self.config.trunk} takes images (B, 3, H, W) of {smallest} pixels a side or "
                f"more, not {tuple(x.shape)}"
            )
        x = (x - self.shift) / self.scale
        maps = []
        for part in self.net.values():
            x = part(x)
            maps.append(x)
        return maps
