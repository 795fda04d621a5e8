"""A folder of images as a torch dataset that outlives a few bad files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from rdm_cli.data.folders import Item, class_of, find_inputs
from rdm_cli.data.images import MAX_PIXELS, SUFFIXES, Fit, image_bytes
from rdm_cli.errors import ImageError, UsageError

MIN_SEEN = 16


def warn_of_bad(path: Path, error: ImageError) -> None:
    """Warn that ``path`` is left out; the default of ``ImageFolder``."""
    warnings.warn(f"{error.message}; another image takes its place", stacklevel=2)


class ImageFolder(Dataset[Tensor]):
    """Images below a folder as uint8 (channels, size, size), in sorted order of their paths.

    No file is opened before it is asked for. One that cannot be read is reported once, through
    ``on_bad(path, error)``, and the next readable one of its class, in order (round the end), takes its place
    from then on: which one depends on the files alone, so a resumed run sees the same pixels.
    ImageError is raised when more than half of the files seen so far were bad, once 16 (or all,
    of fewer) have been seen, and when none can be read.

    An image of more than ``max_pixels`` cannot be read. Decoded pixels are kept until ``cache_bytes`` are
    full. Worker processes share neither pixels nor reports: each has an equal part of the budget, and
    reports a bad file of its own accord.

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
        cache_bytes: int = 4 * 2**30,
        on_bad: Callable[[Path, ImageError], None] = warn_of_bad,
        class_names: Sequence[str] = (),
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder}: a folder of images is needed, and this is a file")
        self.folder = folder
        items = find_inputs([folder], suffixes=SUFFIXES)
        self.paths = tuple(item.source for item in items)
        self.class_names = tuple(class_names)
        self._classes = [self._number(item) for item in items] if class_names else [0] * len(items)
        self.size = size
        self.fit = fit
        self.channels = channels
        self.cache_bytes = cache_bytes
        self.on_bad = on_bad
        self.max_pixels = max_pixels
        self._pixels: dict[int, np.ndarray] = {}
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
        if i in self._pixels:
            return self._pixels[i]
        self._seen.add(i)
        try:
            pixels = image_bytes(
                self.paths[i], self.size, self.fit, channels=self.channels, max_pixels=self.max_pixels
            )
        except ImageError as error:
            self._bad.add(i)
            self.on_bad(self.paths[i], error)
            self._refuse_mostly_bad(error)
            return None
        if (len(self._pixels) + 1) * pixels.nbytes <= self._cache_budget():
            self._pixels[i] = pixels
        return pixels

    def _refuse_mostly_bad(self, latest: ImageError) -> None:
        if len(self._seen) >= min(MIN_SEEN, len(self)) and 2 * len(self._bad) > len(self._seen):
            raise ImageError(
                f"{len(self._bad)} of the {len(self._seen)} images seen cannot be read; "
                f"the latest: {latest.message}"
            ) from latest

    def _cache_budget(self) -> int:
        worker = get_worker_info()
        return self.cache_bytes if worker is None else self.cache_bytes // worker.num_workers

    def __getstate__(self) -> dict[str, Any]:
        """Without the pixels: a worker is sent the list of files, not gigabytes."""
        return {**self.__dict__, "_pixels": {}}


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
