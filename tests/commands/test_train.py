"""rdm train: a folder of images to a bundle that works, through kills, Ctrl-C and wrong words."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.commands import follow_training
from rdm_cli.training.checkpoint import FILE_NAME, load_checkpoint
from rdm_cli.training.run import trackers

Rdm = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("fresh_accelerate", "short_sheets")


@pytest.fixture
def train(rdm: Rdm, faces: Path, tiny_bundle: Path, tmp_path: Path) -> Rdm:
    """``train("--steps", 2)`` trains the tiny bundle's networks on five pictures."""

    def run(*arguments: object, images: Path = faces, output: str = "out") -> Any:
        return rdm(
            "train", "diffae", images, "-o", tmp_path / output, "--run", tmp_path / "runs" / output,
            "--init-from", tiny_bundle, "--batch-size", 2, "--warmup", 0, "--decay", 0,
            "--sheet-minutes", 0, "--threads", 1, *arguments,
        )  # fmt: skip

    return run


def losses(run: Path) -> list[tuple[int, float]]:
    lines = (run / "log.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines)]


def striped(folder: Path, num: int) -> Path:
    """Pictures 00.png and on, every other one dark, and metadata.csv that says which."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "dark"])
        for i in range(num):
            level = 40 if i % 2 else 215
            pixels = (level + rng.integers(-30, 30, (3, 3, 3))).astype(np.uint8)
            picture = Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC)
            picture.save(folder / f"{i:02d}.png")
            writer.writerow([f"{i:02d}.png", i % 2])
    return folder


def test_from_images_to_samples(train: Rdm, rdm: Rdm, tmp_path: Path) -> None:
    """Every step a user takes: train, encode, train prior and attributes, list, sample, edit."""
    images = striped(tmp_path / "images", 16)
    out, codes = tmp_path / "out", tmp_path / "codes"
    trained = train("--steps", 4, "--sheet-minutes", 15, "--json", images=images)
    assert trained.code == 0
    assert trained.objects[-1] == {"output": str(out), "run": str(tmp_path / "runs" / "out")}
    reports = trained.objects[:-1]
    assert [report["step"] for report in reports] == [1, 4]
    assert [step for step, _ in losses(tmp_path / "runs" / "out")] == [1, 2, 3, 4]
    assert reports[-1]["loss"] == losses(tmp_path / "runs" / "out")[-1][1]
    left = {path.name for path in (tmp_path / "runs" / "out").iterdir()}
    assert left == {FILE_NAME, "log.jsonl", "diagnostics.jsonl", "run.html", "sheets"}
    assert [p.name for p in (tmp_path / "runs" / "out" / "sheets").iterdir()] == ["0000004.png"]
    assert "loss with own -> swapped z" in trained.err

    assert rdm("encode", images, "-o", codes, "--no-x-t", "-b", out).code == 0
    prior = rdm(
        "train", "prior", codes, "-b", out, "--samples", 64, "--batch-size", 8, "--layers", 2,
        "--hidden-width", 16, "--json",
    )  # fmt: skip
    assert prior.code == 0
    assert prior.objects[-1] == {"output": str(out / "prior"), "num_codes": 16}
    assert prior.objects[0]["step"] == 8 and prior.objects[0]["held_out"] > 0
    probes = rdm(
        "train", "attributes", codes, "--labels", images / "metadata.csv", "-b", out, "--held-out", 0.4,
        "--json",
    )  # fmt: skip
    assert probes.code == 0
    assert [(o["attribute"], o["auroc"]) for o in probes.objects] == [("dark", 1.0)]
    assert "dark" in rdm("attributes", "list", "-b", out).out
    assert rdm("sample", "-n", 2, "-o", tmp_path / "samples", "--steps", 2, "-b", out).code == 0
    edited = rdm(
        "manipulate", images / "00.png", "--attr", "dark", "-o", tmp_path / "edited", "--steps", 2, "-b", out
    )
    assert edited.code == 0


def test_a_preset_s_own_networks(rdm: Rdm, faces: Path, tmp_path: Path) -> None:
    result = rdm(
        "train", "diffae", faces, "-o", tmp_path / "b", "--run", tmp_path / "r", "--preset", "small32",
        "--steps", 1, "--batch-size", 2, "--sheet-minutes", 0, "--weights", "fp16", "-q",
    )  # fmt: skip
    assert (result.code, result.lines, result.err) == (0, [str(tmp_path / "b")], "")
    assert open_bundle(str(tmp_path / "b")).model.image_size == 32


def test_tensorboard_gets_its_events(train: Rdm, tmp_path: Path) -> None:
    assert train("--steps", 2, "--log", "tensorboard").code == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = (tmp_path / "runs" / "out").rglob("events.out.tfevents.*")
    read = EventAccumulator(str(events.parent))
    read.Reload()
    told = [(event.step, event.value) for event in read.Scalars("loss")]
    assert told == [(step, pytest.approx(loss)) for step, loss in losses(tmp_path / "runs" / "out")]


TRACKER = '''
"""What accelerate uses of trackio and of wandb; each call becomes a line of the file that TRACKED names."""
import json, os

def tell(**what):
    with open(os.environ["TRACKED"], "a") as file:
        file.write(json.dumps(what) + "\\n")

class Config:
    def update(self, values, allow_val_change=False):
        tell(config=values)

class Run:
    def log(self, values, step=None):
        tell(step=step, **values)
    def finish(self):
        tell(finished=True)
        print("* Run finished")

config = Config()

def init(project, **options):
    if os.environ.get("REFUSED"):
        raise ValueError("no key was configured\\nsecond line")
    tell(project=project, **options)
    print("* Project initialized")
    return Run()
'''


RUNS = """
import contextlib, io, json, os, sys
from rdm_cli.cli import main
answers = []
for words, environment in json.loads(sys.argv[1]):
    os.environ |= environment
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    out.flush()
    answers.append([code, out.buffer.getvalue().decode(), err.getvalue()])
print(json.dumps(answers), file=sys.__stdout__)
"""


@pytest.mark.long
def test_other_trackers_get_the_log(faces: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Through accelerate, which looks for the packages when it is imported: here a stand-in of each."""
    site, known = tmp_path / "site", ("trackio", "wandb")
    commands: list[tuple[list[str], dict[str, str]]] = []
    for tracker in known:
        (site / f"{tracker}-9.0.dist-info").mkdir(parents=True)
        (site / f"{tracker}-9.0.dist-info" / "METADATA").write_text(f"Name: {tracker}\nVersion: 9.0\n")
        (site / f"{tracker}.py").write_text(TRACKER)
        words = (
            "train", "diffae", faces, "-o", tmp_path / tracker, "--run", tmp_path / f"{tracker}-run",
            "--init-from", tiny_bundle, "--batch-size", 2, "--sheet-minutes", 0, "--threads", 1,
            "--log", tracker,
        )  # fmt: skip
        command = [str(word) for word in words]
        commands.append(
            ([*command, "--steps", "2"], {"TRACKED": str(tmp_path / tracker) + ".jsonl", "REFUSED": ""})
        )
        commands.append(([*command, "--steps", "4", "--resume"], {"REFUSED": "1"}))
    done = subprocess.run(
        [sys.executable, "-c", RUNS, json.dumps(commands)],
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    for i, tracker in enumerate(known):
        (code, out, err), (refused, nothing, why) = answers[2 * i : 2 * i + 2]
        assert code == 0, err
        assert out == f"{tmp_path / tracker}\n", "what a tracker prints is no data"
        told = (tmp_path / f"{tracker}.jsonl").read_text()
        begun, config, *steps, finished = map(json.loads, told.splitlines())
        run = tmp_path / f"{tracker}-run"
        usual = {"trackio": {"resume": "never"}, "wandb": {"dir": str(run)}}[tracker]
        assert begun == {"project": "rdm", "name": tracker} | usual and finished == {"finished": True}
        assert config["config"]["method"] == "diffae" and config["config"]["batch_size"] == 2
        assert [(step["step"], pytest.approx(step["loss"])) for step in steps] == losses(run)
        # one that cannot start is one line, and nothing was trained
        assert refused == 1 and not nothing
        assert why.splitlines()[-1] == f"rdm: --log {tracker}: no key was configured"


@pytest.mark.parametrize("tracker", ["trackio", "wandb"])
def test_a_tracker_that_is_not_installed_is_said_before_any_work(
    train: Rdm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    monkeypatch.setattr("accelerate.tracking._available_trackers", [])
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    refused = train("--steps", 2, "--log", tracker)
    assert refused.code == 2
    assert refused.err == f"rdm: --log {tracker} needs {tracker}; pip install {tracker}\n"
    assert not (tmp_path / "runs").exists() and not (tmp_path / "out").exists()


def test_bf16_works_on_a_cpu_and_is_kept_on_resuming(train: Rdm, tmp_path: Path) -> None:
    assert train("--steps", 4, "--mixed-precision", "bf16", output="whole").code == 0
    assert train("--steps", 2, "--mixed-precision", "bf16").code == 0
    assert train("--steps", 4, "--resume").code == 0
    assert losses(tmp_path / "runs" / "out") == losses(tmp_path / "runs" / "whole")
    assert all(v.dtype != torch.bfloat16 for v in load_checkpoint(tmp_path / "runs" / "out").tensors.values())


def test_fp16_on_a_cpu_is_one_line(train: Rdm) -> None:
    result = train("--steps", 1, "--device", "cpu", "--mixed-precision", "fp16", "--json")
    assert result.code == 2
    assert result.err == "rdm: --mixed-precision fp16 needs a GPU; on a CPU, use bf16 or no\n"
    assert result.objects == [
        {"error": "--mixed-precision fp16 needs a GPU", "hint": "on a CPU, use bf16 or no"}
    ]


def test_bad_images_are_named_even_when_quiet(train: Rdm, faces: Path) -> None:
    (faces / "bad.png").write_text("not an image")
    result = train("--steps", 6, "-q")
    assert result.code == 0
    (line,) = result.err.splitlines()
    assert line.startswith("left out of training: ") and "bad.png" in line


def test_a_folder_of_bad_images_is_one_line(train: Rdm, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.png").write_text("not an image")
    result = train("--steps", 1, "-q", images=folder)
    assert result.code == 1
    assert "images seen cannot be read" in result.err.splitlines()[-1]
    assert not (tmp_path / "runs" / "out" / FILE_NAME).exists()


def test_ctrl_c_saves_and_says_how_to_go_on(
    train: Rdm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train("--steps", 4, output="whole").code == 0
    report = follow_training._report

    def press(*arguments: Any) -> None:
        report(*arguments)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(follow_training, "_report", press)
    result = train("--steps", 4)
    assert result.code == 130
    (told,) = (line for line in result.err.splitlines() if "go on with" in line)
    assert told.startswith("rdm: saved at step 1; go on with: rdm ") and told.endswith(" --resume")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(follow_training, "_report", report)
    assert train("--resume").code == 0
    assert losses(tmp_path / "runs" / "out") == losses(tmp_path / "runs" / "whole")
    assert open_bundle(str(tmp_path / "out")).digest == open_bundle(str(tmp_path / "whole")).digest


def test_a_killed_run_goes_on_bit_for_bit(
    train: Rdm, rdms: Any, faces: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """kill -9 at some moment of a run that saves at every step; most of its time goes into saving."""
    run = tmp_path / "runs" / "out"
    pid = rdms.start(
        "train", "diffae", faces, "-o", tmp_path / "out", "--run", run, "--init-from", tiny_bundle,
        "--batch-size", 2, "--warmup", 0, "--decay", 0, "--sheet-minutes", 0, "--threads", 1,
        "--steps", 1_000_000, "--checkpoint-minutes", 0, "-q",
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while not (run / "log.jsonl").exists() or len((run / "log.jsonl").read_bytes().splitlines()) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(pid, signal.SIGKILL)
        killed = rdms.wait(pid)
    assert killed == -signal.SIGKILL
    killed_at = load_checkpoint(run).progress.step
    assert killed_at >= 3
    total = killed_at + 4
    assert train("--resume", "--steps", total).code == 0
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []
    assert train("--steps", total, output="whole").code == 0
    assert [step for step, _ in losses(run)] == list(range(1, total + 1))
    assert losses(run) == losses(tmp_path / "runs" / "whole")
    assert open_bundle(str(tmp_path / "out")).digest == open_bundle(str(tmp_path / "whole")).digest


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--preset", "smal64"], 2, "there is no preset 'smal64'"),
        (["--steps", "3", "--images", "4"], 2, "--images, --steps and --minutes exclude each other"),
        (["--batch-size", "5", "--gradient-accumulation", "2"], 2, "a batch of 5 cannot be shared"),
        (["--resume"], 1, "no checkpoint to resume from; start without --resume"),
        (["--run", "{file}/run"], 2, "nothing can be written here"),
        (["-o", "{faces}"], 2, "something lies here that is no bundle"),
        (["--init-from", "nowhere"], 2, "nowhere: no such bundle"),
        (["--lr", "1e30", "--steps", "9"], 1, "start again with a lower --lr"),
    ],
)
def test_wrong_words_are_one_line(
    train: Rdm, faces: Path, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    (tmp_path / "file").write_text("")
    result = train(*(w.format(file=tmp_path / "file", faces=faces) for w in words), "-q", "--json")
    assert result.code == code
    assert len(result.err.splitlines()) == 1 and said in result.err
    assert "error" in result.objects[-1]
    assert sorted(p.name for p in faces.iterdir()) == ["a.png", "b.png", "c.png", "d.png", "sub"]


def test_a_run_is_not_begun_twice(train: Rdm) -> None:
    assert train("--steps", 1).code == 0
    again = train("--steps", 1, "-q")
    assert again.code == 2 and "a run lies here already; continue it with --resume" in again.err


def test_under_a_launcher_resume_begins_where_there_is_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command is for the first attempt and for those after a loss."""
    from rdm_cli.commands.train import _is_first_attempt
    from rdm_cli.console import Console

    console = Console(quiet=True)
    assert not _is_first_attempt(console, tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    assert _is_first_attempt(console, tmp_path)
    (tmp_path / "checkpoint.safetensors").touch()
    assert not _is_first_attempt(console, tmp_path)
