"""Embedded ICC profiles: what a file's numbers look like, converted to sRGB by LittleCMS through Pillow."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

_PROBES = 9  # a side of the cube of colours by which a profile is known to be sRGB
_SAME_LEVELS = 1  # by which sRGB profiles of different makers differ

# Which colour spaces a profile may speak of, by the mode of the pixels that it is for.
_MODES = {"RGB": ("RGB",), "GRAY": ("L", "1"), "CMYK": ("CMYK",), "LAB": ("LAB",)}

Convert = Callable[[Image.Image], Image.Image]


class BadProfileError(ValueError):
    """A profile that cannot be read, or that is not for pixels of this kind."""


def as_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """``image`` without alpha as RGB, converted from ``profile`` to sRGB; an sRGB profile changes nothing.

    A grey image with a colour profile is read as equal parts of red, green and blue. Raises BadProfileError.
    """
    space, convert = _conversion(profile)
    if space == "RGB" and image.mode in ("L", "1", "P", "YCbCr"):
        image = image.convert("RGB")
    if space == "GRAY" and image.mode == "1":
        image = image.convert("L")
    if image.mode not in _MODES[space]:
        raise BadProfileError(f"is for {space}, and the pixels are {image.mode}")
    if convert is None:
        return image.convert("RGB")
    return convert(image)


@lru_cache(maxsize=16)
def _conversion(profile: bytes) -> tuple[str, Convert | None]:
    """The profile's colour space, and what converts from it; None where that would change nothing."""
    from PIL import ImageCms

    try:
        source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = str(source.profile.xcolor_space).strip().upper()
        if space not in _MODES:
            raise BadProfileError(f"is for {space}, which rdm does not read")
        mode = _MODES[space][0]
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (OSError, TypeError, ValueError, ImageCms.PyCMSError) as error:
        if isinstance(error, BadProfileError):
            raise
        raise BadProfileError("cannot be read") from error

    def convert(image: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None, "the image is not converted in place"
        return converted

    probes = _probes(mode)
    if probes is not None:
        changed = np.asarray(convert(probes), dtype=np.int16) - np.asarray(probes.convert("RGB"), np.int16)
        if np.abs(changed).max() <= _SAME_LEVELS:
            return space, None
    return space, convert


def _probes(mode: str) -> Image.Image | None:
    """Colours all over the cube, or all levels of grey; None for pixels that are never sRGB as they are."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    if mode != "RGB":
        return None
    levels = np.linspace(0, 255, _PROBES).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    return Image.fromarray(np.ascontiguousarray(cube.reshape(_PROBES, -1, 3)))
