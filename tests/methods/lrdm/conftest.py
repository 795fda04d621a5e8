"""LRDM's golden tensors and the authors' files, converted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.lrdm.config import LRDM_SAMPLING
from rdm_cli.methods.lrdm.convert import OfficialLRDM, read_lrdm
from rdm_cli.methods.lrdm.model import LRDM


@pytest.fixture(scope="session")
def folder(golden: Callable[[str], Path]) -> Path:
    return golden("lrdm")


@pytest.fixture(scope="session")
def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "golden.safetensors")


@pytest.fixture(scope="session")
def official(folder: Path) -> Callable[[str], OfficialLRDM]:
    """``official(name)``: one of the tiny checkpoints with its settings."""
    return lambda name: read_lrdm([folder / f"{name}.ckpt", folder / f"{name}-project.yaml"])


@pytest.fixture(scope="session")
def raw(official: Callable[[str], OfficialLRDM]) -> Callable[..., LRDM]:
    """``raw(name)``: its model with the weights as trained, sampled as ``sampling`` says."""

    def build(name: str, sampling: SamplingSpec = LRDM_SAMPLING, *, averaged: bool = False) -> LRDM:
        read = official(name)
        model = LRDM(replace(read.config, sampling=sampling))
        model.load_state_dict(read.state)
        if not averaged:
            model.unet.load_state_dict(read.raw_unet, strict=False)
        return model.eval().requires_grad_(False)

    return build
