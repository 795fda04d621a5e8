"""Every command and every line of Python in README.md runs, in the order in which it stands there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

# What takes an hour for a user takes seconds here; nothing else about a command is changed.
SHORTER = {
    r"(rdm data avatars \S+) --n 64": r"\1 --n 24",
    r"--minutes \d+": "--steps 1 --batch-size 2 --sheet-minutes 0",
    r"(rdm train all \S+)": r"\1 --prior-samples 256",
    r"--steps \d[\d,]*": "--steps 2",
    r"(rdm (?:reconstruct|manipulate|encode \S+ -o exact/) )": r"\1--steps 2 ",
    r"faces/ -o verified/": "faces/000000.png faces/000001.png -o verified/",
    r"(rdm evaluate gap )": r"\1-n 2 --every 400 ",
    r"(rdm evaluate (?:reconstruction|generation) )": r"\1-n 12 ",
    r"(rdm evaluate edit )": r"\1-n 2 --steps 2 ",
}
# what no option says: the figures in the card that `train all` writes, and how long a judge of edits learns
FEW = {
    "rdm_cli.evaluation.card.NUM_IMAGES": 2,
    "rdm_cli.evaluation.card.STEPS": 2,
    "rdm_cli.training.pixel_judge.FEWEST_STEPS": 8,
}
OFFICIAL = {
    "last.ckpt": "official_tiny.ckpt",
    "classifier.ckpt": "official_tiny_cls.ckpt",
    "latent.pkl": "official_tiny_latent.pkl",
}


def blocks(language: str) -> list[str]:
    """The code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.M | re.S)


def shortened(command: str) -> str:
    """The same command with a smaller budget."""
    for pattern, replacement in SHORTER.items():
        command = re.sub(pattern, replacement, command, count=1)
    return command


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stranger's empty folder."""
    return tmp_path_factory.mktemp("readme")


def run(command: list[str] | str, place: Path) -> None:
    """Run in ``place`` as a process of its own, with the tested environment's rdm first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=place,
        shell=isinstance(command, str),
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PATH": path},
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_there_is_something_to_run() -> None:
    assert len(blocks("sh")) >= 8
    assert len(blocks("python")) >= 1


def run_block(block: str, place: Path, rdms: Any) -> None:
    """Run a block's lines one after the other; what needs no shell is forked, which saves the imports."""
    for command in map(shortened, block.strip().splitlines()):
        words = shlex.split(command)
        if words[0] == "rdm" and "|" not in words:
            files = {}
            for sign, name in (("<", "stdin"), (">", "stdout")):
                if sign in words:
                    at = words.index(sign)
                    files[name] = place / words[at + 1]
                    del words[at : at + 2]
            code = rdms.run(*words[1:], folder=place, constants=FEW, **files)
            assert code == 0, f"{command}\n{rdms.said}"
        else:
            run(command, place)


def test_every_command_runs(place: Path, rdms: Any) -> None:
    for block in blocks("sh"):
        if "bundles convert" not in block:
            run_block(block, place, rdms)


def test_the_conversion_runs(place: Path, golden: Callable[[str], Path], rdms: Any) -> None:
    for ours, theirs in OFFICIAL.items():
        shutil.copy(golden("diffae") / theirs, place / ours)
    (block,) = (block for block in blocks("sh") if "bundles convert" in block)
    run_block(block, place, rdms)


def test_the_python_block_runs(place: Path) -> None:
    for block in blocks("python"):
        run([sys.executable, "-c", block.replace("steps=20", "steps=2")], place)


def test_what_is_linked_is_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"(?:^|`)make ([a-z]+)(?:$|`)", README, flags=re.M)
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target
