"""Starting rdm by the dozen, and looking at what it leaves."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SERVER = Path(__file__).with_name("rdm_server.py")
PROJECT = SERVER.parent.parent.parent


class Rdms:
    """Forks of a process that has imported everything."""

    def __init__(self, log: Path) -> None:
        self.log = log
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT), "HF_HUB_OFFLINE": "1"}
        pipe = subprocess.PIPE
        self.server = subprocess.Popen(
            [sys.executable, str(SERVER)], stdin=pipe, stdout=pipe, text=True, env=environment
        )
        assert self._answer() == "ready"

    def _answer(self) -> Any:
        assert self.server.stdout is not None
        return json.loads(self.server.stdout.readline())

    def _ask(self, **request: Any) -> Any:
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return self._answer()

    def start(
        self,
        *argv: object,
        limit: int | None = None,
        log: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> int:
        """Start one, whose files have at most ``limit`` bytes; returns its pid."""
        words = [str(word) for word in argv]
        pid: int = self._ask(argv=words, log=str(log or self.log), limit=limit, environment=environment)
        return pid

    def wait(self, pid: int, seconds: float = 600) -> int:
        """Its exit code; negative for a signal. One that takes longer than ``seconds`` is killed."""
        code: int = self._ask(wait=pid, seconds=seconds)
        return code

    def run(self, *argv: object, limit: int | None = None) -> int:
        """Start one and wait for it."""
        return self.wait(self.start(*argv, limit=limit))

    @property
    def said(self) -> str:
        """What the last one printed."""
        return self.log.read_text()


@pytest.fixture(scope="module")
def rdms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rdms]:
    """Runs rdm in processes of its own, quickly."""
    started = Rdms(tmp_path_factory.mktemp("server") / "log")
    yield started
    assert started.server.stdin is not None
    started.server.stdin.close()
    started.server.wait()


@pytest.fixture
def tree() -> Callable[..., dict[str, str]]:
    """``tree(folder)``: the digest of each file below it, hidden ones included."""

    def look(folder: Path, *, but: tuple[str, ...] = ()) -> dict[str, str]:
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in but
        }

    return look
