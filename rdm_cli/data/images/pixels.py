"""Images to tensors and back: the only place that knows uint8, EXIF, alpha and colour spaces.

Inside rdm an image is float32 (3, H, W) in [-1, 1]; on disk it is one of ``FORMATS``, whatever its name.
"""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, get_args

import numpy as np
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from rdm_cli.data.images.colour_profiles import BadProfileError, as_srgb
from rdm_cli.data.images.kinds import HEAD_BYTES, kind_of
from rdm_cli.data.images.value_range import (
    LEVELS,
    LEVELS_16,
    ValueRange,
    found_in,
    grey_levels,
    num_not_finite,
)
from rdm_cli.data.io.places import Readable
from rdm_cli.errors import ImageError, PictureError, setting

if TYPE_CHECKING:
    from torch import Tensor

Fit = Literal["crop", "pad", "stretch"]

SUFFIXES = frozenset(
    (
        ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff",
        ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k", ".heic", ".heif",
    )
)  # fmt: skip
"""What image files are usually called; in folders, others are known by their first bytes."""

# Pillow knows more, some of it dangerous: for an EPS it starts Ghostscript, whatever the file is called.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF")

# What reads formats that this Pillow may have no decoder for, each registering itself with Pillow.
_PLUGINS = {"HEIF": "pillow_heif", "AVIF": "pillow_avif"}

TILEWIDTH, TILELENGTH = 322, 323  # tags of a TIFF

MAX_PIXELS = 2**27  # 134 million, above any camera's; decoded, as RGB, they take 400 MB

# What Pillow's decoders let through when the bytes are damaged (libavif's is the RuntimeError).
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, RuntimeError, LookupError, TypeError, ArithmeticError,
    struct.error,
)  # fmt: skip


Remark = Callable[[str, str], None]
"""Called with an image's name and one line about what was left out or ignored in reading it."""


SAID_ONCE = "This is said once"
"""Ends a remark that is not on one image alone, and is made of the first."""


def warn_of(name: str, text: str) -> None:
    """Warn of an image that was read in part; the default wherever nobody else is told."""
    warnings.warn(f"{name}: {text}", stacklevel=2)


def load_rgb(
    path: Readable,
    *,
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
    on_remark: Remark = warn_of,
) -> Image.Image:
    """Open ``path``, a file or what is read like one, as an upright, opaque, 8-bit RGB image.

    EXIF orientation is applied, alpha lies over white, CMYK and palettes are converted, an embedded ICC
    profile is converted to sRGB, and a file of several pages or frames gives its first. Grey values of more
    than 8 bits are scaled from ``value_range``, or else from the range that they are usually meant to have
    (:mod:`rdm_cli.data.images.value_range`). ``on_remark`` is told of pages that are left out, of values that
    are not finite, and of profiles that cannot be used. Raises ImageError, saying what is wrong; for an image
    of more than ``max_pixels`` before any of them is decoded.
    """
    name, kind = str(path), None
    try:
        opened = _refuse_no_file(path) if isinstance(path, Path) else _in_memory(path)
        kind = kind_of(_head(opened))
        with contextlib.closing(opened.open("rb") if isinstance(opened, Path) else opened) as file:
            image = _undecoded(file, _formats(name, kind))
            if image is None:
                raise _unidentified(name, kind)
            if _num_pixels(image) > max_pixels:
                raise _too_large(name, max_pixels)
            stored = _stored_as(name, image)
            image.load()
            upright = ImageOps.exif_transpose(image)
            num_pages = _num_pages(image)
        remarks = [] if num_pages == 1 else [f"page 1 of {num_pages or 'several'} is read"]
        rgb = _opaque_rgb(name, upright, stored, value_range, remarks)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{path}: more pixels than Pillow reads in such a file ({error})") from error
    except MemoryError as error:
        raise ImageError(f"{path}: too large for this machine's memory") from error
    except PermissionError as error:
        raise ImageError(f"{path}: may not be read (permission denied)") from error
    except DECODER_ERRORS as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise ImageError(f"{path}: damaged image ({why})") from error
    for remark in remarks:
        on_remark(name, remark)
    return rgb


