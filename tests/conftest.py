"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """The folder of golden tensors of one method, as ``golden("diffae")``.

    ``RDM_GOLDEN`` names the folder of all methods; where it is set, a missing folder is a failure.
    """

    def folder(name: str) -> Path:
        given = os.environ.get("RDM_GOLDEN")
        path = (Path(given) if given else PROJECT.parent / "shared" / "golden") / name
        if not path.is_dir():
            if given:
                pytest.fail(f"RDM_GOLDEN is set and {path} is no folder")
            pytest.skip(f"golden tensors: {path} is no folder; set RDM_GOLDEN to where they are")
        return path

    return folder
