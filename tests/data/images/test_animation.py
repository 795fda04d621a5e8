"""Animations lead there and back, carry their record, and are the same bytes every time."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from rdm_cli.data.images import animation
from rdm_cli.data.images.animation import animation_bytes, animation_kinds, require_encoder
from rdm_cli.data.images.record import read_record
from rdm_cli.data.io.places import Blob
from rdm_cli.errors import RdmError, UsageError

RECORD = {"what": "interpolation animation", "sources": ["ü.png"], "seed": 1}
FRAMES = [Image.new("RGB", (15, 9), colour) for colour in ("red", "lime", "blue")]


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_there_and_back_with_its_record(kind: Any, tmp_path: Path) -> None:
    content = animation_bytes(FRAMES, kind, RECORD, frame_ms=100)
    assert animation_bytes(FRAMES, kind, RECORD, frame_ms=100) == content
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    assert read_record(path) == RECORD and read_record(Blob("a", content)) == RECORD
    with Image.open(path) as moving:
        assert moving.info["loop"] == 0
        shown = [np.asarray(frame.convert("RGB"))[0, 0].tolist() for frame in ImageSequence.Iterator(moving)]
        assert moving.info["duration"] == 100
    assert shown == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 255, 0]]


def test_kinds_are_words_between_commas() -> None:
    assert animation_kinds("gif") == ("gif",) and animation_kinds("WebP, gif,webp") == ("webp", "gif")
    for wrong in ("avi", "gif,", ""):
        with pytest.raises(UsageError, match="is no kind of animation"):
            animation_kinds(wrong)


def test_without_ffmpeg_an_mp4_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animation.shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    require_encoder("gif")
    with pytest.raises(UsageError, match="ffmpeg, which is not installed") as caught:
        require_encoder("mp4")
    assert "pip install imageio-ffmpeg" in str(caught.value.hint)


def program(folder: Path, text: str) -> None:
    """A stand-in for ffmpeg, first on the PATH."""
    path = folder / "ffmpeg"
    path.write_text(f"#!{sys.executable}\nimport sys\nframes = sys.stdin.buffer.read()\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_ffmpeg_gets_every_frame_and_the_record_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    program(tmp_path, "open(sys.argv[-1], 'wb').write((12).to_bytes(4, 'big') + b'ftypisom')")
    content = animation_bytes(FRAMES, "mp4", RECORD, frame_ms=100)
    assert read_record(Blob("a.mp4", content)) == RECORD
    program(tmp_path, "assert len(frames) == 4 * 15 * 9 * 3; sys.exit('Unknown encoder libx264')")
    with pytest.raises(RdmError, match=r"could not write an MP4 \(Unknown encoder libx264\)"):
        animation_bytes(FRAMES, "mp4", RECORD, frame_ms=100)


def test_a_real_ffmpeg_writes_what_browsers_play() -> None:
    require_encoder("mp4")
    first, again = (animation_bytes(FRAMES, "mp4", RECORD, frame_ms=100) for _ in range(2))
    assert first == again and first[4:8] == b"ftyp" and b"avc1" in first
    assert read_record(Blob("a.mp4", first)) == RECORD