def opened_rgb(
    image: Image.Image,
    name: str,
    *,
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
    on_remark: Remark = warn_of,
) -> Image.Image:
    """What :func:`load_rgb` makes of a file, of an ``image`` that Pillow has opened, called ``name``.

    Of several pages it takes the one that the image stands at.
    """
    remarks: list[str] = []
    try:
        if image.width * image.height > max_pixels:
            raise _too_large(name, max_pixels)
        stored = _stored_as(name, image)
        rgb = _opaque_rgb(name, ImageOps.exif_transpose(image), stored, value_range, remarks)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: more pixels than Pillow reads in such a file ({error})") from error
    except DECODER_ERRORS as error:
        raise ImageError(f"{name}: damaged image ({' '.join(str(error).split()).rstrip('.')})") from error
    for remark in remarks:
        on_remark(name, remark)
    return rgb


def _too_large(name: str, max_pixels: int) -> ImageError:
    return ImageError(
        f"{name}: more than {max_pixels:,} pixels", hint=f"raise {setting('max_pixels')} if it can be trusted"
    )


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


def _head(opened: Path | io.BytesIO) -> bytes:
    if isinstance(opened, io.BytesIO):
        head = opened.read(HEAD_BYTES)
        opened.seek(0)
        return head
    with opened.open("rb", buffering=0) as file:
        return file.read(HEAD_BYTES)


def _formats(name: str, kind: str | None) -> tuple[str, ...]:
    """Those of ``FORMATS`` that Pillow has a decoder for; that of ``kind`` is fetched from its plugin.

    Raises ImageError, which calls the image ``name``, where that plugin is not installed.
    """
    Image.init()
    if kind in _PLUGINS and kind not in Image.OPEN:
        try:
            plugin = import_module(_PLUGINS[kind])
        except ImportError:
            raise ImageError(
                f"{name}: this is {kind}, which this installation has no decoder for",
                hint="pip install 'rdm-cli[heif]'",
            ) from None
        if kind == "HEIF":
            plugin.register_heif_opener()
    return tuple(known for known in FORMATS if known in Image.OPEN)


def _unidentified(name: str, kind: str | None) -> ImageError:
    """What Pillow does not open: no image, or one of a kind that it has no reader for."""
    if kind != "TIFF":
        return ImageError(f"{name}: not an image that can be read")
    return ImageError(
        f"{name}: a TIFF of a kind that Pillow does not read",
        hint="save it as 8-bit grey or RGB, 16-bit grey or 32-bit float grey",
    )


