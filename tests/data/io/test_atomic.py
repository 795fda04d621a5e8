"""Files that appear whole or not at all, under errors, a full disk and kill -9."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdm_cli.data.images.record import new_record, save_image
from rdm_cli.data.io.atomic import atomic_path, write_whole


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_success_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent and temporary.suffix == ".txt"
        assert temporary.name.startswith(".")  # so that no search for inputs meets it
    assert path.read_text() == "new" and names_in(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.ENOSPC, "no space"), KeyboardInterrupt()])
def test_failure_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)) as caught, atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert caught.value is error
    assert path.read_text() == "old" and names_in(tmp_path) == ["a.txt"]


def test_failure_leaves_nothing_where_nothing_was(tmp_path: Path) -> None:
    with pytest.raises(ValueError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise ValueError
    assert names_in(tmp_path) == []


@contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    """The kernel refuses to let a file grow past ``num_bytes``, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_image_that_does_not_fit_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    old = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with pytest.raises(OSError), files_limited_to(1000):
        save_image(Image.fromarray(noise), path, new_record("sample"))
    assert path.read_bytes() == old and names_in(tmp_path) == ["a.png"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("x")
        assert os.umask(mask) == mask
    finally:
        os.umask(old)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_folder_that_goes_between_two_files_is_made_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_whole(tmp_path / "new" / "folder" / name, name.encode())
        assert (tmp_path / "new" / "folder" / name).read_text() == name
        shutil.rmtree(tmp_path / "new")


def test_what_stood_there_stays_until_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, b"old")
    with pytest.raises(OSError) as caught, files_limited_to(1000):
        write_whole(path, bytes(2000))
    assert caught.value.errno == errno.EFBIG and caught.value.filename == str(path)
    assert path.read_text() == "old" and names_in(tmp_path) == ["a.txt"]
    write_whole(path, b"")
    assert path.read_text() == ""


def test_folder_in_the_way_stays(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OSError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
    assert names_in(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").is_dir()


def test_long_names_fit(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 120 + ".txt")  # 244 bytes of the 255 a name may have
    with atomic_path(path) as temporary:
        temporary.write_text("x")
    assert names_in(tmp_path) == [path.name]


def test_killed_writer_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    script = (
        "import os, pathlib, signal, sys\n"
        "from rdm_cli.data.io.atomic import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    finished = subprocess.run([sys.executable, "-c", script, str(path)], cwd=Path(__file__).parents[2])
    assert finished.returncode == -9
    assert path.read_text() == "old"
