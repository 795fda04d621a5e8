"""Random numbers keyed by what they are for, never by the order in which they were asked for."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Sequence

import torch
from torch import Tensor


def as_seed(seed: object) -> int:
    """``seed`` as Python's own int, so that equal integers of NumPy, torch and Python are one seed.

    Raises ValueError for what is no integer: 1.0 too, for a seed that was computed may be 0.9999.
    """
    return _as_int(seed, "a seed")


def key_to_seed(seed: int, *key: int | str) -> int:
    """A 63-bit seed from ``seed`` and any names and numbers; the same on every machine.

    Raises ValueError where ``seed`` is no integer, or a part of ``key`` neither an integer nor text.
    """
    parts = (as_seed(seed), *(str(k) if isinstance(k, str) else _as_int(k, "a key") for k in key))
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _as_int(value: object, what: str) -> int:
    try:
        return int(operator.index(value))  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(f"{what} must be an integer, not {value!r}") from None


def keyed_generator(seed: int, *key: int | str) -> torch.Generator:
    """A CPU generator seeded by :func:`key_to_seed`."""
    return torch.Generator().manual_seed(key_to_seed(seed, *key))


def keyed_noise(seed: int, keys: Sequence[int | str], shape: Sequence[int], purpose: str) -> Tensor:
    """Standard normal noise, float32 (len(keys), *shape); row i depends on seed and key i alone."""
    noise = torch.empty(len(keys), *shape, dtype=torch.float32)
    for row, key in zip(noise, keys, strict=True):
        row.normal_(generator=keyed_generator(seed, purpose, key))
    return noise
