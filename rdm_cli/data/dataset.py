"""A folder of images as a torch dataset that outlives a few bad files."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from rdm_cli.data.images.pixels import MAX_PIXELS, SUFFIXES, Fit, Remark, image_bytes, warn_of
from rdm_cli.data.images.value_range import ValueRange
from rdm_cli.data.pixel_cache import PixelCache
from rdm_cli.data.sources.folders import Item, PassedOver, class_of, find_inputs
from rdm_cli.errors import ImageError, UsageError

MIN_SEEN = 16


def warn_of_bad(path: Path, error: ImageError) -> None:
    """Warn that ``path`` is left out; the default of ``ImageFolder``."""
    warnings.warn(f"{error.message}; another image takes its place", stacklevel=2)


def _said_before(name: str, text: str) -> None:
    """For an image that is read again."""


class ImageFolder(Dataset[Tensor]):
    """Images below a folder as uint8 (channels, size, size), in sorted order of their paths.

    No file is opened before it is asked for. One that cannot be read is reported once, through
    ``on_bad(path, error)``, and the next readable one of its class, in order (round the end), takes its place
    from then on: which one depends on the files alone, so a resumed run sees the same pixels.
    ImageError is raised when more than half of the files seen so far were bad, once 16 (or all,
    of fewer) have been seen, and when none can be read.

    An image of more than ``max_pixels`` cannot be read; ``value_range`` and ``on_remark``, which is told of
    each file once, are those of :func:`~rdm_cli.data.images.pixels.load_rgb`. Decoded pixels are kept in
    ``cache``, where there is one, which worker processes share. They do not share reports: each tells of a
    bad file of its own accord.

    Pictures that rdm made are no images to learn from: ``passed_over`` counts them.

    Where ``class_names`` are given, each image is of the class whose sub-folder it lies in; else all are of
    one class.

    Raises UsageError where ``folder`` is no folder or holds no images, or an image of no known class.
    """

    def __init__(
        self,
        folder: Path,
        *,
        size: int,
        fit: Fit = "crop",
        channels: int = 3,
        on_bad: Callable[[Path, ImageError], None] = warn_of_bad,
        class_names: Sequence[str] = (),
        max_pixels: int = MAX_PIXELS,
        value_range: ValueRange | None = None,
        on_remark: Remark = warn_of,
    ) -> None:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder}: a folder of images is needed, and this is a file")
        self.folder = folder
        self.passed_over = PassedOver()
        items = find_inputs([folder], suffixes=SUFFIXES, passed_over=self.passed_over)
        self.paths = tuple(item.source for item in items)
        self.class_names = tuple(class_names)
        self._classes = [self._number(item) for item in items] if class_names else [0] * len(items)
        self.size = size
        self.fit = fit
        self.channels = channels
        self.on_bad = on_bad
        self.max_pixels = max_pixels
        self.value_range = value_range
        self.on_remark = on_remark
        self.cache: PixelCache | None = None
        self._seen: set[int] = set()
        self._bad: set[int] = set()

    @property
    def bad_paths(self) -> tuple[Path, ...]:
        """Files that could not be read so far (in this process), in order."""
        return tuple(self.paths[i] for i in sorted(self._bad))

    def _number(self, item: Item[Path]) -> int:
        name = class_of(item)
        if name not in self.class_names:
            raise UsageError(f"{item.source}: {name} is none of the classes {', '.join(self.class_names)}")
        return self.class_names.index(name)

    def classes(self, indices: Sequence[int]) -> Tensor | None:
        """The numbers of these images' classes, int64 (B,); None where there are no classes."""
        return torch.tensor([self._classes[i] for i in indices]) if self.class_names else None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Image ``index``, or its stand-in, as uint8 (channels, size, size)."""
        first = range(len(self))[index]
        alike = 0
        for offset in range(len(self)):
            i = (first + offset) % len(self)
            if self._classes[i] != self._classes[first]:
                continue
            alike += 1
            pixels = self._read(i)
            if pixels is not None:
                return torch.from_numpy(pixels.copy())
        of_class = f" of {self.class_names[self._classes[first]]}" if self.class_names else ""
        raise ImageError(f"none of the {alike} images{of_class} can be read; one is {self.paths[first]}")

    def _read(self, i: int) -> np.ndarray | None:
        if i in self._bad:
            return None
        is_first = i not in self._seen
        self._seen.add(i)
        kept = None if self.cache is None else self.cache.read(i)
        if kept is not None:
            return kept
        try:
            pixels = image_bytes(
                self.paths[i],
                self.size,
                self.fit,
                channels=self.channels,
                max_pixels=self.max_pixels,
                value_range=self.value_range,
                on_remark=self.on_remark if is_first else _said_before,
            )
        except ImageError as error:
            self._bad.add(i)
            self.on_bad(self.paths[i], error)
            self._refuse_mostly_bad(error)
            return None
        if self.cache is not None:
            self.cache.write(i, pixels)
        return pixels

    def _refuse_mostly_bad(self, latest: ImageError) -> None:
        if len(self._seen) >= min(MIN_SEEN, len(self)) and 2 * len(self._bad) > len(self._seen):
            raise ImageError(
                f"{len(self._bad)} of the {len(self._seen)} images seen cannot be read; "
                f"the latest: {latest.message}"
            ) from latest

    def digest(self) -> str:
        """What the pixels depend on: the files (path, size, time of change), and how they are read."""
        how = f"{self.size} {self.fit} {self.channels} {self.max_pixels} {self.value_range}"
        digest = hashlib.sha256(how.encode())
        for path in self.paths:
            status = path.stat() if path.exists() else None  # a dangling link has a stand-in
            known = "" if status is None else f"{status.st_size} {status.st_mtime_ns}"
            digest.update(f"\n{path.resolve()} {known}".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


class WithClasses(Dataset[tuple[Tensor, Tensor]]):
    """What ``stored`` holds of each of ``images``, with the number of its class, int64 ()."""

    def __init__(self, stored: Dataset[Tensor], images: ImageFolder) -> None:
        self.stored = stored
        self.images = images

    def __len__(self) -> int:
        return len(cast(Sized, self.stored))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Item ``index`` and its class."""
        classes = self.images.classes([index])
        assert classes is not None, "a dataset of classes has class names"
        return self.stored[index], classes[0]
