"""Codes that bring back every pixel of the fitted image, the square of the bundle's size that is encoded.

A residual beside the code makes up for what decoding loses; it is checked before it is believed.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from rdm_cli.codes.code import CodeInfo, Codes
from rdm_cli.data.images.pixels import load_rgb, to_pil, to_pixels
from rdm_cli.data.io.places import Place
from rdm_cli.data.residual import encode_residual, pixel_digest, restore_pixels
from rdm_cli.errors import CodeError, ImageError, setting


def with_residual(code: Codes, x_0: Tensor, picture: Tensor) -> Codes:
    """One ``code`` with what leads from its ``picture`` to the image ``x_0``, (1, C, H, W) in [-1, 1]."""
    pixels = _pixels(x_0)
    residual = encode_residual(pixels, _pixels(picture))
    info = replace(code.infos[0], pixels_digest=pixel_digest(pixels))
    return code.replace(residuals=(residual,), infos=(info,))


def restored(code: Codes, picture: Tensor) -> Tensor:
    """uint8 (C, H, W): the image that one ``code`` was made from, from its ``picture`` (1, C, H, W).

    Raises CodeError where the picture lies too far from that which the residual was made for.
    """
    assert code.residuals is not None
    try:
        pixels = restore_pixels(_pixels(picture), code.residuals[0])
    except ValueError as error:
        raise CodeError(f"the code's residual cannot be used: {error}") from error
    if pixel_digest(pixels) != code.infos[0].pixels_digest:
        raise CodeError(
            "the code decodes too far from what its residual was made for, so the image is not restored",
            hint=f"decode with the {setting('precision')} that it records; "
            f"{setting('x_T')} random gives a picture without it",
        )
    return torch.from_numpy(pixels)


def is_restored(path: Place, info: CodeInfo) -> bool:
    """Whether ``path`` is a picture already, with the very pixels that a code with this ``info`` restores."""
    if info.pixels_digest is None or not path.is_file():
        return False
    try:
        image = load_rgb(path)
    except ImageError:
        return False
    return image.size == (info.image_size,) * 2 and info.pixels_digest in {
        hashlib.sha256(image.convert(mode).tobytes()).hexdigest() for mode in ("RGB", "L")
    }


def num_bytes(code: Codes, x_0: Tensor) -> dict[str, int]:
    """Bytes of each part of one lossless ``code``, and of the image (1, C, H, W) as PNG and lossless WebP."""
    assert code.residuals is not None
    parts = {"z": code.z, "x_T": code.x_T, "other": code.other, **code.conditions}
    found = {name: t.numel() * t.element_size() for name, t in parts.items() if t is not None and t.numel()}
    image = to_pil(x_0[0])
    return found | {
        "residual": len(code.residuals[0]),
        "as_png": _file_bytes(image, "PNG", optimize=True),
        "as_webp": _file_bytes(image, "WEBP", lossless=True, quality=100, method=6),
    }


def _file_bytes(image: Image, kind: str, **options: object) -> int:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.tell()


def _pixels(x: Tensor) -> np.ndarray:
    pixels: np.ndarray = to_pixels(x[0].cpu()).numpy()
    return pixels
