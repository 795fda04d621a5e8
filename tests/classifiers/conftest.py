"""ONNX files to be opened, and not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def write_onnx(onnx_classifier: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Write a classifier below the test's folder; see ``onnx_classifier``."""

    def write(name: str = "model.onnx", **how: Any) -> Path:
        return onnx_classifier(tmp_path / name, **how)

    return write
