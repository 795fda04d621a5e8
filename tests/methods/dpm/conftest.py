"""The golden tensors of a plain DPM: the frozen half of PDAE's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor


@pytest.fixture(scope="session")
def folder(golden: Callable[[str], Path]) -> Path:
    return golden("pdae")


@pytest.fixture(scope="session")
def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "golden.safetensors")
