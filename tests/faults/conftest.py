"""Looking at what rdm leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def tree() -> Callable[..., dict[str, str]]:
    """``tree(folder)``: the digest of each file below it, hidden ones included."""

    def look(folder: Path, *, but: tuple[str, ...] = ()) -> dict[str, str]:
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in but
        }

    return look
