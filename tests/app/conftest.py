"""A studio over the tiny bundle, its server, and typing the commands that the page gives."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rdm_cli import cli
from rdm_cli.app.desk import Desk
from rdm_cli.app.server import PageServer
from rdm_cli.app.studio import Studio
from rdm_cli.collection.rows import open_collection
from rdm_cli.pipeline.pipeline import open_pipeline

TOKEN = "the-token-of-a-test"


@pytest.fixture(scope="session")
def studio(tiny_bundle: Path) -> Studio:
    pipeline = open_pipeline(tiny_bundle, on_remark=lambda *_: None)
    return Studio(pipeline=pipeline, options=("-b", str(tiny_bundle)))


@pytest.fixture
def served(studio: Studio, faces: Path, codes: Path) -> Iterator[PageServer]:
    """A server on a free port, whose desk has the folder of faces, and the codes to explore."""
    desk = Desk(studio=studio, files=sorted(faces.rglob("*.png")), collection=open_collection(codes))
    problems: list[str] = []
    with PageServer("127.0.0.1", 0, desk, TOKEN, problems.append) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()
    assert problems == []


@pytest.fixture
def codes(studio: Studio, tmp_path: Path) -> Path:
    """A folder of twelve drawn codes, one of which has a name that looks like HTML."""
    drawn = studio.pipeline.sample(12, seed=0)
    names = ["<img src=x onerror=alert(1)>", *(f"{i:02d}" for i in range(1, 12))]
    (tmp_path / "codes").mkdir()
    drawn.save([tmp_path / "codes" / f"{name}.safetensors" for name in names])
    return tmp_path / "codes"


@pytest.fixture
def type_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Runs commands, a line each, as one would in a shell in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)

    def run(commands: str) -> None:
        assert commands
        for line in commands.splitlines():
            program, *words = shlex.split(line)
            assert program == "rdm"
            # an untrained bundle's edits need not hold: that is exit code 3, and the picture is there
            assert cli.main([*words, "-q"]) in (0, 3), line

    return run
