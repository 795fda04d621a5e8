"""rdm train --dry-run: what a run would be, on stdout, and nothing on the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Rdm = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture
def train(rdm: Rdm, faces: Path, tmp_path: Path) -> Rdm:
    """``train("diffae", "--dry-run")`` on five pictures."""

    def run(method: str, *arguments: object, images: Path = faces) -> Any:
        return rdm(
            "train", method, images, "-o", tmp_path / "out", "--run", tmp_path / "run", "--preset", "small32",
            "--batch-size", 4, "--sheet-minutes", 0, "--threads", 1, "--device", "cpu", *arguments,
        )  # fmt: skip

    return run


def test_a_line_for_each_question(train: Rdm, tmp_path: Path) -> None:
    told = train(
        "diffae", "--images", 1002, "--gradient-accumulation", 2, "--log", "tensorboard", "--dry-run"
    )
    assert (told.code, told.err) == (0, "")
    facts = dict(line.split("\t") for line in told.lines)
    assert list(facts) == ["batch", "images", "to go", "memory"]
    assert facts["batch"] == "4 images: 2 in a pass, 2 passes, 1 process"
    assert facts["images"] == "5 found"
    assert facts["to go"] == "1,002 of 1,002 images, in 251 steps; 0 images seen"
    assert " MB a process: weights " in facts["memory"] and ", activations " in facts["memory"]
    assert [path.name for path in tmp_path.iterdir()] == ["faces"]


def test_json_has_numbers(train: Rdm) -> None:
    (facts,) = train("first-stage", "--kind", "kl", "--steps", 3, "--dry-run", "--json").objects
    assert (facts["num_left"], facts["num_steps_left"], facts["num_processes"]) == (12, 3, 1)
    assert facts["memory_total"] == sum(facts["memory"].values()) > 2**20


def test_minutes_are_told_as_such(train: Rdm) -> None:
    told = train("dpm", "--minutes", 2.5, "--dry-run")
    assert told.lines[2] == "to go\t2.5 of 2.5 minutes; 0 images seen"


def test_a_resumed_run_says_what_is_left(train: Rdm, tiny_bundle: Path, tmp_path: Path) -> None:
    assert train("diffae", "--steps", 1, "--init-from", tiny_bundle).code == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    told = train("diffae", "--resume", "--images", 13, "--dry-run")
    assert told.lines[2] == "to go\t9 of 13 images, in 3 steps; 4 images seen"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    again = train("diffae", "--dry-run", "-q")
    assert again.code == 2 and "a run lies here already; continue it with --resume" in again.err


def test_what_would_fail_fails(train: Rdm, tmp_path: Path) -> None:
    nowhere = train("diffae", "--dry-run", "-q", images=tmp_path / "nowhere")
    assert nowhere.code != 0 and "no such file or folder" in nowhere.err
    odd = train("diffae", "--dry-run", "--gradient-accumulation", 3, "-q")
    assert odd.code == 2 and "a batch of 4 cannot be shared by 1 processes with 3 passes" in odd.err