def _num_pages(image: Image.Image) -> int:
    """How many pages or frames there are, 0 where there are several and the later ones are damaged.

    What phones keep beside a picture (its depth, its gain map; Pillow's MPO) is no page.
    """
    try:
        if image.format == "MPO" or not getattr(image, "is_animated", False):
            return 1
    except DECODER_ERRORS:
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except (*DECODER_ERRORS, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return 0


def _undecoded(file: IO[bytes], formats: tuple[str, ...]) -> ImageFile | None:
    """The image in ``file``, of which its header alone is read; None where there is none of ``formats``.

    As Pillow's own ``open``, but for its limit on pixels: that is one number for the whole process, which
    belongs to whoever uses Pillow beside rdm, and which other threads would see change.
    """
    prefix = file.read(16)
    for name in formats:
        factory, accept = Image.OPEN[name]
        accepted = accept is None or accept(prefix)
        if not accepted or isinstance(accepted, str):  # which says why not
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # not of this format after all
    return None


def _num_pixels(image: ImageFile) -> int:
    """How many pixels decoding takes: those of the image or, where it is larger, of one of a TIFF's tiles."""
    width, height = image.size
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    tile_width, tile_height = (tags.get(tag, 0) for tag in (TILEWIDTH, TILELENGTH))
    return max(width * height, int(tile_width) * int(tile_height))


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """What an image's file says of its values and Pillow's modes do not.

    ``kind`` is that of values that are no 8-bit levels, ``inverted`` where the lowest is white. Of colours of
    16 bits (``is_wide_colour``) Pillow gives the higher 8.
    """

    kind: str | None = None
    inverted: bool = False
    is_wide_colour: bool = False


_PAGE_KIND, _BITS, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 254, 258, 262, 284, 339  # tags of TIFF
_SMALL_COPY, _MIN_IS_WHITE, _APART = 1, 0, 2
_SIGNED = 2
_LEVEL_BITS = 8
_NUMBERS = {1: "uint", _SIGNED: "int", 3: "float"}

# libtiff gives numbers in the machine's byte order, and Pillow (up to 13.0) takes these for the file's.
_NATIVE = {
    "F;32F": "F;32NF", "F;32BF": "F;32NF", "I;16S": "I;16NS", "I;16BS": "I;16NS", "I;32S": "I;32NS",
    "I;32BS": "I;32NS",
}  # fmt: skip


def _stored_as(name: str, image: Image.Image) -> _Stored:
    """What the file of an opened image, not loaded yet, says of its values; raises ImageError.

    Tells Pillow the byte order that it is wrong about.
    """
    tile = image.tile[0] if isinstance(image, ImageFile) and image.tile else None
    given = () if tile is None or tile.args is None else tile.args
    raw = given if isinstance(given, str) else str(given[0]) if given else ""
    is_wide = image.mode in ("I", "F") or image.mode.startswith("I;16")
    if not isinstance(image, TiffImageFile):
        kind = "float32" if image.mode == "F" else "uint16" if is_wide else None
        return _Stored(kind=kind, is_wide_colour=not is_wide and ";16" in raw)
    tags = image.tag_v2
    if tags.get(_PAGE_KIND, 0) & _SMALL_COPY:
        raise ImageError(
            f"{name}: its first page is a small copy of another, as in a camera's raw file",
            hint="save the picture itself as PNG or TIFF",
        )
    num_bits = max(tags.get(_BITS, (1,)))
    is_wide_colour = not is_wide and num_bits > _LEVEL_BITS
    by_libtiff = tile is not None and tile.codec_name == "libtiff"
    if is_wide_colour and tags.get(_PLANES) == _APART and not by_libtiff:
        raise ImageError(
            f"{name}: its colours of {num_bits} bits lie in planes of their own, which Pillow reads wrongly",
            hint="save it with interleaved channels, or with 8 bits",
        )
    if tile is not None and by_libtiff and raw in _NATIVE:
        image.tile = [tile._replace(args=(_NATIVE[raw], *given[1:]))]
    number = tags.get(_SAMPLE_FORMAT, (1,))[0]
    if not is_wide and not (image.mode == "L" and number == _SIGNED):
        return _Stored(is_wide_colour=is_wide_colour)
    inverted = is_wide and tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE
    return _Stored(kind=f"{_NUMBERS[number]}{num_bits}", inverted=inverted)


def _opaque_rgb(
    name: str, image: Image.Image, stored: _Stored, value_range: ValueRange | None, remarks: list[str]
) -> Image.Image:
    profile = image.info.get("icc_profile")
    if stored.kind is not None:
        image = _from_wide_grey(name, image, stored, value_range, remarks)
    elif stored.is_wide_colour:
        _check_wide_colour(name, image, value_range)
    colours, alpha = _without_alpha(image)
    if profile:
        try:
            colours = as_srgb(colours, profile)
        except BadProfileError as error:
            remarks.append(f"its ICC profile {error}; it is read as sRGB")
    rgb = colours if colours.mode == "RGB" else colours.convert("RGB")
    if alpha is None:
        return rgb
    over = rgb.copy()
    over.putalpha(alpha)
    return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")


def _without_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """An image's colours, and its alpha if it has any."""
    if image.mode not in ("RGBA", "RGBa", "LA", "La", "PA") and "transparency" not in image.info:
        return image, None
    straight = image.convert("LA") if image.mode == "La" else image
    over = straight.convert("RGBA")
    is_grey = straight.mode in ("1", "L", "LA")
    return over.getchannel("R") if is_grey else over.convert("RGB"), over.getchannel("A")


def _from_wide_grey(
    name: str, image: Image.Image, stored: _Stored, value_range: ValueRange | None, remarks: list[str]
) -> Image.Image:
    """Grey of more than 8 bits, or signed, as 8-bit grey; raises ImageError where its range is not known."""
    assert stored.kind is not None
    values = np.asarray(image)
    if stored.kind in ("int8", "uint32"):
        values = values.view(stored.kind)  # Pillow takes them for uint8 and int32
    levels = grey_levels(name, values, stored.kind, value_range, inverted=stored.inverted)
    if num := num_not_finite(values):
        are = "is" if num == 1 else "are"
        remarks.append(f"{num:,} of its values {are} not finite and read as black (+inf as white)")
    if isinstance(key := image.info.get("transparency"), int):
        levels[values == key] = 255
    return Image.fromarray(levels)


def _check_wide_colour(name: str, image: Image.Image, value_range: ValueRange | None) -> None:
    """Raise ImageError for colours of 16 bits of which Pillow's 8 are too few to know what they mean."""
    if "transparency" in image.info:
        raise ImageError(
            f"{name}: one of its colours of 16 bits is transparent, and Pillow cannot tell it from others",
            hint="save it with 8 bits, or with an alpha channel",
        )
    if value_range == LEVELS_16 or image.mode not in ("RGB", "RGBA"):
        return
    if value_range is not None:
        raise ImageError(
            f"{name}: colours of 16 bits can only be read as 0 to 65,535, not in another range",
            hint="scale them to 16 bits, or save them with 8",
        )
    found = found_in(np.asarray(image.convert("RGB")))
    if not found.fits(LEVELS):
        raise ImageError(
            f"{name}: its colours of 16 bits reach {256 * found.highest + 255:,.0f} of 65,535: they may hold "
            "fewer bits",
            hint=f"scale them to 16 bits, or take them as they are with {setting('value_range')} 0,65535",
        )


def fit_square(image: Image.Image, size: int, fit: Fit = "crop") -> Image.Image:
    """Bring ``image`` to ``size`` x ``size`` pixels; one of that size already is returned untouched.

    ``crop`` cuts the centre square, ``pad`` puts the whole image on white, ``stretch`` ignores the
    proportions. Resizing is antialiased (Lanczos). Raises ValueError for another ``fit``.
    """
    if fit not in get_args(Fit):
        raise ValueError(f"there is no fit {fit!r}; known: {', '.join(get_args(Fit))}")
    if image.size == (size, size):
        return image
    lanczos = Image.Resampling.LANCZOS
    if fit == "crop":
        return ImageOps.fit(image, (size, size), method=lanczos)
    if fit == "pad":
        # not ImageOps.pad: it rounds the shorter side of a very narrow image to 0 pixels, or fails
        longest = max(image.size)
        width, height = (max(1, round(side / longest * size)) for side in image.size)
        square = Image.new(image.mode, (size, size), "white")
        corner = (round((size - width) / 2), round((size - height) / 2))
        square.paste(image.resize((width, height), lanczos), corner)
        return square
    return image.resize((size, size), lanczos)


def image_bytes(
    path: Readable,
    size: int,
    fit: Fit = "crop",
    *,
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
    on_remark: Remark = warn_of,
) -> np.ndarray:
    """``path`` as uint8 (channels, size, size): 3 are RGB, 1 is grey; see :func:`load_rgb`."""
    image = load_rgb(path, max_pixels=max_pixels, value_range=value_range, on_remark=on_remark)
    return square_bytes(image, size, fit, channels=channels)


def square_bytes(image: Image.Image, size: int, fit: Fit = "crop", *, channels: int = 3) -> np.ndarray:
    """An RGB ``image`` as uint8 (channels, size, size): 3 are RGB, 1 is grey."""
    square = fit_square(image, size, fit)
    if channels == 1:
        return np.array(square.convert("L"), dtype=np.uint8)[None]
    return np.ascontiguousarray(np.asarray(square, dtype=np.uint8).transpose(2, 0, 1))


def to_unit_range(pixels: Tensor) -> Tensor:
    """uint8 pixels to float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_pixels(x_0: Tensor, name: str = "a picture") -> Tensor:
    """Images in [-1, 1] to uint8 of the same shape; values outside are clamped.

    Raises PictureError, which calls them ``name``, for values that are not finite: they would be black.
    """
    if not bool(x_0.isfinite().all()):
        raise PictureError(
            f"{name}: holds values that are not finite, so it is not written",
            hint=f"try another {setting('precision')}",
        )
    return ((x_0.float() + 1) * 127.5).round().clamp(0, 255).byte()


def to_pil(x_0: Tensor, name: str = "a picture") -> Image.Image:
    """One image (3, H, W), or (1, H, W) if grey, in [-1, 1] as a Pillow image; see :func:`to_pixels`."""
    return pixels_to_pil(to_pixels(x_0.detach().cpu(), name))


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
