"""Images in every form that Python code has them in, and pictures in every form that it wants them in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rdm_cli.data.images.pixels import (
    Fit,
    Remark,
    load_rgb,
    opened_rgb,
    square_bytes,
    to_pil,
    to_pixels,
    to_unit_range,
)
from rdm_cli.data.images.value_range import ValueRange
from rdm_cli.data.io.places import Readable, digest_of, fetched
from rdm_cli.data.sources.folders import PassedOver, find_inputs

LARGEST_PIXEL = 2.0

Images: TypeAlias = (
    "str | os.PathLike[str] | Readable | Image.Image | np.ndarray | Tensor | LoadedImage | Iterable[Images]"
)
"""A path of an image or of a folder of images; a PIL image; a uint8 array (H, W), (H, W, 3) or (N, H, W, 3);
a float tensor (3, H, W) or (N, 3, H, W) in [-1, 1]; or several of all these."""

Output = Literal["pt", "pil", "np"]
"""Pictures as a tensor in [-1, 1], as a list of PIL images, or as a uint8 array (N, H, W, 3)."""

Pictures: TypeAlias = "Tensor | list[Image.Image] | np.ndarray"
"""What an :data:`Output` asks for."""


@dataclass(frozen=True, kw_only=True)
class LoadedImage:
    """An image that was read, ``x_0`` (C, H, W) in [-1, 1]; what it is called, None: nothing.

    ``record`` is what its code records of it: fields of a :class:`~rdm_cli.codes.code.CodeInfo`.
    """

    x_0: Tensor
    name: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ImageReader:
    """How images become (C, H, W) = ``shape``; the rest is as in :func:`~rdm_cli.pipeline.open_pipeline`.

    ``given`` says what a code records of an image because of where it lies; None: in no file.
    """

    shape: tuple[int, ...]
    given: Callable[[Path | None], Mapping[str, Any]]
    fit: Fit
    max_pixels: int
    value_range: ValueRange | None
    on_remark: Remark

    def read(self, images: Images) -> list[LoadedImage]:
        """All of ``images``, in order; raises ImageError, UsageError for an empty folder, ValueError."""
        found = list(self._read(images, "the image"))
        if not found:
            raise ValueError("no image is named")
        return found

    def _read(self, images: Images, called: str) -> Iterator[LoadedImage]:
        if isinstance(images, Tensor):
            yield from (LoadedImage(x_0=x_0, record=self.given(None)) for x_0 in self._checked(images))
        elif isinstance(images, LoadedImage):
            yield images
        elif isinstance(images, np.ndarray):
            yield from (self._of_pil(image, called) for image in _from_array(images))
        elif isinstance(images, Image.Image):
            yield self._of_pil(images, called)
        elif isinstance(images, str | os.PathLike):
            yield from self._of_path(Path(images))
        elif hasattr(images, "read_bytes"):
            yield self._of_file(fetched(cast(Readable, images)))
        elif isinstance(images, Iterable) and not isinstance(images, bytes | dict):
            for i, one in enumerate(images):
                yield from self._read(one, f"image {i}")
        else:
            raise ValueError(
                "an image is a path, a PIL image, a uint8 array or a float tensor, "
                f"and no {type(images).__name__}"
            )

    def _of_path(self, path: Path) -> Iterator[LoadedImage]:
        if not path.is_dir():
            yield self._of_file(path, path.with_suffix("").name)
            return
        passed_over = PassedOver()
        for item in find_inputs([path], passed_over=passed_over):
            yield self._of_file(item.source, item.relative.with_suffix("").as_posix())
        if passed_over:
            self.on_remark(str(path), str(passed_over))

    def _of_file(self, source: Readable, name: str | None = None) -> LoadedImage:
        rgb = load_rgb(source, **self._how)
        record = {
            "source": source.name,
            "source_digest": digest_of(source),
            "source_size": rgb.size,
            "fit": self.fit,
            "value_range": self.value_range,
            **self.given(Path(str(source))),
        }
        return LoadedImage(x_0=self._squared(rgb), name=name or source.stem, record=record)

    def _of_pil(self, image: Image.Image, called: str) -> LoadedImage:
        x_0 = self._squared(opened_rgb(image, called, **self._how))
        return LoadedImage(x_0=x_0, record={"fit": self.fit, **self.given(None)})

    @property
    def _how(self) -> dict[str, Any]:
        return {"max_pixels": self.max_pixels, "value_range": self.value_range, "on_remark": self.on_remark}

    def _squared(self, rgb: Image.Image) -> Tensor:
        channels, size, _ = self.shape
        return to_unit_range(torch.from_numpy(square_bytes(rgb, size, self.fit, channels=channels)))

    def _checked(self, x_0: Tensor) -> Tensor:
        """``x_0`` as (N, *shape) in float32; raises ValueError where it is not that, in [-1, 1].

        What a network decodes may lie a little outside; 0..255, or no number at all, does not pass for it.
        """
        found = tuple(x_0.shape)
        x_0 = x_0[None] if x_0.ndim == 3 else x_0
        if tuple(x_0.shape[1:]) != tuple(self.shape) or not len(x_0):
            shape = ", ".join(map(str, self.shape))
            raise ValueError(f"x_0 must be a tensor (N, {shape}) or ({shape}), not {found}")
        if not x_0.is_floating_point():
            raise ValueError(f"x_0 must be of floats in [-1, 1], not {x_0.dtype}: pixels / 127.5 - 1")
        x_0 = x_0.detach().to("cpu", torch.float32)
        largest = float(x_0.abs().max())
        if not largest <= LARGEST_PIXEL:  # nan is not either
            raise ValueError(f"x_0 must lie in [-1, 1], and reaches {largest:g}: pixels / 127.5 - 1")
        return x_0


def _from_array(pixels: np.ndarray) -> list[Image.Image]:
    """uint8 (H, W), (H, W, 1, 3 or 4) or, of several, (N, H, W, 1, 3 or 4) as PIL images."""
    is_one = pixels.ndim == 2 or pixels.ndim == 3
    several = pixels[None] if is_one else pixels
    has_channels = several.ndim == 4 and several.shape[3] in (1, 3, 4)
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or has_channels) or 0 in pixels.shape:
        raise ValueError(
            "an array of an image is uint8 (H, W, 3), (H, W) or (N, H, W, 3), "
            f"and not {pixels.dtype} {pixels.shape}"
        )
    if has_channels and several.shape[3] == 1:
        several = several[..., 0]
    return [Image.fromarray(np.ascontiguousarray(one)) for one in several]


def checked_output(output: str | None) -> None:
    """Raise ValueError where ``output`` is no :data:`Output`; None is none, too."""
    if output is not None and output not in get_args(Output):
        raise ValueError(f"there is no output {output!r}; known: {', '.join(get_args(Output))}")


def as_output(x_0: Tensor, output: Output) -> Pictures:
    """Pictures ``x_0`` (N, C, H, W) in [-1, 1] as ``output`` has them."""
    if output == "pt":
        return x_0
    if output == "pil":
        return [to_pil(one) for one in x_0]
    return to_pixels(x_0).permute(0, 2, 3, 1).contiguous().numpy()
