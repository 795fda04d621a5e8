"""rdm doctor: a page that tells the truth, and no secrets."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from rdm_cli import __version__
from rdm_cli.pipeline import installation as machine

Rdm = Callable[..., Any]


def test_the_page(rdm: Rdm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("RDM_DEVICE", "cpu")
    result = rdm("doctor")
    assert result.code == 0 and result.err == ""
    assert result.lines[0].startswith(f"rdm          {__version__}, Python 3.")
    assert f"torch {torch.__version__}" in result.out
    assert any(line.split()[:2] == ["RDM_DEVICE", "cpu"] for line in result.lines)
    assert result.lines[-1].split() == ["problem", "none"]
    assert "secret" not in result.out
    assert len(result.lines) <= 40  # one page
    if str(Path.home()) != "/":
        assert str(Path.home()) not in result.out


def test_the_same_as_json(rdm: Rdm) -> None:
    (facts,) = rdm("doctor", "--json").objects
    assert facts["problems"] == [] and facts["packages"]["torch"] == metadata.version("torch")
    cpu = facts["devices"][0]
    assert cpu["device"] == "cpu" and cpu["fp32"].startswith("works") and "needs a GPU" in cpu["fp16"]
    assert {"demo", "evaluate"} <= facts["extras"].keys()
    assert facts["threads"] == torch.get_num_threads()
    assert all(place["free_gb"] > 0 for place in facts["places"].values())


def test_of_a_bundle(tiny: Rdm, tiny_bundle: Path) -> None:
    result = tiny("doctor", "--json")
    (facts,) = result.objects
    assert result.code == 0
    assert facts["bundle_facts"]["image_size"] == 16 and facts["bundle_facts"]["needs"] == []
    assert facts["bundle_facts"]["digest"]
    page = tiny("doctor")
    assert page.code == 0 and "bundle image_size 16" in page.out


def test_of_a_bundle_that_is_not_in_order(rdm: Rdm, tmp_path: Path) -> None:
    result = rdm("doctor", "-b", tmp_path / "none")
    assert result.code == 1 and result.err == ""
    assert result.lines[-1].startswith("problem") and "no such bundle" in result.lines[-1]


def test_what_is_missing_is_a_problem(rdm: Rdm, monkeypatch: pytest.MonkeyPatch) -> None:
    known = metadata.requires("rdm-cli") or []
    wanted = [*known, "no-such-package>=1", "torch>=99", 'also-none; extra == "demo"']
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    (facts,) = (result := rdm("doctor", "--json")).objects
    assert result.code == 1
    assert facts["problems"] == [
        "no-such-package is missing: no-such-package>=1 is needed",
        f"torch {metadata.version('torch')}: torch>=99 is needed",
    ]
    assert facts["extras"]["demo"] == ["also-none"]


def test_a_precision_that_gives_wrong_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            return torch.full((2,), 2.0)
        return torch.ones(2)

    monkeypatch.setattr(machine, "_work", work)
    found = machine._device(torch.device("cpu"))
    assert found["bf16"] == "is wrong by 100 %" and found["fp32"].startswith("works")


def test_the_machine_is_told_as_torch_tells_it(rdm: Rdm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Driver and CUDA, which a report of a fault on a GPU cannot do without."""
    monkeypatch.setattr(machine.collect_env, "get_nvidia_driver_version", lambda run: "580.1")
    monkeypatch.setattr(machine.collect_env, "get_cpu_info", lambda run: "Model name:    A Chip 9\nCPU(s): 2")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    told = rdm("doctor")
    (line,) = [line for line in told.lines if line.startswith("machine ")]
    assert "CUDA 13.0, driver 580.1" in line
    assert any(line.startswith("cpu          A Chip 9, ") for line in told.lines)


def test_home_is_a_tilde() -> None:
    home = str(Path.home())
    assert machine.tilde(os.path.join(home, "x")) == ("~/x" if home != "/" else "/x")
    assert machine.tilde("/elsewhere") == "/elsewhere"
