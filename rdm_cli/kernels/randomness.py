"""Random numbers keyed by what they are for, never by the order in which they were asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def key_to_seed(seed: int, *key: int | str) -> int:
    """A 63-bit seed from ``seed`` and any names and numbers; the same on every machine."""
    digest = hashlib.blake2b(repr((seed, *key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def keyed_generator(seed: int, *key: int | str) -> torch.Generator:
    """A CPU generator seeded by :func:`key_to_seed`."""
    return torch.Generator().manual_seed(key_to_seed(seed, *key))


def keyed_noise(seed: int, keys: Sequence[int | str], shape: Sequence[int], purpose: str) -> Tensor:
    """Standard normal noise, float32 (len(keys), *shape); row i depends on seed and key i alone."""
    return torch.stack(
        [torch.randn(tuple(shape), generator=keyed_generator(seed, purpose, key)) for key in keys]
    )
