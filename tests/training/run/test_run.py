"""A run on disk: what it leaves, how it goes on, and what it refuses to overwrite."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.data import dataset
from rdm_cli.data.images.record import read_record
from rdm_cli.errors import CheckpointError, RdmError, UsageError
from rdm_cli.training.checkpoint import FILE_NAME, load_checkpoint
from rdm_cli.training.run.plan import TrainOptions, make_accelerator, make_plan
from rdm_cli.training.run.run import TrainingRun

Start = Callable[..., TrainingRun]


@pytest.fixture
def start(tmp_path: Path, faces: Path, tiny_bundle: Path, fresh_accelerate: None) -> Start:
    """``start(steps=4)`` begins or resumes a run of the tiny bundle's networks in ``tmp_path/run``."""

    def build(
        steps: int = 4,
        *,
        run: str = "run",
        said: list[str] | None = None,
        changes: dict[str, Any] | None = None,
        **rest: Any,
    ) -> TrainingRun:
        usual: dict[str, Any] = {
            "method": "diffae", "folder": faces, "run_folder": tmp_path / run, "preset": "small32",
            "bundle": tmp_path / ("out" if run == "run" else f"out-of-{run}"), "num_steps": steps,
            "init_from": str(tiny_bundle), "sheet_minutes": None, "batch_size": 2, "warmup_steps": 0,
            "decay_fraction": 0.0,
        }  # fmt: skip
        options = TrainOptions(**usual | (changes or {}) | rest)
        plan = make_plan(options, num_processes=1, on_cpu=True, command="rdm train")
        accelerator = make_accelerator(device="cpu", threads=None, mixed_precision="no", log=None)
        return TrainingRun(plan, accelerator, (said if said is not None else []).append)

    return build


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in logged(folder)]


def test_a_run_leaves_log_checkpoint_and_a_bundle_of_averages(start: Start, tmp_path: Path) -> None:
    run = start(4)
    records = list(run.steps())
    assert [r.step for r in records] == [1, 2, 3, 4]
    assert losses(tmp_path / "run") == [(r.step, r.loss) for r in records]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [FILE_NAME, "log.jsonl"]
    assert load_checkpoint(tmp_path / "run").progress.num_images == 8
    state = open_bundle(str(tmp_path / "out")).model.state_dict()  # type: ignore[attr-defined]
    for name, value in run.average.averages.items():
        assert torch.equal(state[name], value), name
    assert "Images seen: 8" in (tmp_path / "out" / "README.md").read_text()


def test_a_bundle_to_start_from_gives_networks_and_weights_exactly(
    start: Start, tmp_path: Path, tiny_bundle: Path
) -> None:
    list(start(2, changes={"lr": 0.0}).steps())
    # the digest covers every byte of configs, weights and scheduler
    assert open_bundle(str(tmp_path / "out")).digest == open_bundle(str(tiny_bundle)).digest


