"""The .safetensors files: written whole or not at all, and with Python's own errors either way."""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from rdm_cli.data.io.atomic import atomic_path
from rdm_cli.data.io.json_text import parse_object
from rdm_cli.data.io.places import Readable


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
            # "... (os error 28)" since safetensors 0.6, "Os { code: 28, ... }" before
            number = re.search(r"os error (\d+)|\bcode: (\d+)", str(error))
            code = int(number[1] or number[2]) if number else errno.EIO
            raise OSError(code, os.strerror(code) if number else str(error), str(path)) from error
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())


def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first of the named tensors that holds NaN or an infinity; None: none does."""
    return next((name for name, values in tensors if not bool(torch.isfinite(values).all())), None)


def read_tensors(source: Readable, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """The tensors called ``names`` that are there, or all; raises OSError, or ValueError for damage."""
    return read_with_metadata(source, names)[1]


def read_metadata(source: Readable) -> dict[str, str]:
    """A file's metadata, without its tensors; raises as :func:`read_tensors`."""
    return read_with_metadata(source, ())[0]


def read_with_metadata(
    source: Readable, names: Collection[str] | None = None
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata, and tensors as :func:`read_tensors`; of a file, no more than these are read."""
    if isinstance(source, Path):
        with _opened(source) as file:
            wanted = [name for name in file.keys() if names is None or name in names]
            return file.metadata() or {}, {name: file.get_tensor(name) for name in wanted}
    content = source.read_bytes()
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise ValueError(" ".join(str(error).split())) from error
    # safetensors found the header in order, and gives its metadata for paths alone
    header = parse_object(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata: dict[str, str] = header.get("__metadata__") or {}
    return metadata, {name: t for name, t in tensors.items() if names is None or name in names}


def read_names(source: Readable) -> tuple[dict[str, str], frozenset[str]]:
    """Metadata, and what the tensors are called; of a file, none is read. Raises as :func:`read_tensors`."""
    if isinstance(source, Path):
        with _opened(source) as file:
            return file.metadata() or {}, frozenset(file.keys())
    metadata, tensors = read_with_metadata(source)
    return metadata, frozenset(tensors)


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, without its values; raises as :func:`read_tensors`."""
    with _opened(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not stat.S_ISREG(path.stat().st_mode):  # whose error says better what is missing
        raise ValueError("no regular file")
    with ExitStack() as stack:
        name = path
        if not _is_utf_8(path):  # safetensors opens no such names
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="rdm-"))
            name = Path(scratch) / "link"
            name.symlink_to(path.absolute())
        try:
            with safe_open(name, framework="pt") as file:
                yield file
        except SafetensorError as error:
            raise ValueError(" ".join(str(error).split())) from error


def _is_utf_8(path: Path) -> bool:
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
