"""rdm train first-stage with a perceptual term in its loss; what comes of first stages: test_lrdm.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from rdm_cli.metrics import st_lpips

Rdm = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture
def train(rdm: Rdm, faces: Path, tmp_path: Path) -> Rdm:
    """``train("--steps", 2)`` trains a first stage in the folder ``run``."""

    def run(*arguments: object, run: str = "run") -> Any:
        places = ("-o", tmp_path / f"{run}-stage", "--run", tmp_path / run, "--sheet-minutes", 0)
        small = ("--preset", "small32", "--batch-size", 2, "--threads", 1, "--warmup", 0, "--decay", 0)
        return rdm("train", "first-stage", faces, *places, *small, *arguments)

    return run


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_perceptual_term_acts_is_kept_on_resuming_and_leaves_no_weights(train: Rdm, tmp_path: Path) -> None:
    try:
        metadata.version(st_lpips.PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{st_lpips.PACKAGE} is not installed")
    assert train("--steps", 2, run="plain").code == 0
    assert train("--steps", 4, "--perceptual-weight", 2, run="whole").code == 0
    assert train("--steps", 2, "--perceptual-weight", 2).code == 0
    assert train("--resume", "--steps", 4).code == 0  # not named again
    plain, whole, resumed = (losses(tmp_path / name) for name in ("plain", "whole", "run"))
    assert resumed == whole and whole[0] > plain[0] and whole[1] != plain[1]
    with (
        safe_open(tmp_path / "plain" / "checkpoint.safetensors", framework="pt") as without,
        safe_open(tmp_path / "run" / "checkpoint.safetensors", framework="pt") as with_term,
    ):
        assert set(with_term.keys()) == set(without.keys())
    again = train("--resume", "--steps", 6, "--perceptual-weight", 1)
    assert again.code == 2 and "--perceptual-weight: what is resumed" in again.err


def test_without_the_package_one_line_says_what_to_install(
    train: Rdm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(st_lpips, "PACKAGE", "no-such-package")
    refused = train("--steps", 2, "--perceptual-weight", 1)
    assert refused.code == 2 and "pip install 'rdm-cli[perceptual]'" in refused.err
    assert len(refused.err.splitlines()) == 1 and not (tmp_path / "run").exists()
