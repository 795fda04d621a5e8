"""Running rdm within the test's process, through its real entry point."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rdm_cli import cli


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        """stdout of a command with --json."""
        return [json.loads(line) for line in self.lines]


Rdm = Callable[..., Result]


@pytest.fixture
def rdm(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Rdm:
    """``rdm("encode", folder, stdin=b"")`` runs a command; an exception that escapes fails the test."""

    def run(*arguments: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsysbinary.readouterr()
        code = cli.main([str(a) for a in arguments])
        captured = capsysbinary.readouterr()
        assert b"Traceback" not in captured.err
        return Result(code, captured.out, captured.err.decode())

    return run


@pytest.fixture
def tiny(rdm: Rdm, tiny_bundle: Path) -> Rdm:
    """Like ``rdm``, with the tiny bundle."""

    def run(verb: str, *arguments: object, stdin: bytes = b"") -> Result:
        return rdm(verb, *arguments, "--bundle", tiny_bundle, stdin=stdin)

    return run


@pytest.fixture
def short_sheets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training sheets of three images in two steps each."""
    monkeypatch.setattr("rdm_cli.training.run.sheets.NUM_IMAGES", 3)
    monkeypatch.setattr("rdm_cli.training.run.sheets.NUM_STEPS", 2)


@pytest.fixture
def short_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judges of edits that learn for twenty steps."""
    monkeypatch.setattr("rdm_cli.training.pixel_judge.FEWEST_STEPS", 20)


@pytest.fixture(scope="session")
def demo_folder(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``rdm demo`` makes of the tiny bundle, for tests that only read it."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rdm_cli.pipeline.editing.NUM_ROUNDS", 1)
        assert cli.main(["demo", "-o", str(folder), "--bundle", str(tiny_bundle), "-q"]) == 0
    return folder


@pytest.fixture
def spawn() -> Callable[..., subprocess.Popen[bytes]]:
    """Start rdm as a process of its own."""

    def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "rdm_cli", *map(str, arguments)]
        environment = os.environ | {"COLUMNS": "80"} | options.pop("env", {})
        usual = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            # a shell's background job ignores Ctrl-C, and would hand that on
            "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        }
        return subprocess.Popen(command, env=environment, **usual | options)

    return start


@pytest.fixture
def told(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle with a prior that can be told of hats and of glasses, not of smiles."""
    import torch

    from rdm_cli.bundles.bundle import open_bundle
    from rdm_cli.bundles.writing import add_prior
    from rdm_cli.models.residual_mlp import ResidualMLPConfig
    from rdm_cli.priors.latent_ddim import LatentDDIM
    from rdm_cli.training.run.on_codes import prior_config

    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "told"))
    network = ResidualMLPConfig(z_width=8, hidden_width=16, num_layers=2, embedding_width=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = LatentDDIM(prior_config(network, ("hat", "glasses")))
        for weight in prior.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    add_prior(open_bundle(folder), prior)
    return folder
