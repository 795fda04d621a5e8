"""The .safetensors files: written whole or not at all, and with Python's own errors either way."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rdm_cli.data.atomic import atomic_path


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, durable: bool = False
) -> None:
    """Write contiguous ``tensors`` to ``path``, atomically; raises OSError where the disk refuses.

    ``durable``: on the disk itself, not only in the system's memory, before the old file goes.
    safetensors has an exception of its own, under which a full disk would not be known as one.
    """
    with atomic_path(path) as temporary:  # which also gives the file the umask's permissions
        try:
            save_file(dict(tensors), temporary, metadata=dict(metadata))
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            reason = re.sub(r".*I/O error: | \(os error \d+\)", "", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, reason, str(path)) from error
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())


def read_tensors(path: Path, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """The tensors called ``names`` that are there, or all; raises OSError, or ValueError for damage."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys() if names is None or name in names}


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, without its values; raises as :func:`read_tensors`."""
    with _opened(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}


def read_metadata(path: Path) -> dict[str, str]:
    """A file's metadata, without its tensors; raises as :func:`read_tensors`."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    path.stat()  # which says better what is missing
    if not path.is_file():
        raise ValueError("no regular file")
    with tempfile.TemporaryDirectory(prefix="rdm-") if not _is_utf_8(path) else _nothing() as scratch:
        name = path
        if scratch is not None:  # safetensors opens no other names
            name = Path(scratch) / "link"
            name.symlink_to(path.absolute())
        try:
            with safe_open(name, framework="pt") as file:
                yield file
        except SafetensorError as error:
            raise ValueError(" ".join(str(error).split())) from error


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


def _is_utf_8(path: Path) -> bool:
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
