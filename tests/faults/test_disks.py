"""Disks that are full, at any byte, and disks that cannot be written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rdm_cli.codes.code import Codes
from rdm_cli.training.checkpoint import load_checkpoint

Rdms = Any
Tree = Callable[..., dict[str, str]]


def mount(*options: str) -> bool:
    try:
        return subprocess.run(["mount", *options], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 kB: room for some codes of 4 kB each."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=32k", "tmpfs", str(folder)):
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_small_disk_holds_what_it_can(
    rdms: Rdms, tree: Tree, faces: Path, tiny_bundle: Path, small_disk: Path, tmp_path: Path
) -> None:
    for i in range(10):
        os.link(faces / "a.png", faces / f"more-{i}.png")
    words = ("encode", faces, "-b", tiny_bundle, "--steps", 1, "--batch-size", 4, "-q")
    assert rdms.run(*words, "-o", small_disk / "o") == 3
    for line in rdms.said.splitlines():
        assert line.startswith(str(small_disk)) or line.endswith("No space left on device")
    left = tree(small_disk / "o")
    assert 1 <= len(left) < 15
    for name in left:
        Codes.load(small_disk / "o" / name)
    assert rdms.run(*words, "-o", tmp_path / "whole") == 0
    assert left.items() <= tree(tmp_path / "whole").items()


def test_a_disk_that_cannot_be_written(
    rdms: Rdms, faces: Path, tiny_bundle: Path, small_disk: Path, golden: Callable[[str], Path]
) -> None:
    assert mount("-o", "remount,ro", str(small_disk))
    bundle = ("-b", tiny_bundle, "-q")
    official = golden("diffae") / "official_tiny.ckpt"
    for words in (
        ("encode", faces / "a.png", "-o", small_disk / "o", *bundle, "--no-x-t"),
        ("sample", "-n", 1, "-o", small_disk / "o", *bundle, "--steps", 1),
        ("bundles", "convert", "diffae", official, "-o", small_disk / "o"),
        ("encode", faces / "a.png", "-o", faces / "o", *bundle, "--no-x-t", "--failures", small_disk / "f"),
    ):
        assert rdms.run(*words) == 1
        (line,) = [line for line in rdms.said.splitlines() if line.startswith("rdm: ")]
        assert line.endswith("Read-only file system") and str(small_disk) in line
    assert not list(small_disk.iterdir())


def fill(disk: Path, *, leave: int) -> None:
    """Leave so many bytes of it, whole pages."""
    free = os.statvfs(disk)
    with (disk / "filler").open("ab") as file:
        file.write(b"x" * (free.f_bavail * free.f_bsize - leave))


def test_a_full_disk_of_the_manifest_is_named_and_the_count_is_true(
    rdms: Rdms, faces: Path, tiny_bundle: Path, small_disk: Path, tmp_path: Path
) -> None:
    for i in range(40):
        os.link(faces / "a.png", faces / f"more-{i}.png")
    fill(small_disk, leave=4096)
    manifest, output = small_disk / "m.manifest.jsonl", tmp_path / "o"
    words = ("encode", faces, "-b", tiny_bundle, "--no-x-t", "-o", output, "--manifest", manifest)
    assert rdms.run(*words) == 1
    *_, summary, line = rdms.said.splitlines()
    assert line == f"rdm: {manifest}: No space left on device"
    num = len(list(output.rglob("*.safetensors")))
    assert 1 <= num < 45
    assert summary.startswith(f"encoded {num} images in ")
    assert summary.endswith(f", stopped early: {45 - num} not done")


def test_a_full_disk_of_a_tar_is_named_and_nothing_in_it_is_counted(
    rdms: Rdms, faces: Path, tiny_bundle: Path, small_disk: Path
) -> None:
    for i in range(20):
        os.link(faces / "a.png", faces / f"more-{i}.png")
    words = ("encode", faces, "-b", tiny_bundle, "--steps", 1, "-o", small_disk / "o", "--tar")
    assert rdms.run(*words) == 1
    *_, summary, line = rdms.said.splitlines()
    assert line == f"rdm: {small_disk}/o/encode-00001-of-00001.tar: No space left on device"
    assert summary.startswith("encoded 0 images in ")
    assert " lost, for the file that was to hold them" in summary and "stopped early" in summary
    assert not list((small_disk / "o").iterdir())


def test_a_full_disk_of_a_table_is_named_and_no_row_is_counted(
    rdms: Rdms, faces: Path, tiny_bundle: Path, small_disk: Path, tmp_path: Path
) -> None:
    codes = tmp_path / "codes"
    assert rdms.run("encode", faces, "-b", tiny_bundle, "--no-x-t", "-o", codes, "-q") == 0
    for leave in (0, 4096):  # where the rows, and where the table's end finds no room
        fill(small_disk, leave=leave)
        assert rdms.run("codes", "table", codes, "-o", small_disk / "z.parquet") == 1
        *_, summary, line = rdms.said.splitlines()
        assert line == f"rdm: {small_disk}/z.parquet: No space left on device"
        assert summary.startswith("tabled 0 codes in ")
        (small_disk / "filler").unlink()
        assert not list(small_disk.iterdir())


def test_a_full_disk_of_a_report_and_of_the_failures_is_named(
    rdms: Rdms, faces: Path, tiny_bundle: Path, small_disk: Path, tmp_path: Path
) -> None:
    fill(small_disk, leave=8192)
    words = ("evaluate", "reconstruction", tiny_bundle, faces, "-n", 2, "--steps", 1, "-o", small_disk / "r")
    assert rdms.run(*words, "-q") == 1
    (line,) = rdms.said.splitlines()
    assert line == f"rdm: {small_disk}/r/reconstruction.html: No space left on device"
    fill(small_disk, leave=0)
    assert [path.name for path in (small_disk / "r").iterdir()] == ["reconstruction.json"]
    (faces / "bad.png").write_text("no picture")
    words = ("encode", faces, "-b", tiny_bundle, "--no-x-t", "-o", tmp_path / "o")
    assert rdms.run(*words, "--failures", small_disk / "f") == 1
    *_, summary, line = rdms.said.splitlines()
    assert line == f"rdm: {small_disk}/f: No space left on device"
    assert summary.startswith("encoded 5 images in ") and summary.endswith("1 failed")


@pytest.mark.parametrize("limit", [0, 100, 5_000, 50_000])
def test_a_conversion_on_a_full_disk(
    rdms: Rdms, tree: Tree, golden: Callable[[str], Path], tmp_path: Path, limit: int
) -> None:
    out = tmp_path / "o"
    words = ("bundles", "convert", "diffae", golden("diffae") / "official_tiny.ckpt", "-o", out / "bundle")
    assert rdms.run(*words, "--weights", "fp16") == 0
    known = tree(out)
    assert rdms.run(*words, "--force", limit=limit) == 1
    assert tree(out) == known  # the bundle that was there, and nothing beside it


def test_a_training_on_a_full_disk(rdms: Rdms, faces: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = (
        "train", "diffae", faces, "-o", tmp_path / "bundle", "--run", run, "--init-from", tiny_bundle,
        "--batch-size", 2, "--sheet-minutes", 0, "--threads", 1, "--device", "cpu", "-q",
    )  # fmt: skip
    assert rdms.run(*words, "--steps", 2) == 0, rdms.said
    known = (run / "checkpoint.safetensors").read_bytes()
    assert rdms.run(*words, "--steps", 4, "--resume", limit=len(known) // 2) == 1
    (line,) = rdms.said.splitlines()
    assert line.endswith("File too large") and "checkpoint.safetensors" in line
    assert (run / "checkpoint.safetensors").read_bytes() == known
    assert not list(run.rglob(".rdm-*"))
    assert rdms.run(*words, "--steps", 4, "--resume") == 0, rdms.said
    assert load_checkpoint(run).progress.step == 4
