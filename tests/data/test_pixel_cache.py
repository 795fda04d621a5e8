"""Rows of pixels on disk: what was written whole is read back, and nothing else is."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdm_cli.data import pixel_cache
from rdm_cli.data.pixel_cache import PixelCache, disk_budget, remove_pixels

SHAPE = (3, 4, 4)
RNG = np.random.default_rng(0)
ROWS = RNG.integers(0, 256, (5, *SHAPE), dtype=np.uint8)


def cache_at(path: Path, **options: Any) -> PixelCache:
    return PixelCache(path, num=5, shape=SHAPE, note=options.pop("note", pytest.fail), **options)


def test_rows_come_back_and_others_are_none(tmp_path: Path) -> None:
    cache = cache_at(tmp_path / "pixels")
    for i in (3, 0):
        cache.write(i, ROWS[i])
    for reader in (cache, cache_at(tmp_path / "pixels")):
        for i in range(5):
            found = reader.read(i)
            assert (found is not None) == (i in (0, 3))
            if found is not None:
                np.testing.assert_array_equal(found, ROWS[i])


def test_black_and_whatever_has_a_checksum_of_zero_are_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_at(tmp_path / "pixels")
    cache.write(1, np.zeros(SHAPE, dtype=np.uint8))
    monkeypatch.setattr(pixel_cache.zlib, "crc32", lambda data: 0)
    cache.write(2, ROWS[2])
    assert cache.read(2) is not None
    monkeypatch.undo()
    black = cache.read(1)
    assert black is not None and not black.any()


@pytest.mark.parametrize("harm", ["torn", "short", "flipped"])
def test_a_row_that_is_not_whole_is_none(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "pixels"
    cache = cache_at(path)
    for i in range(5):
        cache.write(i, ROWS[i])
    cache.close()
    stored = bytearray(path.read_bytes())
    if harm == "torn":
        stored[-20:] = bytes(20)
    elif harm == "short":
        del stored[-20:]
    else:
        stored[-1] ^= 1
    path.write_bytes(stored)
    assert [cache_at(path).read(i) is not None for i in range(5)] == [True] * 4 + [False]


def test_a_full_disk_is_told_once_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    cache = cache_at(tmp_path / "pixels", note=told.append)
    cache.write(0, ROWS[0])

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    for i in (1, 2):
        cache.write(i, ROWS[i])
    assert len(told) == 1 and "No space left on device" in told[0]
    assert [cache.read(i) is not None for i in range(3)] == [True, False, False]


def test_a_folder_that_takes_no_file_is_told_and_reads_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told: list[str] = []
    cache = cache_at(tmp_path / "file" / "pixels", note=told.append, budget=10**6)
    cache.write(0, ROWS[0])
    assert cache.read(0) is None and len(told) == 1


def test_budget_is_half_of_what_is_free_and_what_is_there_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_cache.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 1000}))
    path = tmp_path / "later" / "pixels"
    assert disk_budget(path) == 500
    path.parent.mkdir()
    path.write_bytes(bytes(5000))
    assert disk_budget(path) == 500 + path.stat().st_blocks * 512
    monkeypatch.setattr(pixel_cache, "MOST_BYTES", 40)
    assert disk_budget(path) == 40


def test_removal_may_spare_one(tmp_path: Path) -> None:
    for name in ("pixels-a.u8", "pixels-b.u8", "checkpoint.safetensors"):
        (tmp_path / name).touch()
    remove_pixels(tmp_path, but=tmp_path / "pixels-b.u8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.safetensors", "pixels-b.u8"]
    remove_pixels(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]
