"""What fuzzing begins with, and what it once found: read, or refused as each reader refuses."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def harness() -> Any:
    spec = importlib.util.spec_from_file_location("coverage_guided", HERE / "coverage_guided.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


READERS = harness().READERS
SEEDS = [(path.parent.name, path.name) for path in sorted((HERE / "seeds").glob("*/*"))]


def test_every_reader_has_seeds() -> None:
    assert {reader for reader, _ in SEEDS} == READERS.keys()


@pytest.mark.parametrize(("reader", "name"), SEEDS)
def test_a_seed(reader: str, name: str) -> None:
    READERS[reader]((HERE / "seeds" / reader / name).read_bytes())
