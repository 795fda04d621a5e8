"""Checkpoints: everything comes back, and what is damaged or half written does no harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rdm_cli.data.io import tensor_files as module
from rdm_cli.data.io.atomic import remove_leftovers
from rdm_cli.data.io.tensor_files import read_metadata, read_tensors, write_tensors
from rdm_cli.errors import CheckpointError
from rdm_cli.training.checkpoint import (
    FILE_NAME,
    Progress,
    load_checkpoint,
    load_settings,
    save_checkpoint,
)
from rdm_cli.training.ema import WeightAverage


def parts(width: int = 4, seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    return {"model": model, "average": WeightAverage(model, 0.9), "optimizer": optimizer}


def step(run: dict[str, Any], seed: int) -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
    run["optimizer"].zero_grad()
    run["model"](x).square().mean().backward()
    run["optimizer"].step()
    run["average"].update(run["model"])


def save(run: dict[str, Any], folder: Path, **progress: Any) -> Path:
    return save_checkpoint(folder, **run, progress=Progress(**progress), settings={"lr": 0.1})


def test_everything_comes_back_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    run = parts()
    for seed in range(3):
        step(run, seed)
    save(run, tmp_path, step=3, num_images=24, elapsed_seconds=1 / 3)
    restored = parts(seed=1)
    loaded = load_checkpoint(tmp_path)
    loaded.restore(**restored)
    assert loaded.progress == Progress(step=3, num_images=24, elapsed_seconds=1 / 3)
    assert loaded.settings == load_settings(tmp_path) == {"lr": 0.1}
    assert restored["average"].num_updates == 3
    for seed in range(3, 6):
        step(run, seed)
        step(restored, seed)
    for name, value in run["model"].state_dict().items():
        assert torch.equal(value, restored["model"].state_dict()[name]), name
    for name, value in run["average"].averages.items():
        assert torch.equal(value, restored["average"].averages[name]), name
    states = [part["optimizer"].state_dict()["state"] for part in (run, restored)]
    assert states[0].keys() == states[1].keys() and len(states[0]) == 6
    for index, state in states[0].items():
        assert all(torch.equal(value, states[1][index][name]) for name, value in state.items())


def test_moments_follow_their_parameters_by_name(tmp_path: Path) -> None:
    """A later version of a network may list its layers in another order: no moment changes its owner."""
    run = parts()
    step(run, 0)
    save(run, tmp_path)
    restored = parts(seed=1)
    model = restored["model"]
    model._modules = dict(reversed(model._modules.items()))  # registered in another order, named as before
    restored["optimizer"] = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    load_checkpoint(tmp_path).restore(**restored)
    expected = {n: run["optimizer"].state[p]["exp_avg"] for n, p in run["model"].named_parameters()}
    for name, parameter in model.named_parameters():
        assert torch.equal(restored["optimizer"].state[parameter]["exp_avg"], expected[name]), name
    assert len(expected) == 6


def test_a_run_that_took_no_step_yet_comes_back_too(tmp_path: Path) -> None:
    run, restored = parts(), parts(seed=1)
    save(run, tmp_path)
    load_checkpoint(tmp_path).restore(**restored)
    step(run, 0)
    step(restored, 0)
    assert torch.equal(run["model"][0].weight, restored["model"][0].weight)


@pytest.mark.parametrize("kind", ["empty", "truncated", "text", "another"])
def test_a_damaged_file_is_one_line(tmp_path: Path, kind: str) -> None:
    path = save(parts(), tmp_path)
    content = path.read_bytes()
    if kind == "another":
        save_file({"z": torch.zeros(2)}, path, metadata={"rdm": '{"method": "diffae"}'})
    else:
        path.write_bytes({"empty": b"", "truncated": content[:-100], "text": b"not a checkpoint"}[kind])
    for read in (load_checkpoint, load_settings):
        with pytest.raises(CheckpointError, match="not a readable checkpoint") as caught:
            read(tmp_path)
        assert str(path) in caught.value.message
        assert "\n" not in caught.value.message


def test_without_a_checkpoint_the_line_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint to resume from; start without --resume"):
        load_checkpoint(tmp_path)


def test_another_network_s_checkpoint_is_one_line(tmp_path: Path) -> None:
    save(parts(width=4), tmp_path)
    with pytest.raises(CheckpointError, match="of another network") as caught:
        load_checkpoint(tmp_path).restore(**parts(width=5))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    run = parts()
    content = save(run, tmp_path).read_bytes()
    step(run, 0)
    real: Callable[..., None] = save_file

    def half(tensors: Any, path: Path, **options: Any) -> None:
        real(tensors, path, **options)
        path.write_bytes(path.read_bytes()[:50])
        raise error

    monkeypatch.setattr(module, "save_file", half)
    with pytest.raises(type(error)):
        save(run, tmp_path, step=1)
    assert (tmp_path / FILE_NAME).read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == [FILE_NAME]


def test_what_a_kill_left_half_written_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [save(parts(), tmp_path), tmp_path / "log.jsonl", tmp_path / "checkpoint-old.safetensors"]
    for path in kept[1:]:
        path.write_text("")
    (tmp_path / ".rdm-checkpoint-a1b2c3d4.safetensors").write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def scaler_after(num_steps: int) -> torch.amp.GradScaler:
    """fp16's scaler after so many good steps, of which every second raises the scale."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    for _ in range(num_steps):
        weight = nn.Parameter(torch.ones(1))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        scaler.scale(weight.sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    return scaler


def test_the_scaler_of_fp16_comes_back(tmp_path: Path) -> None:
    """Without it the first steps after --resume are scaled otherwise, and some are left out."""
    run, scaler = parts(), scaler_after(5)
    assert scaler.get_scale() == 32.0
    save_checkpoint(tmp_path, **run, progress=Progress(step=5), settings={}, scaler=scaler)
    restored = scaler_after(0)
    load_checkpoint(tmp_path).restore(**parts(seed=1), scaler=restored)
    assert restored.state_dict() == scaler.state_dict()
    assert restored.state_dict()["_growth_tracker"] == 1


def test_a_checkpoint_of_before_the_scaler_was_kept_still_comes_back(tmp_path: Path) -> None:
    run = parts()
    step(run, 0)
    path = save(run, tmp_path, step=1)
    header = json.loads(read_metadata(path)["rdm"])
    assert header.keys() == {"progress", "num_average_updates", "settings"}  # as it always was
    scaler = scaler_after(3)
    before = scaler.state_dict()
    loaded = load_checkpoint(tmp_path)
    loaded.restore(**parts(seed=1), scaler=scaler)
    assert loaded.scaler is None and scaler.state_dict() == before


@pytest.mark.parametrize("state", [[], "x", {}, {"scale": 1.0}])
def test_what_is_no_state_of_a_scaler_is_one_line(tmp_path: Path, state: Any) -> None:
    run = parts()
    path = save_checkpoint(tmp_path, **run, progress=Progress(), settings={}, scaler=scaler_after(0))
    header = json.loads(read_metadata(path)["rdm"]) | {"scaler": state}
    write_tensors(path, read_tensors(path), {"rdm": json.dumps(header)})
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path).restore(**parts(), scaler=scaler_after(0))
    assert "\n" not in caught.value.message
