"""An audit hook that watches the interpreter while a hostile file is converted."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rdm_cli import cli

PATIENCE_SECONDS = 20
MEMORY_KB = 400_000
WRITES = {
    "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "subprocess.Popen",
    "pty.spawn",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link", "os.symlink",
    "os.truncate", "shutil.rmtree", "shutil.move", "shutil.copyfile", "socket.connect", "socket.bind",
    "ctypes.dlopen", "webbrowser.open", "tempfile.mkstemp", "tempfile.mkdtemp", "pickle.find_class",
}  # fmt: skip
_seen: list[tuple[str, Any]] = []
_watching = [False, False]  # whether a hook is in place, for good; whether it listens


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching[1]:
        return
    for_writing = event == "open" and (
        bool(set(str(arguments[1])) & set("wax+"))
        or bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    )
    if event in WRITES or for_writing:
        _seen.append((event, arguments))


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """What the interpreter did to the world meanwhile."""
    import diffusers  # noqa: F401  (which makes folders and sockets of its own)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    if not _watching[0]:
        sys.addaudithook(_watch)
        _watching[0] = True
    _seen.clear()
    yield _seen
    _watching[1] = False


@pytest.fixture
def gets_nowhere(
    tmp_path: Path, audited: list[tuple[str, Any]], capsys: pytest.CaptureFixture[str]
) -> Callable[..., None]:
    """``gets_nowhere(path, methods)``: converting ``path`` fails in one line and does nothing."""

    def check(path: Path, methods: Sequence[str]) -> None:
        before = sorted(tmp_path.rglob("*"))
        memory, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        for method in methods:
            _watching[1] = True
            code = cli.main(["bundles", "convert", method, str(path), "-o", str(tmp_path / "out")])
            _watching[1] = False
            told = capsys.readouterr()
            assert code == 1 and told.out == ""
            (line,) = told.err.splitlines()
            assert line.startswith("rdm: ") and str(path) in line
        assert not audited
        assert sorted(tmp_path.rglob("*")) == before
        assert time.monotonic() - begun < PATIENCE_SECONDS
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MEMORY_KB

    return check
