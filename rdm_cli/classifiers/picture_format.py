"""The pictures that a model takes: size, layout, mean and standard deviation, as its maker chose them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rdm_cli.errors import UsageError, setting

Layout = Literal["nchw", "nhwc"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
USUAL_SIZE = 224
LARGEST = 4096  # pixels a side


@dataclass(frozen=True, kw_only=True)
class PictureFormat:
    """How pictures are given to a model; None: not known.

    ``size`` is (height, width) in pixels, ``mean`` and ``std`` are of values in [0, 1], one or three of
    them; ``channels`` 1 or 3. Where ``resized`` is known, a picture gets so many pixels a side first, and
    its middle of ``size`` is cut out.
    """

    size: tuple[int, int] | None = None
    layout: Layout | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels: int = 3
    resized: int | None = None

    def updated(self, asked: PictureFormat) -> PictureFormat:
        """This with what ``asked`` says."""
        named = {key: getattr(asked, key) for key in ("size", "layout", "mean", "std")}
        found = replace(self, **{key: value for key, value in named.items() if value is not None})
        return found if asked.size is None else replace(found, resized=None)

    def given(self, x: Tensor) -> Tensor:
        """Pictures ``x`` (B, 3, H, W) in [-1, 1] as the model takes them, float32; gradients flow."""
        x = (x + 1) / 2
        if self.size is not None:
            size = self.size if self.resized is None else (self.resized, self.resized)
            if x.shape[2:] != size:
                x = F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)
            top, left = ((a - b) // 2 for a, b in zip(size, self.size, strict=True))
            x = x[:, :, top : top + self.size[0], left : left + self.size[1]]
        if self.channels == 1:
            x = (x * x.new_tensor((0.299, 0.587, 0.114))[:, None, None]).sum(dim=1, keepdim=True)
        mean, std = (x.new_tensor(v)[:, None, None] for v in (self.mean or (0.0,), self.std or (1.0,)))
        x = (x - mean) / std
        return x.permute(0, 2, 3, 1) if self.layout == "nhwc" else x

    def told(self) -> dict[str, Any]:
        """It in words, for a report."""
        told: dict[str, Any] = {}
        if self.size is not None:
            told["input"] = f"{self.size[0]} x {self.size[1]}, {'grey' if self.channels == 1 else 'RGB'}"
        if self.resized is not None:
            told["input"] += f", the middle of {self.resized} x {self.resized}"
        if self.layout is not None:
            told["layout"] = self.layout.upper()
        told["mean"] = list(self.mean or (0.0,))
        told["std"] = list(self.std or (1.0,))
        return told


def checked_format(
    *,
    size: int | Sequence[int] | None = None,
    layout: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> PictureFormat:
    """What a user says of a model's pictures; raises UsageError for what cannot be."""
    pair = None
    if size is not None:
        sides = (size, size) if isinstance(size, int) else tuple(size)
        if len(sides) != 2 or not all(1 <= side <= LARGEST for side in sides):
            raise UsageError(f"{setting('size')}: one or two sides of 1 to {LARGEST} pixels, not {size}")
        pair = (int(sides[0]), int(sides[1]))
    if layout is not None and layout not in ("nchw", "nhwc"):
        raise UsageError(f"{setting('layout')} {layout}: nchw or nhwc")
    for name, values in (("mean", mean), ("std", std)):
        if values is None:
            continue
        if len(values) not in (1, 3) or not bool(torch.isfinite(torch.tensor(list(values))).all()):
            raise UsageError(f"{setting(name)}: one number or three, of values in [0, 1], not {list(values)}")
        if name == "std" and min(values) <= 0:
            raise UsageError(f"{setting(name)}: numbers above 0, not {list(values)}")
    return PictureFormat(
        size=pair,
        layout=layout,  # type: ignore[arg-type]  # one of the two, as was seen above
        mean=None if mean is None else tuple(map(float, mean)),
        std=None if std is None else tuple(map(float, std)),
    )
