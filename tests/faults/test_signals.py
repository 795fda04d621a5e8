"""SIGTERM is Ctrl-C: files are whole, a training saves, nothing is left over; and clocks that jump."""

from __future__ import annotations

import ast
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from rdm_cli.codes.code import Codes
from rdm_cli.training.checkpoint import load_checkpoint

Rdms = Any
PATIENCE = 300
PACKAGE = Path(__file__).resolve().parents[2] / "rdm_cli"


def wait_for(path: Path) -> None:
    limit = time.monotonic() + PATIENCE
    while not path.exists() and time.monotonic() < limit:
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_is_told_to_end(
    rdms: Rdms, faces: Path, tiny_bundle: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "o"
    pid = rdms.start("encode", faces, "-o", out, "-b", tiny_bundle, "--steps", 150, "--batch-size", 1)
    wait_for(out / "a.safetensors")
    os.kill(pid, number)
    assert rdms.wait(pid) == 130
    assert rdms.said.splitlines()[-1].startswith("rdm: interrupted")
    assert "Traceback" not in rdms.said
    written = [path for path in out.rglob("*") if path.is_file()]
    assert written and not [path for path in written if path.name.startswith(".")]
    for path in written:
        Codes.load(path)


def test_a_training_that_is_told_to_end_saves(
    rdms: Rdms, faces: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    pid = rdms.start(
        "train", "diffae", faces, "-o", tmp_path / "bundle", "--run", run, "--init-from", tiny_bundle,
        "--batch-size", 2, "--steps", 100_000, "--sheet-minutes", 0, "--threads", 1, "--device", "cpu", "-q",
    )  # fmt: skip
    wait_for(run / "log.jsonl")
    time.sleep(0.5)
    os.kill(pid, signal.SIGTERM)
    assert rdms.wait(pid) == 130
    assert "go on with: " in rdms.said and "Traceback" not in rdms.said
    steps = load_checkpoint(run).progress.step
    assert len((run / "log.jsonl").read_text().splitlines()) == steps
    assert not (tmp_path / "bundle").exists() and not list(run.rglob(".rdm-*"))


def test_nothing_depends_on_the_time_of_day() -> None:
    """A clock that jumps, or two machines that disagree, change nothing: only monotonic time is asked."""
    asking = {"time", "now", "today", "utcnow", "time_ns"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in asking:
                owner = ast.unparse(node.value)
                assert owner not in ("time", "datetime", "datetime.datetime"), f"{path}:{node.lineno}"


def test_the_package_asks_no_foreign_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a clock that runs backwards by a year a call, leftovers go and files are written all the same."""
    from rdm_cli.data.io.atomic import atomic_path, remove_leftovers

    year, now = 365 * 86400.0, [2e9]

    def backwards() -> float:
        now[0] -= year
        return now[0]

    monkeypatch.setattr(time, "time", backwards)
    (tmp_path / ".rdm-a-12345678.png").write_text("half")
    os.utime(tmp_path / ".rdm-a-12345678.png", (4e9, 4e9))
    with atomic_path(tmp_path / "b.png") as temporary:
        temporary.write_text("whole")
        remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]
