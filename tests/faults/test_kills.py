"""kill -9 at random moments: nothing is half written, and a second run ends where an undisturbed one does."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Rdms = Any
Tree = Callable[..., dict[str, str]]
FEW = 2
KILLS = [pytest.param(FEW, id="few"), pytest.param(100, id="100", marks=pytest.mark.slow)]


def killed(rdms: Rdms, *argv: object, after: float) -> bool:
    """Start rdm and kill it after so many seconds; whether it was still at work."""
    pid = rdms.start(*argv)
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)  # a zombie, if it has ended: the server has not waited for it
    return bool(rdms.wait(pid) == -signal.SIGKILL)


def seconds_of(rdms: Rdms, *argv: object) -> float:
    begun = time.monotonic()
    assert rdms.run(*argv) == 0, rdms.said
    return time.monotonic() - begun


def rounds(num: int, hits: list[bool]) -> Iterator[int]:
    """Numbers, until ``num`` kills have hit a process that was still at work."""
    for i in range(5 * num):
        if sum(hits) >= num:
            return
        yield i
    pytest.fail(f"only {sum(hits)} of {len(hits)} kills hit a process at work")


def visible(files: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if "/." not in f"/{name}"}


@pytest.mark.parametrize("num", KILLS)
@pytest.mark.parametrize("verb", ["encode", "sample"])
def test_a_killed_job_of_many_files(
    rdms: Rdms, tree: Tree, faces: Path, tiny_bundle: Path, tmp_path: Path, verb: str, num: int
) -> None:
    words: tuple[object, ...] = {
        "encode": ("encode", faces, "--steps", 20, "--batch-size", 1),
        "sample": ("sample", "-n", 5, "--steps", 10, "--batch-size", 2),
    }[verb]
    words = (*words, "-b", tiny_bundle, "--threads", 1, "-q")
    seconds = seconds_of(rdms, *words, "-o", tmp_path / "whole")
    whole = tree(tmp_path / "whole")
    assert len(whole) >= 5
    chance, hits = random.Random(0), list[bool]()
    for i in rounds(num, hits):
        out = tmp_path / str(i)
        for _ in range(chance.randint(1, 2)):  # some are killed again when they begin again
            hits.append(killed(rdms, *words, "-o", out, after=chance.uniform(0, 1.1 * seconds)))
            left = visible(tree(out)) if out.exists() else {}
            assert left.items() <= whole.items()
        assert rdms.run(*words, "-o", out) == 0, rdms.said
        assert tree(out) == whole  # and nothing hidden beside it
        shutil.rmtree(out)


@pytest.mark.parametrize("num", KILLS)
def test_a_killed_conversion(
    rdms: Rdms, tree: Tree, golden: Callable[[str], Path], tmp_path: Path, num: int
) -> None:
    """At every moment the bundle is the old one, whole, or the new one, whole; or none, where none was."""
    files = [golden("diffae") / name for name in ("official_tiny.ckpt", "official_tiny_latent.pkl")]
    words = ("bundles", "convert", "diffae", *files)
    seconds = seconds_of(rdms, *words, "-o", tmp_path / "a" / "bundle")
    assert rdms.run(*words, "-o", tmp_path / "b" / "bundle", "--weights", "fp16") == 0
    new, old = tree(tmp_path / "a"), tree(tmp_path / "b")
    assert new.keys() == old.keys() and new != old
    chance, hits = random.Random(1), list[bool]()
    for i in rounds(num, hits):
        place = tmp_path / f"place-{i}"
        if i % 2:
            shutil.copytree(tmp_path / "b", place)
        again = (*words, "-o", place / "bundle", "--force")
        hits.append(killed(rdms, *again, after=chance.uniform(0, 1.1 * seconds)))
        left = visible(tree(place)) if place.exists() else {}
        assert left in ([old, new] if i % 2 else [{}, new])
        assert rdms.run(*again) == 0, rdms.said
        assert tree(place) == new
        shutil.rmtree(place)


@pytest.mark.parametrize("num", KILLS)
def test_a_killed_training(
    rdms: Rdms, tree: Tree, faces: Path, tiny_bundle: Path, tmp_path: Path, num: int
) -> None:
    """Killed and resumed, until it is through: the same losses and the same bundle, bit for bit."""

    def words(place: Path) -> tuple[object, ...]:
        return (
            "train", "diffae", faces, "-o", place / "bundle", "--run", place / "run",
            "--init-from", tiny_bundle, "--batch-size", 2, "--steps", 8, "--warmup", 0,
            "--checkpoint-minutes", 0, "--sheet-minutes", 0, "--threads", 1, "--device", "cpu", "-q",
        )  # fmt: skip

    def losses(place: Path) -> list[tuple[int, float]]:
        lines = map(json.loads, (place / "run" / "log.jsonl").read_text().splitlines())
        return [(line["step"], line["loss"]) for line in lines]

    seconds = seconds_of(rdms, *words(tmp_path / "whole"))
    whole, known = tree(tmp_path / "whole" / "bundle", but=("README.md",)), losses(tmp_path / "whole")
    assert len(known) == 8
    chance, hits = random.Random(2), list[bool]()
    for i in rounds(num, hits):
        place = tmp_path / str(i)
        for _ in range(2):
            # there is something to go on with, or there is not
            resume = ["--resume"] if (place / "run" / "checkpoint.safetensors").exists() else []
            hits.append(killed(rdms, *words(place), *resume, after=chance.uniform(0, seconds)))
        resume = ["--resume"] if (place / "run" / "checkpoint.safetensors").exists() else []
        assert rdms.run(*words(place), *resume) == 0, rdms.said
        assert losses(place) == known
        assert tree(place / "bundle", but=("README.md",)) == whole
        assert not [path for path in place.rglob(".rdm-*")]
        shutil.rmtree(place)
