"""The shell's Tab key, by the shells' own protocol, in a process of its own as they start it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHIPPED = ["avatars128-lrdm", "avatars64-diffae", "avatars64-pdae"]

Complete = Callable[..., list[list[str]]]


def bundle_at(folder: Path, *attributes: str, method: str = "diffae") -> Path:
    """As much of a bundle as is looked at here."""
    (folder / "attributes").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"method": method, "image_size": 16}))
    (folder / "attributes" / "attributes.json").write_text(json.dumps({"names": attributes, "scores": {}}))
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A working folder ``here`` with a bundle ``mine``, and a hub cache with ``me/faces`` and others."""
    bundle_at(tmp_path / "here" / "mine", "tall", "old")
    hub = tmp_path / "hub"
    for repository, ref, index in (
        ("models--me--faces", "main", {"method": "pdae"}),
        ("models--me--faces", "v2", {"method": "pdae"}),
        ("models--you--stable", "main", {"_class_name": "StableDiffusionPipeline"}),
        ("datasets--me--faces", "main", {"method": "diffae"}),
    ):
        commit = COMMIT[::-1] if ref == "v2" else COMMIT
        folder = hub / repository
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / ref).write_text(commit)
        bundle_at(folder / "snapshots" / commit, "cached")
        (folder / "snapshots" / commit / "model_index.json").write_text(json.dumps(index))
    told = {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "COLUMNS": "80"}
    return {name: value for name, value in os.environ.items() if name != "RDM_BUNDLE"} | told


DRIVER = """
import contextlib, io, json, os, sys
from rdm_cli.cli import main

answers = []
for words in json.loads(sys.argv[1]):
    before = dict(os.environ)
    os.environ.update(words)
    with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.suppress(SystemExit):
        main([])
    answers.append(told.getvalue().splitlines())
    os.environ.clear()
    os.environ.update(before)
print(json.dumps(answers))
"""
PROTOCOL: dict[str, Callable[[str], dict[str, str]]] = {
    "bash": lambda line: {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))},
    "zsh": lambda line: {"_TYPER_COMPLETE_ARGS": line},
    "fish": lambda line: {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}


@pytest.fixture
def complete(tmp_path: Path, environment: dict[str, str]) -> Complete:
    """What is offered for the last word of each line: one process answers all, as each shell asks it.

    A line may begin with NAME=VALUE, as in a shell.
    """

    def offered(*lines: str, shell: str = "bash", **more: str) -> list[list[str]]:
        asked = []
        for line in lines:
            first, _, rest = line.partition(" ")
            told, line = (dict([first.split("=")]), rest) if "=" in first else ({}, line)
            asked.append(told | PROTOCOL[shell](line) | {"_RDM_COMPLETE": f"complete_{shell}"})
        command = [sys.executable, "-c", DRIVER, json.dumps(asked)]
        done = subprocess.run(
            command, env=environment | more, cwd=tmp_path / "here", capture_output=True, text=True, check=True
        )
        assert not done.stderr
        return [[word for word in answer if word] for answer in json.loads(done.stdout)]

    return offered


def test_attributes_are_those_of_the_bundle_that_is_named(complete: Complete, tmp_path: Path) -> None:
    expected = {
        "rdm manipulate a.png --attr smi": ["smiling"],
        "rdm manipulate a.png -b mine --attr ": ["tall", "old"],
        f"RDM_BUNDLE={tmp_path / 'here' / 'mine'} rdm manipulate a.png --attr o": ["old"],
        "rdm manipulate -b hf:me/faces --attr ": ["cached"],
        "rdm manipulate -b no-such-bundle --attr ": [],
        "rdm attributes show -b mine t": ["tall"],
        "rdm sample -b mine --attr tall=yes,o": ["tall=yes,old"],
        "rdm sample -b mine --attr tall=": ["tall=yes", "tall=no"],
    }
    assert complete(*expected) == list(expected.values())


def test_words_of_training(complete: Complete) -> None:
    expected = {
        "rdm train diffae faces --preset small": ["small32", "small64"],
        "rdm train first-stage faces --preset small6": ["small64"],
        "rdm train all faces --method lrdm --preset small64-v": ["small64-vector"],
        "rdm train diffae faces --log t": ["tensorboard", "trackio"],
        "rdm train prior codes -b m": ["mine"],
    }
    assert complete(*expected) == list(expected.values())


