"""LRDMs side by side by lambda: measured once each, and nothing but LRDMs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lambda_sweep
import numpy as np
import pytest
import torch
from evidence.claims import CLAIMS, decided
from evidence.contenders import LRDM
from evidence.findings import SWEEP, Findings
from evidence.store import Store
from PIL import Image

from rdm_cli.bundles.writing import save_bundle
from rdm_cli.errors import UsageError
from rdm_cli.methods.lrdm.method import METHOD

SIZES = {"num": 2, "num_samples": 10, "steps": 2}


def save_lrdm(folder: Path, weight: float) -> None:
    config = METHOD.presets["small32"].config
    config = replace(config, representation=replace(config.representation, kl_weight=weight))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = METHOD.model(config)
    save_bundle(folder, METHOD, model, card="# lrdm\n", dtype=torch.float16)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures of noise."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(10):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.mark.long
def test_two_lambdas_are_measured_once(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    findings_of: Callable[..., Findings],
) -> None:
    for name, weight in (("weak", 1e-5), ("strong", 1e-3)):
        save_lrdm(tmp_path / name, weight)
    bundles = [str(tmp_path / name) for name in ("weak", "strong")]
    lambda_sweep.sweep(bundles, images, tmp_path / "out", **SIZES)
    told = capsys.readouterr().out
    assert "| lambda | x_T | T | prior | figure | LRDM |" in told and "1e-05" in told and "0.001" in told
    entries = Store(folder=tmp_path / "out").entries(SWEEP)
    assert list(entries) == ["1e-05", "0.001"]
    # the claim's rule finds what it needs in them
    sweep = tuple(figure for entry in entries.values() for figure in entry.figures)
    (claim,) = (c for c in CLAIMS if c.number == "8b")
    assert decided(claim, findings_of({}, sweep=sweep), LRDM).holds is not None

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr(lambda_sweep, "measured", never)
    lambda_sweep.sweep(bundles, images, tmp_path / "out", **SIZES)
    with pytest.raises(AssertionError, match="measured again"):
        lambda_sweep.sweep(bundles, images, tmp_path / "out", **{**SIZES, "num": 3})


def test_what_is_no_sweep_is_refused(images: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tiny: has no lambda"):
        lambda_sweep.sweep([str(tiny_bundle)], images, tmp_path, **SIZES)
    for name in ("one", "other"):
        save_lrdm(tmp_path / name, 1e-4)
    with pytest.raises(UsageError, match="two bundles have one lambda: one 0.0001, other 0.0001"):
        lambda_sweep.sweep([str(tmp_path / n) for n in ("one", "other")], images, tmp_path, **SIZES)
