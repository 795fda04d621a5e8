"""Running rdm within the test's process, through its real entry point."""

from __future__ import annotations

import io
import json
import os
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
