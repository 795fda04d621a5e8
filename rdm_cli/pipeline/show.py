"""Images beside one another, with labels: what a notebook shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

from rdm_cli.data.images.pixels import to_pil
from rdm_cli.data.images.sheet import Tile, lay_out

Strip: TypeAlias = "Tensor | np.ndarray | Image.Image | Sequence[Strip]"

GAP = 4  # pixels


def show(
    images: Strip | Mapping[str, Strip], labels: Sequence[str] | None = None, *, height: int = 128
) -> Image.Image:
    """Lay images out in a strip, or in a row for each entry of a mapping; a notebook displays the result.

    ``images``: what the pipeline's verbs give and take: tensors (3, H, W) or (N, 3, H, W) in [-1, 1], uint8
    arrays (H, W, 3) or (N, H, W, 3), PIL images, or lists of these. The keys of a mapping are written to the
    left of their rows, ``labels`` above the columns; each image is ``height`` pixels high. Raises ValueError
    for no images, for another shape or dtype, and for other than one label a column.
    """
    if not isinstance(height, int) or height < 1:
        raise ValueError(f"height must be a whole number of pixels, not {height!r}")
    rows = images if isinstance(images, Mapping) else {"": images}
    strips = {str(name): [_scaled(one, height) for one in _listed(row)] for name, row in rows.items()}
    num_columns = max((len(strip) for strip in strips.values()), default=0)
    if not num_columns:
        raise ValueError("there are no images to show")
    if labels is not None and len(labels) != num_columns:
        raise ValueError(f"{num_columns} columns need as many labels, not {len(labels)}")
    rows_of_tiles = [[Tile(one) for one in strip] for strip in strips.values()]
    return lay_out(rows_of_tiles, names=list(strips) if any(strips) else (), heads=labels or (), gap=GAP)


def _listed(images: Strip) -> list[Image.Image]:
    """``images`` as PIL images; raises ValueError."""
    if isinstance(images, Image.Image):
        return [images.convert("RGB")]
    if isinstance(images, Tensor):
        several = images[None] if images.ndim == 3 else images
        if several.ndim != 4 or several.shape[1] not in (1, 3) or not several.is_floating_point():
            raise ValueError(
                f"a tensor of images is of floats, (N, 3, H, W), not {images.dtype} {tuple(images.shape)}"
            )
        return [to_pil(one).convert("RGB") for one in several]
    if isinstance(images, np.ndarray):
        several_arrays = images[None] if images.ndim == 3 else images
        if images.dtype != np.uint8 or several_arrays.ndim != 4 or several_arrays.shape[3] not in (1, 3):
            raise ValueError(f"an array of images is uint8 (N, H, W, 3), not {images.dtype} {images.shape}")
        return [
            Image.fromarray(one[..., 0] if one.shape[2] == 1 else one).convert("RGB")
            for one in several_arrays
        ]
    if isinstance(images, Sequence) and not isinstance(images, str):
        return [image for one in images for image in _listed(one)]
    raise ValueError(f"images are tensors, arrays or PIL images, and no {type(images).__name__}")


def _scaled(image: Image.Image, height: int) -> Image.Image:
    """``image`` at this ``height``, with its pixels kept square and sharp."""
    if image.height == height:
        return image
    resampling = Image.Resampling.NEAREST if height > image.height else Image.Resampling.LANCZOS
    return image.resize((max(1, round(image.width * height / image.height)), height), resampling)