def test_edits_come_after_the_first_input_and_beside_files(complete: Complete, tmp_path: Path) -> None:
    (tmp_path / "here" / "toast.png").touch()
    expected = {
        "rdm manipulate ": [],  # the shell offers files
        "rdm manipulate a.png smi": ["smiling=0.3"],
        "rdm manipulate a.png -b mine t": ["tall=0.3", "toast.png"],
        "rdm manipulate a.png -b mine x": [],
    }
    assert complete(*expected) == list(expected.values())


def test_bundles_are_shipped_own_and_fetched_ones(complete: Complete, tmp_path: Path) -> None:
    all_of_them = [*SHIPPED, "mine", "hf:me/faces", "hf:me/faces@v2"]
    elsewhere = bundle_at(tmp_path / "elsewhere")
    expected = {
        "rdm encode a.png --bundle ": all_of_them,
        f"RDM_BUNDLE={elsewhere} rdm encode a.png --bundle /": [str(elsewhere)],
        "rdm bundles show av": SHIPPED,
        "rdm decode a.safetensors -b m": ["mine"],
        "rdm evaluate reconstruction mi": ["mine"],
        "rdm decode a.safetensors --solver d": ["ddim", "dpm-solver++"],
    }
    assert complete(*expected) == list(expected.values())


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_the_same(complete: Complete, shell: str) -> None:
    offered = str(complete("rdm manipulate a.png -b mine --attr ", shell=shell))
    assert "tall" in offered and "old" in offered and "smiling" not in offered


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_itself_gets_them(tmp_path: Path, environment: dict[str, str]) -> None:
    """By the script that ``rdm --install-completion`` installs."""
    (tmp_path / "rdm").write_text(f'#!/bin/sh\nexec {sys.executable} -m rdm_cli "$@"\n')
    (tmp_path / "rdm").chmod(0o755)
    script = """
    eval "$(_RDM_COMPLETE=source_bash rdm)"
    COMP_WORDS=(rdm manipulate a.png -b mine --attr t); COMP_CWORD=6
    _rdm_completion rdm
    echo "${COMPREPLY[@]}"
    """
    told = environment | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], env=told, cwd=tmp_path / "here", capture_output=True, text=True, check=True
    )
    assert done.stdout == "tall\n" and not done.stderr


def test_tab_loads_no_torch(complete: Complete, tmp_path: Path) -> None:
    """It must answer at once; here a torch that is imported ends the process."""
    (tmp_path / "broken").mkdir()
    for name in ("torch", "diffusers", "accelerate"):
        (tmp_path / "broken" / f"{name}.py").write_text("raise SystemError('Tab must not load this')")
    path = os.pathsep.join([str(tmp_path / "broken"), os.environ.get("PYTHONPATH", "")])
    lines = ("rdm manipulate a.png --attr ", "rdm encode -b ", "rdm train diffae faces --preset ")
    complete(*lines, PYTHONPATH=path)


def test_the_list_of_bundles_has_own_and_fetched_ones(tmp_path: Path, environment: dict[str, str]) -> None:
    def listed(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rdm_cli", "bundles", "list", *words]
        return subprocess.run(
            command, env=environment | more, cwd=tmp_path / "here", capture_output=True, text=True, check=True
        )

    facts = {one["bundle"]: one for one in map(json.loads, listed("--json").stdout.splitlines())}
    assert list(facts) == [*SHIPPED, "mine", "hf:me/faces", "hf:me/faces@v2"]
    assert facts["mine"] | {"place": "this folder", "method": "diffae", "folder": "mine"} == facts["mine"]
    assert facts["hf:me/faces"]["place"] == "hub cache" and facts["hf:me/faces"]["method"] == "pdae"
    assert all(one["megabytes"] >= 0 for one in facts.values())
    text = listed().stdout
    assert all(name in text for name in facts) and "hub cache" in text
    # no cache at all is no error; one bundle that cannot be read is named, and the others are listed
    (tmp_path / "here" / "mine" / "model_index.json").write_text("{")
    done = listed(HF_HUB_CACHE=str(tmp_path / "none"))
    assert "mine: not readable" in done.stderr and all(name in done.stdout for name in SHIPPED)
