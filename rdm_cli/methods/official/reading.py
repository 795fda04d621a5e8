"""Reads the papers' own checkpoints, which are pickles, without running what a pickle may ask for.

Trainers store their own classes (Lightning keys its callbacks by class), which torch's ``weights_only``
reader refuses; all files are read by :mod:`rdm_cli.methods.official.restricted_pickle`, in whichever of
torch's formats they are. Programs and tar archives, for which torch has readers of their own, are refused
before torch sees them.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from rdm_cli.errors import CheckpointError
from rdm_cli.methods.official.restricted_pickle import is_torch_stream, restricted_load, restricted_torch_load

MAX_INFLATION = 10  # weights hardly compress; an archive of zeros does, a thousandfold


def load_official(path: Path | str) -> Mapping[str, Any]:
    """Read a checkpoint of torch (zip or the older stream) or a plain pickle, onto the CPU.

    Returns the mapping that it holds. Raises CheckpointError, naming the file, where it is missing,
    damaged, not a mapping, or asks for more than tensors and plain containers.
    """
    path = Path(path)
    try:
        value = _load(path)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: the file {error.message}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle may raise nearly anything
        reason = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"{path}: not a checkpoint that can be read ({type(error).__name__}: {reason})",
            hint="download it again if it should be one",
        ) from error
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{path}: the file holds a {type(value).__name__}, not a checkpoint's mapping")
    return value


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        raise CheckpointError("is empty")
    is_zip = head == b"PK\x03\x04"
    mmap = is_zip and _is_stored_zip(path)
    if not is_zip and _is_tar(path):
        raise CheckpointError("is a tar archive, a format torch gave up in 2017")
    if not is_zip:
        with path.open("rb") as file:
            if not is_torch_stream(file):
                return restricted_load(file)
    return restricted_torch_load(path, mmap=mmap)


def _is_stored_zip(path: Path) -> bool:
    """Whether the archive's members lie in it uncompressed, so that they can be mapped.

    Raises CheckpointError for programs, and for archives that unpack to much more than they are.
    """
    if not zipfile.is_zipfile(path):
        raise CheckpointError("is cut short: it begins as an archive and does not end as one")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    _refuse_programs(member.filename for member in members)
    _refuse_programs(torch._C.PyTorchFileReader(str(path)).get_all_records())  # which reads names its own way
    if sum(member.file_size for member in members) > MAX_INFLATION * path.stat().st_size:
        raise CheckpointError("unpacks to many times its size")
    return all(member.compress_type == zipfile.ZIP_STORED for member in members)


def _refuse_programs(names: Iterable[str]) -> None:
    # torch takes an archive with such a member for a program, and would run it
    if any(name.lower().rpartition("/")[2].startswith("constants.pkl") for name in names):
        raise CheckpointError("is a TorchScript program, not a checkpoint")


def _is_tar(path: Path) -> bool:
    """Whether torch would take the file for a tar archive, which it would unpack to the disk."""
    try:
        with tarfile.open(path, "r:"):
            return True
    except tarfile.TarError:
        return False