def test_a_closed_run_goes_on_as_if_undisturbed(start: Start, tmp_path: Path) -> None:
    list(start(7, run="whole").steps())
    steps = start(7).steps()
    assert len(list(islice(steps, 3))) == 3
    steps.close()  # type: ignore[attr-defined]
    said: list[str] = []
    resumed = start(7, resume=True, said=said)
    assert said == ["resuming at step 3, 6 images seen"]
    list(resumed.steps())
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_a_resumed_run_decodes_no_image_again_and_the_end_leaves_no_pixels(
    start: Start, tmp_path: Path, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = start(12, changes={"batch_size": 5}).steps()  # every face in the first step
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert len(list((tmp_path / "run").glob("pixels-*.u8"))) == 1

    def decoded(path: Path, *_: Any, **__: Any) -> None:
        pytest.fail(f"{path} is decoded again")

    monkeypatch.setattr(dataset, "image_bytes", decoded)
    list(start(12, changes={"batch_size": 5}, resume=True).steps())
    assert not list((tmp_path / "run").glob("pixels-*.u8"))


def test_pixels_of_images_that_changed_are_not_used(start: Start, tmp_path: Path, faces: Path) -> None:
    steps = start(2).steps()
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    (before,) = (tmp_path / "run").glob("pixels-*.u8")
    Image.new("RGB", (32, 32), "red").save(faces / "a.png")
    run = start(3, resume=True)
    steps = run.steps()
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    (after,) = (tmp_path / "run").glob("pixels-*.u8")
    assert after != before
    assert run.images[0][:, 0, 0].tolist() == [255, 0, 0]


def test_resuming_drops_what_was_logged_after_the_checkpoint(start: Start, tmp_path: Path) -> None:
    list(start(7, run="whole").steps())
    steps = start(7).steps()
    list(islice(steps, 3))
    steps.close()  # type: ignore[attr-defined]
    log = tmp_path / "run" / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 4, "loss": 1.0}\n{"step": 5, "lo')
    half = tmp_path / "run" / ".rdm-checkpoint-x1y2z3_4.safetensors"
    half.write_bytes(b"half")
    list(start(7, resume=True).steps())
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert not half.exists()


@pytest.mark.parametrize("steps", [4, 2])
def test_a_run_with_nothing_left_just_writes_its_bundle(start: Start, tmp_path: Path, steps: int) -> None:
    list(start(4).steps())
    before = losses(tmp_path / "run")
    weights = load_checkpoint(tmp_path / "run").tensors
    digest = open_bundle(str(tmp_path / "out")).digest
    said: list[str] = []
    assert list(start(steps, resume=True, bundle=tmp_path / "again", said=said).steps()) == []
    assert "nothing is left to train: 8 images were seen already" in said
    assert open_bundle(str(tmp_path / "again")).digest == digest
    assert losses(tmp_path / "run") == before
    after = load_checkpoint(tmp_path / "run").tensors
    assert all(torch.equal(value, after[name]) for name, value in weights.items())


def test_a_second_run_is_not_begun_over_the_first(start: Start, tmp_path: Path) -> None:
    list(start(1).steps())
    with pytest.raises(UsageError, match="a run lies here already; continue it with --resume"):
        start(1)
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        start(1, run="elsewhere", resume=True)


def test_divergence_keeps_the_last_good_checkpoint(start: Start, tmp_path: Path) -> None:
    run = start(9, checkpoint_minutes=0.0)
    steps = run.steps()
    list(islice(steps, 2))
    good = (tmp_path / "run" / FILE_NAME).read_bytes()
    with torch.no_grad():
        run.model.unet.conv_out.weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(RdmError, match="training stops at step 3: the loss is nan") as caught:
        next(steps)
    assert caught.value.hint == "the checkpoint of step 2 is kept: go on with --resume and a lower --lr"
    assert (tmp_path / "run" / FILE_NAME).read_bytes() == good
    assert [step for step, _ in losses(tmp_path / "run")] == [1, 2]
    assert not (tmp_path / "out").exists()


def test_divergence_before_any_checkpoint_leaves_none(start: Start, tmp_path: Path) -> None:
    steps = start(9, changes={"lr": 1e30}).steps()
    with pytest.raises(RdmError, match="start again with a lower --lr"):
        list(steps)
    assert not (tmp_path / "run" / FILE_NAME).exists()


def test_ctrl_c_saves_after_the_step_under_way(start: Start, tmp_path: Path) -> None:
    list(start(5, run="whole").steps())
    run = start(5)
    with pytest.raises(KeyboardInterrupt):
        for record in run.steps():
            if record.step == 2:
                os.kill(os.getpid(), signal.SIGINT)
    assert run.saved_step == 2
    list(start(5, resume=True).steps())
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_sheets_are_the_same_every_time(start: Start, tmp_path: Path) -> None:
    said: list[str] = []
    run = start(1, sheet_minutes=15.0, said=said)
    list(run.steps())
    sheet = tmp_path / "run" / "sheets" / "0000001.png"
    first = sheet.read_bytes()
    sheet.unlink()
    torch.manual_seed(3)
    run.draw_sheet()
    assert sheet.read_bytes() == first
    with Image.open(sheet) as picture:
        # five images: columns of 128 px, rows of x_0, its reconstruction, and z with two other x_T
        assert picture.width >= 5 * 128 and picture.height >= 4 * 128
        # the rows have names on the left
        named = picture.crop((0, 60, picture.width - 5 * 136 - 8, picture.height)).convert("L")
        assert named.getextrema()[0] < 128
    record = read_record(sheet)
    assert record is not None and record["step"] == 1 and record["bundle"] and record["seed"] == 0
    told = [json.loads(line) for line in (tmp_path / "run" / "diagnostics.jsonl").read_text().splitlines()]
    assert told[0] == told[1]
    assert (told[0]["step"], told[0]["sheet"]) == (1, "0000001.png")
    assert set(told[0]["swapped_z"]) == {"100", "300", "500", "700", "900"}
    assert any("own -> swapped z" in line for line in said)
    page = (tmp_path / "run" / "run.html").read_text(encoding="utf-8")
    assert "at step 1" in page and "Diff-AE" in page and "5 images of faces" in page


def test_bad_images_are_named_and_left_out(start: Start, faces: Path, tmp_path: Path) -> None:
    (faces / "bad.png").write_text("not an image")
    said: list[str] = []
    list(start(6, said=said).steps())
    named = [line for line in said if "bad.png" in line]
    assert len(named) == 1 and named[0].startswith("left out of training: ")


def test_fewer_images_than_a_batch(start: Start) -> None:
    said: list[str] = []
    records = list(start(2, said=said, changes={"batch_size": 8}).steps())
    assert said[0] == "only 5 images: some are seen twice in one step"
    assert [r.num_images for r in records] == [8, 16]


def test_images_that_came_or_went_are_remarked_on(start: Start, faces: Path) -> None:
    list(start(1).steps())
    (faces / "a.png").unlink()
    said: list[str] = []
    start(2, resume=True, said=said)
    assert any("held 5 images when the run began and holds 4 now" in line for line in said)


def test_the_images_can_be_sent_to_a_worker_process(start: Start) -> None:
    """Under spawn and forkserver, a DataLoader pickles them with their way to report a bad file."""
    images = start(1).images
    assert pickle.loads(pickle.dumps(images)).paths == images.paths


def test_one_image_is_enough(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "single"
    folder.mkdir()
    Image.new("RGB", (20, 16), "red").save(folder / "x.png")
    records = list(start(1, folder=folder, sheet_minutes=15.0).steps())
    assert len(records) == 1 and (tmp_path / "run" / "sheets" / "0000001.png").is_file()


def remarks(said: list[str]) -> list[str]:
    """What was said beside where the run goes on."""
    return [line for line in said if not line.startswith("resuming at step")]


def test_a_resumed_run_whose_images_changed_says_so(start: Start, faces: Path) -> None:
    list(start(1).steps())
    Image.new("RGB", (32, 32), "red").save(faces / "b.png")
    said: list[str] = []
    list(start(2, resume=True, said=said).steps())
    assert remarks(said) == [f"{faces} holds other images than the run was saved with: it goes on with these"]
    said.clear()
    start(3, resume=True, said=said)  # they are those that it was saved with last
    assert remarks(said) == []


def test_images_of_other_names_are_other_images(start: Start, faces: Path) -> None:
    list(start(1).steps())
    (faces / "a.png").rename(faces / "f.png")
    said: list[str] = []
    start(2, resume=True, said=said)
    assert any("holds other images than the run was saved with" in line for line in said)


def test_images_that_were_written_anew_in_the_same_size_are_remarked_on(start: Start, faces: Path) -> None:
    list(start(1).steps())
    content = bytearray((faces / "a.png").read_bytes())
    content[-1] ^= 1
    (faces / "a.png").write_bytes(content)
    os.utime(faces / "a.png", ns=(1, 1))
    said: list[str] = []
    start(2, resume=True, said=said)
    (told,) = remarks(said)
    assert told.startswith(f"images in {faces} were written since the run was saved, under the same names")


def test_a_folder_that_moved_with_its_images_is_the_same(start: Start, faces: Path, tmp_path: Path) -> None:
    list(start(1).steps())
    faces.rename(tmp_path / "moved")
    said: list[str] = []
    start(2, resume=True, folder=tmp_path / "moved", said=said)
    assert remarks(said) == []


def test_a_run_of_an_rdm_that_kept_neither_digests_nor_scaler_goes_on(start: Start, tmp_path: Path) -> None:
    from rdm_cli.data.io.tensor_files import read_metadata, read_tensors, write_tensors

    list(start(7, run="whole").steps())
    steps = start(7).steps()
    list(islice(steps, 3))
    steps.close()  # type: ignore[attr-defined]
    path = tmp_path / "run" / FILE_NAME
    header = json.loads(read_metadata(path)["rdm"])
    for name in ("images_named", "images_timed"):
        del header["settings"][name]
    write_tensors(path, read_tensors(path), {"rdm": json.dumps(header)})
    said: list[str] = []
    resumed = start(7, resume=True, said=said)
    assert said == ["resuming at step 3, 6 images seen"]
    list(resumed.steps())
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


@pytest.fixture
def in_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs scale their losses as in fp16, which needs a GPU: by a scaler that computes on the CPU."""

    real = make_accelerator

    def scaling(**words: Any) -> Any:
        accelerator = real(**words)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        accelerator.scaler = scaler  # type: ignore[assignment]
        return accelerator

    monkeypatch.setattr(sys.modules[__name__], "make_accelerator", scaling)


def test_fp16_s_scaler_goes_on_where_it_was(start: Start, tmp_path: Path, in_fp16: None) -> None:
    whole = start(7, run="whole")
    list(whole.steps())
    steps = start(7).steps()
    list(islice(steps, 3))
    steps.close()  # type: ignore[attr-defined]
    assert load_checkpoint(tmp_path / "run").scaler == {
        "scale": 16.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2,
        "_growth_tracker": 1,
    }  # fmt: skip
    said: list[str] = []
    resumed = start(7, resume=True, said=said)
    assert remarks(said) == []
    list(resumed.steps())
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    ends = [run.accelerator.scaler.state_dict() for run in (resumed, whole)]  # type: ignore[union-attr]
    assert ends[0] == ends[1] and ends[0]["scale"] == 64.0


def test_a_checkpoint_without_fp16_s_scaler_goes_on_and_says_so(
    start: Start, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    list(start(1).steps())
    request.getfixturevalue("in_fp16")
    said: list[str] = []
    list(start(2, resume=True, said=said).steps())
    assert remarks(said) == ["the checkpoint does not say how fp16 scaled the loss: that is found anew"]


def test_a_step_that_the_memory_does_not_suffice_for_is_one_line(start: Start, tmp_path: Path) -> None:
    run = start(9, checkpoint_minutes=0.0)
    steps = run.steps()
    list(islice(steps, 2))
    good = (tmp_path / "run" / FILE_NAME).read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    run.model.unet.conv_out.forward = full  # type: ignore[union-attr, method-assign, assignment]
    with pytest.raises(RdmError) as caught:
        next(steps)
    assert str(caught.value) == (
        "training stops at step 3: the memory does not suffice; the checkpoint of step 2 is kept: "
        "go on with --resume and a smaller --batch-size or more --gradient-accumulation"
    )
    assert (tmp_path / "run" / FILE_NAME).read_bytes() == good


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_a_seed_of_more_than_64_bits_is_refused(start: Start, seed: int) -> None:
    with pytest.raises(UsageError, match=f"--seed {seed}: training takes seeds of 64 bits"):
        start(1, changes={"seed": seed})
