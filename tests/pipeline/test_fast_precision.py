"""Which arithmetic is fast is measured once a machine, and remembered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from rdm_cli import Codes, cli, open_pipeline
from rdm_cli.pipeline import fast_precision as module
from rdm_cli.pipeline.fast_precision import fast_precision

CPU = torch.device("cpu")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """The gains that measurements find, in turn; each is taken once."""
    gains = [1.9]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "gain_of_bf16", lambda: gains.pop())
    return gains


def kept(folder: Path) -> Path:
    return folder / "rdm" / "fast-precision.json"


def test_measured_once_and_remembered(measured: list[float], tmp_path: Path) -> None:
    assert [fast_precision(CPU) for _ in range(3)] == ["bf16"] * 3 and not measured
    (machine,) = json.loads(kept(tmp_path).read_text())
    assert torch.__version__ in machine
    kept(tmp_path).write_text(json.dumps({"another machine": "bf16"}))
    measured.append(1.1)
    assert fast_precision(CPU) == fast_precision(CPU) == "fp32"  # hardly faster is no reason
    assert json.loads(kept(tmp_path).read_text()).keys() == {"another machine", machine}


@pytest.mark.parametrize("text", ["", "[]", "no json", '{"a": 1}'])
def test_a_damaged_cache_is_measured_again(measured: list[float], tmp_path: Path, text: str) -> None:
    kept(tmp_path).parent.mkdir()
    kept(tmp_path).write_text(text)
    assert fast_precision(CPU) == "bf16" and not measured


def test_a_cache_that_cannot_be_written_is_no_fault(measured: list[float], tmp_path: Path) -> None:
    (tmp_path / "rdm").write_text("a file where the folder would be")
    measured.append(1.9)
    assert fast_precision(CPU) == fast_precision(CPU) == "bf16" and not measured


def test_the_measurement_finds_a_gain() -> None:
    assert 0.01 < module.gain_of_bf16() < 100


def test_a_pipeline_and_a_command_take_what_is_faster(
    measured: list[float], tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert open_pipeline(tiny_bundle, device="cpu", precision="auto").precision == "bf16"
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    words = ["encode", str(tmp_path / "a.png"), "--bundle", str(tiny_bundle), "--device", "cpu"]
    assert cli.main([*words, "--precision", "auto"]) == 0
    assert Codes.load(tmp_path / "a.safetensors").infos[0].precision == "bf16"  # what was used
