"""rdm train all: one command from images to a bundle that samples and edits, through kills."""

from __future__ import annotations

import json
import os
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.commands import train_all
from rdm_cli.evaluation import card
from rdm_cli.training.checkpoint import FILE_NAME

Rdm = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("fresh_accelerate")
NUM = 32
SMALL = ("--batch-size", 4, "--prior-samples", 64, "--sheet-minutes", 0, "--threads", 1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 32 px, every other one dark, and metadata.csv that says which."""
    folder = tmp_path_factory.mktemp("all") / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["file_name,dark"]
    for i in range(NUM):
        pixels = ((40 if i % 2 else 215) + rng.integers(-30, 30, (3, 3, 3))).astype(np.uint8)
        Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{i:02d}.png")
        lines.append(f"{i:02d}.png,{i % 2}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def everything(rdm: Rdm, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rdm:
    """``everything("--images", 8)`` makes the bundle ``mine`` below tmp_path, where the command is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(card, "NUM_IMAGES", 4)
    monkeypatch.setattr(card, "STEPS", 2)

    def run(*words: object, output: str = "mine", labels: object = images / "metadata.csv") -> Any:
        told = () if labels is None else ("--labels", labels)
        return rdm("train", "all", images, *told, "-o", output, *SMALL, *words)

    return run


def files(bundle: Path) -> dict[str, bytes]:
    """What a bundle holds besides its card, which names the commands that it took."""
    return {
        path.relative_to(bundle).as_posix(): path.read_bytes()
        for path in bundle.rglob("*")
        if path.is_file() and path.name != "README.md"
    }


@pytest.mark.long
def test_from_images_to_three_commands_that_work(everything: Rdm, rdm: Rdm, tmp_path: Path) -> None:
    done = everything("--images", 8, "--json")
    assert done.code == 0
    steps = [line for line in done.err.splitlines() if line.startswith("step ") and " of 5: " in line]
    assert [line.partition(": ")[2].split()[0] for line in steps] == [
        "train",
        "encode",
        "train",
        "fit",
        "measure",
    ]
    end = done.objects[-1]
    assert (end["output"], end["run"]) == ("mine", "runs/mine")
    bundle = open_bundle(str(tmp_path / "mine"))
    assert bundle.directions.names == ("dark",) and bundle.model.image_size == 32
    assert json.loads((tmp_path / "mine" / "prior" / "config.json").read_text())["attributes"] == ["dark"]
    told = (tmp_path / "mine" / "README.md").read_text()
    assert "| inferred | 2 | PSNR (dB) ↑ | " in told and "| dark | " in told and "rdm train all" in told
    assert rdm("bundles", "check", tmp_path / "mine").code == 0
    verbs = []
    for command in end["next"]:
        words = shlex.split(command)
        verbs.append(words[1])
        assert rdm(*words[1:], "--steps", 2).code == 0
        assert f"    {command}" in done.err
    assert verbs == ["manipulate", "sample", "interpolate"]
    again = everything("--resume", "--json")
    assert again.code == 0 and again.err.count("done before") == 5 and again.objects == [end]


@pytest.mark.long
def test_killed_and_then_stopped_in_every_step_it_makes_the_same_bundle(
    everything: Rdm,
    images: Path,
    rdms: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """kill -9 comes while it trains, and Ctrl-C in each step before it begins and when it has just ended."""
    words = ("--labels", images / "metadata.csv", "-o", "mine", *SMALL, "--images", 20)
    words = ("train", "all", images, *words, "--checkpoint-minutes", 0, "-q")
    pid = rdms.start(*words, folder=tmp_path)
    try:
        deadline = time.monotonic() + 300
        while not (tmp_path / "runs" / "mine" / "model" / FILE_NAME).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(pid, signal.SIGKILL)
        killed = rdms.wait(pid)
    assert killed == -signal.SIGKILL and not (tmp_path / "mine").exists()

    steps = {
        "_train_model": "model", "_encode": "codes", "_train_prior": "prior", "_fit_attributes": "attributes",
        "_write_card": "card",
    }  # fmt: skip
    num_done = dict.fromkeys(steps, 0)
    for method, step in steps.items():
        work = getattr(train_all._Run, method)

        def counted(run: Any, method: str = method, work: Callable[[Any], None] = work) -> None:
            work(run)
            num_done[method] += 1

        def before(run: Any) -> None:
            raise KeyboardInterrupt

        def after(run: Any, counted: Callable[[Any], None] = counted) -> None:
            counted(run)
            raise KeyboardInterrupt

        for stopped in (before, after):
            monkeypatch.setattr(train_all._Run, method, stopped)
            told = everything("--resume")
            assert told.code == 130
            ways_back = [line for line in told.err.splitlines() if "go on with" in line]
            assert len(ways_back) == (step != "model") and all("--resume" in line for line in ways_back)
            done = json.loads((tmp_path / "runs" / "mine" / "all.json").read_text())["done"]
            assert done == list(steps.values())[: len(done)] and step not in done
        monkeypatch.setattr(train_all._Run, method, counted)
    assert everything("--resume", "-q").code == 0
    # once, and once more because Ctrl-C came before that was kept
    assert num_done == dict.fromkeys(steps, 2)

    assert everything("--images", 20, "-q", output="whole").lines == ["whole"]
    assert files(tmp_path / "mine") == files(tmp_path / "whole")


def test_without_labels_there_are_no_attributes_and_that_is_said(everything: Rdm, tmp_path: Path) -> None:
    done = everything("--images", 4, labels=None)
    assert done.code == 0
    assert "no --labels: the bundle gets no attributes" in done.err and "step 4 of 4: measure" in done.err
    assert "prior" in open_bundle(str(tmp_path / "mine")).parts
    assert not (tmp_path / "mine" / "attributes").exists()
    assert "rdm reconstruct " in done.err and "manipulate" not in done.err


@pytest.mark.parametrize(
    ("table", "code", "said"),
    [
        (None, 2, "no such label table"),
        ("file_name,dark\nother.png,1\n", 1, f"none of the {NUM} images has a row here"),
        (
            "file_name,dark\n" + "".join(f"{i:02d}.png,1\n" for i in range(NUM)),
            1,
            "no attribute has enough examples",
        ),
        ("file_name,dark\n00.png,1\n01.png,0\n", 1, "no attribute has enough examples"),
        ("file_name,colour\n00.png,red\n", 1, "colour"),
        ("nothing\n", 1, "table.csv"),
    ],
)
def test_bad_labels_fail_before_any_training(
    everything: Rdm, tmp_path: Path, table: str | None, code: int, said: str
) -> None:
    file = tmp_path / "table.csv"
    if table is not None:
        file.write_text(table)
    told = everything("--images", 4, labels=file)
    assert told.code == code and len(told.err.splitlines()) == 1
    assert said in told.err and "table.csv" in told.err
    assert [path for path in tmp_path.iterdir() if path != file] == []


def test_what_a_run_has_settled_it_keeps(
    everything: Rdm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = everything("--resume")
    assert missing.code == 1 and "no run to resume; start without --resume" in missing.err
    assert "there is no preset 'small16'" in everything("--images", 4, "--preset", "small16").err
    assert not (tmp_path / "runs").exists()

    def stop(run: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_all._Run, "_encode", stop)
        assert everything("--images", 4).code == 130
    twice = everything("--images", 4)
    assert twice.code == 2 and "a run lies here already; continue it with --resume" in twice.err
    for words, said in (
        (("--preset", "small64"), "the run has preset small32, and keeps it (small64)"),
        (("--images", 8), "the run has num images 4, and keeps it (8)"),
        (("--seed", 1), "the run has seed 0, and keeps it (1)"),
    ):
        other = everything("--resume", *words)
        assert other.code == 2 and said in other.err and len(other.err.splitlines()) == 1
    assert everything("--resume", "--prior-samples", 32, "--images", 4, "-q").code == 0
    for text in ("[]", "{}", '{"options": {"method": "diffae"}, "done": []}'):
        (tmp_path / "runs" / "mine" / "all.json").write_text(text)
        damaged = everything("--resume")
        assert damaged.code == 1 and "all.json: does not say what the run is" in damaged.err


def test_a_run_that_has_not_trained_yet_may_be_shortened(
    everything: Rdm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(run: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_all._Run, "_train_model", stop)
        assert everything("--images", 1_000_000, "--lr", 1e30).code == 130
    assert everything("--resume", "--steps", 1, "--lr", 1e-4, "-q").code == 0
    known = json.loads((tmp_path / "runs" / "mine" / "all.json").read_text())["options"]
    assert (known["num_images"], known["num_steps"], known["lr"]) == (None, 1, 1e-4)


def test_a_bundle_that_is_there_is_not_replaced(everything: Rdm, tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "mine").symlink_to(tiny_bundle)
    told = everything("--images", 4, "--method", "pdae")  # whose DPM would be trained first
    assert told.code == 2 and "a bundle lies here already" in told.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("method", "around", "has_prior"),
    [pytest.param("pdae", "dpm", True, marks=pytest.mark.slow), ("lrdm", "first-stage", False)],
)
def test_what_a_model_stands_on_is_trained_first(
    everything: Rdm, tmp_path: Path, method: str, around: str, has_prior: bool
) -> None:
    done = everything("--images", 4, "--method", method)
    assert done.code == 0
    assert f"step 1 of {5 + has_prior}: train the {around} that the model stands on" in done.err
    bundle = open_bundle(str(tmp_path / "mine"))
    assert bundle.method.name == method and ("prior" in bundle.parts) is has_prior
    assert bundle.directions.names == ("dark",)
    assert (tmp_path / "runs" / "mine" / "around" / FILE_NAME).exists()


def test_several_processes_are_sent_elsewhere(everything: Rdm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = everything("--images", 4)
    assert told.code == 2 and "rdm train all is one process; for several, run rdm train METHOD" in told.err
