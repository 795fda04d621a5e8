"""Pictures record the command that makes them; run again, it makes the same bytes, wherever they lie."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rdm_cli.data.images.record import read_record

Rdm = Callable[..., Any]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.*")) if path.is_file()}


def command_of(path: Path) -> list[str]:
    record = read_record(path)
    assert record is not None
    return shlex.split(record["command"])


@pytest.mark.parametrize(
    ("command", "picture"),
    [
        ("manipulate {faces} --attr hat --scale -0.5 --steps 1 --batch-size 4 -q", "a-hat-0.5.png"),
        ("manipulate {faces} hat=-0.5 glasses=0.25 --steps 1 --batch-size 4", "a-hat-0.5-glasses+0.25.png"),
        ("manipulate {faces} hat=yes --editor direction --steps 1 --batch-size 4", "a-hat=yes.png"),
        ("manipulate {faces} --attr hat --scales=-1,1 --steps 1 --tile 32", "a-hat-1+1.png"),
        ("reconstruct {faces}/b.png {faces}/a.png --steps 1 --variations 1 --json", "a-reconstruction.png"),
        ("reconstruct {faces} --steps 1 --x-t random --batch-size 4", "a-reconstruction-side-by-side.png"),
        ("interpolate {faces}/a.png {faces}/b.png --frames 3 --steps 1 --animation webp", "strip.png"),
        ("interpolate {faces}/a.png {faces}/b.png --frames 3 --steps 1 --animation webp", "animation.webp"),
        ("sample -n 5 --seed 7 --steps 1", "000003.png"),
        ("sample -n 2 --seed 7 --steps 1 --columns 1", "grid.png"),
    ],
)
def test_the_recorded_command_makes_the_very_picture(
    rdm: Rdm, tiny_bundle: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str,
    picture: str,
) -> None:  # fmt: skip
    words = shlex.split(command.format(faces=faces, work=tmp_path))
    done = rdm(*words, "-b", tiny_bundle, "-o", tmp_path / "first", "--force")
    assert done.code in (0, 3), done.err  # random networks do not show what is wanted
    first = tmp_path / "first" / picture
    verb, *again = command_of(first)[1:]
    assert not {"-o", "--output", "--force", "-q", "--quiet", "--json", "--failures"} & set(again)
    monkeypatch.chdir(faces)  # inputs are recorded by their names alone
    assert rdm(verb, *again, "-o", tmp_path / "again").code in (0, 3)
    assert (tmp_path / "again" / picture).read_bytes() == first.read_bytes()
    assert str(tmp_path) not in " ".join(again).replace(str(tiny_bundle), "")


def test_a_part_records_what_the_whole_would(
    rdm: Rdm, tiny: Rdm, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the shard nor where the result lies is recorded; a bundle of the environment is."""
    assert tiny("sample", "-n", 4, "--steps", 1, "-o", tmp_path / "whole").code == 0
    for part in (1, 2):
        assert (
            tiny("sample", "-n", 4, "--steps", 1, "-o", tmp_path / "parts", "--shard", f"{part}/2").code == 0
        )
    whole = contents(tmp_path / "whole")
    assert contents(tmp_path / "parts") == {name: whole[name] for name in whole if name != "grid.png"}
    monkeypatch.setenv("RDM_BUNDLE", str(tiny_bundle))
    assert rdm("sample", "-n", 4, "--steps", 1, "-o", tmp_path / "named").code == 0
    assert contents(tmp_path / "named") == whole


def test_a_name_that_looks_like_an_option_stays_a_name(
    rdm: Rdm, tiny_bundle: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(faces)
    os.rename("a.png", "--attr; x.png")
    done = rdm(
        "manipulate",
        "--attr",
        "hat",
        "--steps",
        1,
        "-b",
        tiny_bundle,
        "-o",
        tmp_path,
        "--",
        "./--attr; x.png",
    )
    assert done.code == 0, done.err
    (made,) = tmp_path.glob("*.png")
    words = command_of(made)
    assert words[2] == "./--attr; x.png" and rdm(*words[1:], "-o", tmp_path / "again").code == 0
    assert (tmp_path / "again" / made.name).read_bytes() == made.read_bytes()


def test_python_records_no_command(tiny_bundle: Path, tmp_path: Path) -> None:
    from rdm_cli.jobs.pictures import Draws, write_samples
    from rdm_cli.pipeline.pipeline import open_pipeline

    list(write_samples(open_pipeline(str(tiny_bundle)), Draws(steps=1), range(1), tmp_path))
    record = read_record(tmp_path / "000000.png")
    assert record is not None and "command" not in record and re.match(r"rdm \d", record["software"])
