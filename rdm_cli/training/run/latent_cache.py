"""A first stage's latents of a whole folder, on disk: computed once, read by every run that needs them.

One ``.npy`` file a data set, named by a digest of the images and the first stage, float16
(N, V, P, c, h, w): V is 2 where mirrored images are wanted too; P is 2, mean and standard deviation, where
the first stage has a distribution. Latents are as the first stage gives them, not scaled.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from rdm_cli.data.dataset import ImageFolder
from rdm_cli.data.images.pixels import to_unit_range
from rdm_cli.data.io.atomic import atomic_path
from rdm_cli.errors import CheckpointError, PictureError
from rdm_cli.models.first_stage import to_moments

NUM_AT_ONCE = 32
DIGEST_LENGTH = 16
REPORT_SECONDS = 30.0


class LatentSet(Dataset[Tensor]):
    """The file's rows, as float16 (V, P, c, h, w); opened where it is read, so workers share the pages."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: np.ndarray | None = None
        try:
            self._num = len(np.load(path, mmap_mode="r"))
        except (ValueError, OSError, EOFError) as error:
            raise CheckpointError(
                f"{path}: not readable latents ({error})", hint="remove the file: they are computed again"
            ) from error

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, index: int) -> Tensor:
        if self._rows is None:
            self._rows = np.load(self.path, mmap_mode="r")
        return torch.from_numpy(np.array(self._rows[index]))

    def __getstate__(self) -> dict[str, Any]:
        """Without the mapped file: a worker maps it itself."""
        return {**self.__dict__, "_rows": None}


def latents_digest(images: ImageFolder, network: Any, *, flip: bool) -> str:
    """What the latents depend on: the files (name, size, time of change), how they are read, the network."""
    digest = hashlib.sha256(f"2 {images.digest()} {flip}".encode())
    digest.update(repr(images.class_names).encode())  # an unreadable image's stand-in is of its class
    settings = {name: value for name, value in network.config.items() if not name.startswith("_")}
    digest.update(json.dumps([type(network).__name__, settings], sort_keys=True, default=str).encode())
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:DIGEST_LENGTH]


def cached_latents(
    folder: Path,
    images: ImageFolder,
    network: Any,
    *,
    flip: bool,
    device: torch.device,
    note: Callable[[str], None],
) -> LatentSet:
    """The latents of ``images``, from the file in ``folder`` or, where there is none yet, computed into one.

    The file appears whole or not at all.
    """
    path = folder / f"latents-{latents_digest(images, network, flip=flip)}.npy"
    if path.exists():
        note(f"{path}: the latents are there")
        return LatentSet(path)
    note(f"{path}: computing the latents of {len(images):,} images, once")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        write_latents(file, images, network, flip=flip, device=device, note=note)
    return LatentSet(path)


def write_latents(
    file: IO[bytes],
    images: ImageFolder,
    network: Any,
    *,
    flip: bool,
    device: torch.device,
    note: Callable[[str], None],
) -> None:
    """Write the latents of ``images`` to ``file``, telling now and then how far it has come.

    They are written, not mapped: a full disk is then an OSError, and no signal that ends the process.
    """
    first = _moments(images, range(1), network, flip=flip, device=device)
    shape = (len(images), *first.shape[1:])
    header = {"descr": np.dtype(np.float16).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    told = time.monotonic()
    for start in range(0, len(images), NUM_AT_ONCE):
        chosen = range(start, min(start + NUM_AT_ONCE, len(images)))
        file.write(_moments(images, chosen, network, flip=flip, device=device).tobytes())
        if time.monotonic() - told >= REPORT_SECONDS:
            told = time.monotonic()
            note(f"latents of {chosen.stop:,} of {len(images):,} images")


@torch.no_grad()
def _moments(
    images: ImageFolder, chosen: range, network: nn.Module, *, flip: bool, device: torch.device
) -> np.ndarray:
    x_0 = to_unit_range(torch.stack([images[i] for i in chosen])).to(device)
    variants = []
    for variant in (x_0, x_0.flip(3)) if flip else (x_0,):
        mean, std = to_moments(network, variant)
        variants.append(torch.stack([mean] if std is None else [mean, std], dim=1))
    moments: np.ndarray = torch.stack(variants, dim=1).half().cpu().numpy()
    finite = np.isfinite(moments).all(axis=tuple(range(1, moments.ndim)))
    if not finite.all():
        path = images.paths[chosen[int(np.argmin(finite))]]
        raise PictureError(f"{path}: its latents hold values that are not finite, so they are not kept")
    return moments
