"""Weights that the user names by path, since no package index holds them."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch
from torch import Tensor

from rdm_cli.errors import CheckpointError, UsageError


def read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file by name, and its SHA-256 (64 hexadecimal digits).

    Reads safetensors, and what torch saved as a dict of tensors; nothing in the file is executed. Raises
    UsageError where there is no file, CheckpointError where it holds anything else.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file of weights")
    raw = path.read_bytes()
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            stored = load(raw)
        else:
            stored = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that are not what they should be
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not a file of weights ({reason})") from error
    if not isinstance(stored, dict) or not all(isinstance(v, Tensor) for v in stored.values()):
        raise CheckpointError(
            f"{path}: holds something other than tensors by name", hint="save the network's state_dict()"
        )
    return stored, hashlib.sha256(raw).hexdigest()
