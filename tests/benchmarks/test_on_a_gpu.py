"""benchmarks/on_a_gpu.py: steps that fail or hang stop nothing, and what is packed keeps to its limits."""

from __future__ import annotations

import shlex
import sys
import tarfile
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import on_a_gpu
import pytest
from on_a_gpu import CHAINS, Plan, Work, pack, parsed, rescue, step, train


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(parsed(["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--device", "cpu"]))


def log(plan: Plan) -> str:
    return (plan.out / "log.txt").read_text()


def bundle(plan: Plan, name: str, size: int) -> None:
    (plan.bundles / name).mkdir()
    (plan.bundles / name / "model_index.json").write_text("{}")
    (plan.bundles / name / "weights").write_bytes(b"w" * size)


def unpacked(plan: Plan) -> set[str]:
    parts = sorted(plan.out.glob("bundles.tar.*"))
    assert all(part.stat().st_size <= on_a_gpu.PART_BYTES for part in parts)
    with tarfile.open(fileobj=BytesIO(b"".join(part.read_bytes() for part in parts))) as tar:
        return {name.partition("/")[0] for name in tar.getnames()}


def test_a_step_that_fails_is_told_with_its_last_words(plan: Plan) -> None:
    assert not step(plan, "bad", [sys.executable, "-c", "print('words'); raise SystemExit(3)"], limit=30)
    assert "bad: FAILED, ended with 3" in log(plan) and "words" in log(plan)
    assert not step(plan, "none", ["/no/such/program"], limit=30)
    assert "none: FAILED" in log(plan)
    assert step(plan, "good", [sys.executable, "-c", ""], limit=30)


def test_a_step_that_hangs_is_stopped(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_a_gpu, "RESCUE_SECONDS", 1.0)
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    assert not step(plan, "deaf", [sys.executable, "-c", deaf], limit=1.5)
    assert "deaf: FAILED, was stopped with -9" in log(plan)
    assert not step(plan, "late", [sys.executable, "-c", ""], limit=-1)
    assert "late: not run" in log(plan)


def test_bundles_are_packed_in_parts_and_what_has_no_room_is_named(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_a_gpu, "PART_BYTES", 40_000)
    monkeypatch.setattr(on_a_gpu, "MOST_BYTES", 1_150_000)  # a million is the log's
    bundle(plan, "avatars64-dpm", 50_000)
    bundle(plan, "small", 30_000)
    bundle(plan, ".rdm-half-written", 10)
    pack(plan)
    assert unpacked(plan) == {"small", "avatars64-dpm"}
    bundle(plan, "tiny", 60_000)
    pack(plan)
    assert unpacked(plan) == {"small", "tiny"}  # and the parts of the first time are gone
    assert "avatars64-dpm: left out, for there is no room" in log(plan)
    names = {path.name for path in plan.out.iterdir()}
    assert {"log.txt", "logs.tar.gz", "bundles.tar.00"} <= names and len(names) <= 8


def test_a_chain_shares_its_time_and_ends_where_a_command_fails(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[str]] = []

    def note(_: Plan, name: str, command: list[str], **__: Any) -> bool:
        told.append(command[3:])
        return name != "x-2"

    monkeypatch.setattr(on_a_gpu, "step", note)
    works = [Work("encode {av64} -o {runs}/c"), Work("train a {av64} --minutes {minutes}", share=0.25)]
    works.append(Work("train b --minutes {minutes}", share=0.75))
    ready = {64: threading.Event(), 128: threading.Event()}
    ready[64].set()
    train(plan, "x", works, ready)
    assert [command[:2] for command in told] == [["encode", str(plan.work / "avatars64")], ["train", "a"]]
    minutes = float(told[1][told[1].index("--minutes") + 1])
    expected = (540 - on_a_gpu.RESCUE_SECONDS - on_a_gpu.PACK_SECONDS) / 4 - on_a_gpu.START_SECONDS
    assert 60 * minutes == pytest.approx(expected, abs=5)
    assert told[1][-2:] == ["--device", "cpu"]


def test_a_training_that_was_stopped_leaves_a_bundle(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its checkpoint, by --resume with no time left to train; also where a stop was asked for."""
    told: list[list[str]] = []
    monkeypatch.setattr(
        on_a_gpu, "step", lambda _, __, command, **how: bool(told.append([*command, how])) or 1
    )
    run = plan.runs / "a"
    command = ["train", "a", "-o", str(plan.bundles / "a"), "--run", str(run), "--minutes", "7.5"]
    assert not rescue(plan, "a", command) and not told
    run.mkdir()
    (run / "checkpoint.safetensors").write_bytes(b"")
    assert rescue(plan, "a", command)
    assert told[0][-4:-1] == ["--minutes", "0.01", "--resume"] and told[0][-1]["heeds_stop"] is False


@pytest.mark.parametrize("name", CHAINS)
def test_the_chains_ask_for_what_rdm_has(name: str, plan: Plan) -> None:
    """Options and presets: each command fails because its images are not there, and for no other reason."""
    from typer.testing import CliRunner

    from rdm_cli.cli import app

    for work in CHAINS[name]:
        given = {place: str(plan.work / place) for place in ("av64", "av128", "bundles", "runs")}
        arguments = shlex.split(work.command.format(**given, minutes="1"))
        found = CliRunner().invoke(app, [*arguments, "--dry-run"])
        assert found.exit_code != 0 and "No such option" not in found.output, found.output
        assert "there is no preset" not in str(found.exception), found.exception
