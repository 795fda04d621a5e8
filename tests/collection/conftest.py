"""Tables of made-up codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MakeTable = Callable[..., Path]


@pytest.fixture
def make_table(tmp_path: Path) -> MakeTable:
    """``make_table(z, names=..., bundle_digest=..., other columns)`` writes a table, and returns its path."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")

    def make(
        z: np.ndarray,
        names: Sequence[str] | None = None,
        path: str = "z.parquet",
        bundle_digest: str = "ab" * 32,
        **columns: Any,
    ) -> Path:
        names = [f"{i:06d}" for i in range(len(z))] if names is None else list(names)
        flat = pa.array(np.ascontiguousarray(z, dtype=np.float32).ravel())
        table = pa.table(
            {
                "name": names,
                "path": [f"codes/{name}.safetensors" for name in names],
                "z": pa.FixedSizeListArray.from_arrays(flat, z.shape[1]),
                "bundle": ["made-up"] * len(z),
                "bundle_digest": [bundle_digest] * len(z),
                **columns,
            }
        )
        pq.write_table(table, tmp_path / path)
        return tmp_path / path

    return make
