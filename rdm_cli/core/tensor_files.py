"""Writing .safetensors files: whole or not at all, and with Python's own errors."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from rdm_cli.data.atomic import atomic_path


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write contiguous ``tensors`` to ``path``, atomically; raises OSError where the disk refuses.

    safetensors has an exception of its own, under which a full disk would not be known as one.
    """
    with atomic_path(path) as temporary:  # which also gives the file the umask's permissions
        try:
            save_file(dict(tensors), temporary, metadata=dict(metadata))
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            reason = re.sub(r".*I/O error: | \(os error \d+\)", "", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, reason, str(path)) from error
