"""Images to tensors and back: the only place that knows uint8, EXIF, alpha and colour spaces.

Inside rdm an image is float32 (3, H, W) in [-1, 1]; on disk it is one of ``FORMATS``, whatever its name.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rdm_cli.data.places import Readable
from rdm_cli.errors import ImageError

if TYPE_CHECKING:
    from torch import Tensor

Fit = Literal["crop", "pad", "stretch"]

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2")
)

# Pillow knows more, some of it dangerous: for an EPS it starts Ghostscript, whatever the file is called.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")

MAX_PIXELS = 2**27  # 134 million, above any camera's; decoded, as RGB, they take 400 MB

# What Pillow's decoders let through when the bytes are damaged (libavif's is the RuntimeError).
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, RuntimeError, LookupError, TypeError, ArithmeticError,
    struct.error,
)  # fmt: skip


def load_rgb(path: Readable, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open ``path``, a file or what is read like one, as an upright, opaque, 8-bit RGB image.

    EXIF orientation is applied, alpha lies over white, 16-bit values are scaled, CMYK and palettes
    are converted, and an animation gives its first frame. Raises ImageError, saying what is wrong; for an
    image of more than ``max_pixels`` before any of them is decoded.
    """
    try:
        opened = _refuse_no_file(path) if isinstance(path, Path) else _in_memory(path)
        with _limited_to(max_pixels), Image.open(opened, formats=_formats()) as image:
            image.load()
            return _opaque_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not an image that can be read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{path}: more than {max_pixels:,} pixels", hint="raise --max-pixels if it can be trusted"
        ) from error
    except MemoryError as error:
        raise ImageError(f"{path}: too large for this machine's memory") from error
    except PermissionError as error:
        raise ImageError(f"{path}: may not be read (permission denied)") from error
    except DECODER_ERRORS as error:
        raise ImageError(f"{path}: damaged image ({str(error).rstrip('.')})") from error


def _refuse_no_file(path: Path) -> Path:
    if path.is_symlink() and not path.exists():
        raise ImageError(f"{path}: the link points to nothing")
    if not path.exists():
        raise ImageError(f"{path}: no such file")
    if path.is_dir():
        raise ImageError(f"{path}: this is a folder, not an image")
    if not path.is_file():
        raise ImageError(f"{path}: this is a pipe or a device, not an image")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: the file is empty")
    return path


def _in_memory(source: Readable) -> io.BytesIO:
    content = source.read_bytes()
    if not content:
        raise ImageError(f"{source}: the file is empty")
    return io.BytesIO(content)


@cache
def _formats() -> tuple[str, ...]:
    """Those of ``FORMATS`` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def _limited_to(max_pixels: int) -> Iterator[None]:
    """Within the block Pillow refuses larger images, and keeps its other remarks to itself.

    Pillow itself looks wherever a decoder learns of a size, but only warns of less than twice the limit.
    """
    usual = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on odd metadata help nobody here
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def _opaque_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_wide_grey(image)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_wide_grey(image: Image.Image) -> Image.Image:
    """Integers are 16-bit (0..65535); floats up to 1 are a fraction of white, others 0..255."""
    values = np.asarray(image, dtype=np.float64)
    if image.mode != "F":
        values = values / 257
    elif np.nanmax(values, initial=0.0) <= 1:
        values = values * 255
    grey = np.nan_to_num(values).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def fit_square(image: Image.Image, size: int, fit: Fit = "crop") -> Image.Image:
    """Bring ``image`` to ``size`` x ``size`` pixels; one of that size already is returned untouched.

    ``crop`` cuts the centre square, ``pad`` puts the whole image on white, ``stretch`` ignores the
    proportions. Resizing is antialiased (Lanczos).
    """
    if image.size == (size, size):
        return image
    lanczos = Image.Resampling.LANCZOS
    if fit == "crop":
        return ImageOps.fit(image, (size, size), method=lanczos)
    if fit == "pad":
        return ImageOps.pad(image, (size, size), method=lanczos, color="white")
    return image.resize((size, size), lanczos)


def image_bytes(
    path: Readable, size: int, fit: Fit = "crop", *, channels: int = 3, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """``path`` as uint8 (channels, size, size): 3 are RGB, 1 is grey. Raises ImageError."""
    square = fit_square(load_rgb(path, max_pixels=max_pixels), size, fit)
    if channels == 1:
        return np.array(square.convert("L"), dtype=np.uint8)[None]
    return np.ascontiguousarray(np.asarray(square, dtype=np.uint8).transpose(2, 0, 1))


def to_unit_range(pixels: Tensor) -> Tensor:
    """uint8 pixels to float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_pixels(x_0: Tensor) -> Tensor:
    """Images in [-1, 1] to uint8 of the same shape; values outside are clamped."""
    return ((x_0.float() + 1) * 127.5).round().clamp(0, 255).byte()


def to_pil(x_0: Tensor) -> Image.Image:
    """One image (3, H, W), or (1, H, W) if grey, in [-1, 1] as a Pillow image."""
    return pixels_to_pil(to_pixels(x_0.detach().cpu()))


def pixels_to_pil(pixels: Tensor) -> Image.Image:
    """uint8 (3, H, W), or (1, H, W) if grey, as a Pillow image."""
    return Image.fromarray((pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0).contiguous()).numpy())


def grid(images: list[Image.Image], columns: int, gap: int = 2) -> Image.Image:
    """Lay images of one size out in rows on white, ``gap`` pixels apart."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet
