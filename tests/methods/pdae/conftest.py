"""PDAE's golden tensors and the authors' files, converted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from rdm_cli.methods.pdae.convert import OfficialPDAE, read_pdae
from rdm_cli.methods.pdae.model import PDAE

FILES = (
    "latents.pt", "latent.yml", "classifier.pt", "representation.yml", "latent.pt", "pretrained_dpm.yml",
    "representation.pt", "pretrained_dpm.pt",
)  # fmt: skip


@pytest.fixture(scope="session")
def folder(golden: Callable[[str], Path]) -> Path:
    return golden("pdae")


@pytest.fixture(scope="session")
def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "golden.safetensors")


@pytest.fixture(scope="session")
def files(folder: Path) -> list[Path]:
    return [folder / name for name in FILES]


@pytest.fixture(scope="session")
def official(files: list[Path]) -> OfficialPDAE:
    return read_pdae(files)


@pytest.fixture(scope="session")
def pdae(official: OfficialPDAE) -> PDAE:
    model = PDAE(official.config)
    model.load_state_dict(official.state)
    return model.eval().requires_grad_(False)
