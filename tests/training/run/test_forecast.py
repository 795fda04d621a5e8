"""What a run would be, told before it is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rdm_cli.bundles.config_json import to_json
from rdm_cli.errors import CheckpointError, UsageError
from rdm_cli.training.checkpoint import Progress, save_checkpoint
from rdm_cli.training.ema import WeightAverage
from rdm_cli.training.run import forecast as forecasts
from rdm_cli.training.run.forecast import Forecast, forecast
from rdm_cli.training.run.plan import RunPlan, make_plan

Plan = Callable[..., RunPlan]


@pytest.fixture
def plan(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """``plan(batch_size=8, num_images=100)``; its memory, test_step_memory's matter, is taken as counted."""
    monkeypatch.setattr(
        forecasts, "step_memory", lambda plan, *, micro_batch_size: {"activations": micro_batch_size}
    )

    def build(batch_size: int = 8, num_accumulations: int = 1, **words: Any) -> RunPlan:
        usual: dict[str, Any] = {
            "folder": faces, "bundle": tmp_path / "out", "run_folder": tmp_path / "run", "preset": "small32",
            "num_images": None, "num_steps": None, "minutes": None, "resume": False, "init_from": None,
            "num_processes": 1, "on_cpu": True, "command": "rdm train",
        }  # fmt: skip
        changes = {"batch_size": batch_size, "num_accumulations": num_accumulations}
        return make_plan("diffae", changes=changes, **usual | words)

    return build


def record(planned: RunPlan, progress: Progress) -> None:
    """A checkpoint as a run of ``planned`` leaves one; the networks are of no interest here."""
    module = nn.Linear(1, 1)
    save_checkpoint(
        planned.run_folder,
        model=module,
        average=WeightAverage(module, 0.9),
        optimizer=torch.optim.AdamW(module.parameters()),
        progress=progress,
        settings={
            "method": "diffae",
            "config": to_json(planned.config),
            "settings": to_json(planned.settings),
            "budget": to_json(planned.budget),
        },
    )


def test_a_batch_is_shared_by_processes_and_passes(plan: Plan, tmp_path: Path) -> None:
    found = forecast(plan(16, 2, num_images=100, num_processes=4), num_processes=4)
    assert found == Forecast(
        batch_size=16, micro_batch_size=2, num_accumulations=2, num_processes=4, num_items=5, num_images=100,
        num_seen=0, minutes=None, minutes_spent=0.0, memory={"activations": 2},
    )  # fmt: skip
    assert (found.num_left, found.num_steps_left) == (100, 7)  # the last of which sees 16 as well
    assert {path.name for path in tmp_path.iterdir()} == {"faces"}


def test_a_resumed_run_has_less_to_do(plan: Plan) -> None:
    record(plan(num_images=100), Progress(step=5, num_images=40, elapsed_seconds=90.0))
    found = forecast(plan(resume=True), num_processes=1)
    assert (found.num_images, found.num_seen, found.num_left, found.num_steps_left) == (100, 40, 60, 8)
    assert found.minutes_spent == 1.5
    longer = forecast(plan(resume=True, num_images=1000), num_processes=1)
    assert longer.num_left == 960
    over = forecast(plan(resume=True, num_images=16), num_processes=1)
    assert (over.num_left, over.num_steps_left) == (0, 0)


def test_a_budget_of_minutes_has_no_images_to_go(plan: Plan) -> None:
    found = forecast(plan(minutes=7.5), num_processes=1)
    assert (found.minutes, found.num_images, found.num_left, found.num_steps_left) == (7.5, None, None, None)


def test_facts_are_all_of_it_and_their_sums(plan: Plan) -> None:
    facts = forecast(plan(num_images=100), num_processes=1).facts()
    assert (
        facts.items() >= {"num_left": 100, "num_steps_left": 13, "memory_total": 8, "batch_size": 8}.items()
    )


def test_a_run_that_cannot_begin_has_none(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        plan(resume=True)
    first = plan()
    record(first, Progress(step=1, num_images=8))
    with pytest.raises(UsageError, match="a run lies here already"):
        plan()
    with pytest.raises(UsageError, match="no such file or folder"):
        forecast(plan(folder=tmp_path / "nowhere", run_folder=tmp_path / "other"), num_processes=1)
