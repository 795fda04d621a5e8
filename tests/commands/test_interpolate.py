"""rdm interpolate: frames, strip, animation, and ends that are the reconstructions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Rdm = Callable[..., Any]


def values(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


def test_between_two_images(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "o"
    result = tiny("interpolate", faces / "a.png", faces / "b.png", "--frames", 4, "-o", output, "--json")
    assert result.code == 0
    kinds = [o["kind"] for o in result.objects]
    assert kinds == ["frame"] * 4 + ["strip", "animation"]
    assert all(Path(o["output"]).is_file() for o in result.objects)
    assert values(output / "strip.png").shape == (16, 4 * 16 + 3 * 2, 3)
    with Image.open(output / "animation.gif") as animation:
        assert animation.n_frames == 6  # there and back, without the ends twice
    tiny("reconstruct", faces / "a.png", faces / "b.png", "-o", tmp_path / "r")
    for frame, name in ((0, "a"), (3, "b")):
        difference = values(output / f"frame-{frame:04d}.png") - values(
            tmp_path / "r" / f"{name}-reconstruction.png"
        )
        # another batch size: one level at most, from rounding
        assert np.abs(difference).max() <= 1
    # a frame's code decodes to the frame
    assert tiny("decode", output / "frame-0001.safetensors", "-o", tmp_path / "d").code == 0
    assert np.abs(values(tmp_path / "d" / "frame-0001.png") - values(output / "frame-0001.png")).max() <= 1


def test_equal_inputs_give_equal_frames(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    result = tiny("interpolate", faces / "a.png", faces / "a.png", "--frames", 3, "-o", tmp_path)
    assert result.code == 0
    frames = [values(tmp_path / f"frame-{i:04d}.png") for i in range(3)]
    assert all(np.abs(frame - frames[0]).max() <= 1 for frame in frames)


def test_through_three_images_and_codes(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    tiny("encode", faces, "-o", tmp_path / "codes", "--steps", 2)
    through = [tmp_path / "codes" / "a.safetensors", faces / "b.png", tmp_path / "codes" / "c.safetensors"]
    result = tiny("interpolate", *through, "--frames", 3, "-o", tmp_path / "o", "--steps", 2)
    assert result.code == 0
    assert [Path(line).name for line in result.lines[:5]] == [f"frame-{i:04d}.png" for i in range(5)]
    assert len(result.lines) == 7


@pytest.mark.parametrize("both", [True, False])
def test_codes_without_x_T(tiny: Rdm, faces: Path, tmp_path: Path, both: bool) -> None:
    tiny("encode", faces, "-o", tmp_path / "codes", "--no-x-t")
    ends = [
        tmp_path / "codes" / "a.safetensors",
        tmp_path / "codes" / "b.safetensors" if both else faces / "b.png",
    ]
    result = tiny("interpolate", *ends, "-o", tmp_path / "o", "-q")
    assert result.code == (0 if both else 1)
    assert both or "encode both alike" in result.err


def test_a_trajectory_has_the_same_ends_and_another_middle(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    ends = (faces / "a.png", faces / "b.png")
    frames = {}
    for way in ("lerp", "trajectory"):
        command = ("interpolate", *ends, "--frames", 3, "-o", tmp_path / way)
        assert tiny(*command, *(() if way == "lerp" else ("--path", way))).code == 0
        frames[way] = [values(tmp_path / way / f"frame-{i:04d}.png") for i in range(3)]
    apart = [np.abs(a - b).max() for a, b in zip(frames["lerp"], frames["trajectory"], strict=True)]
    assert apart[0] <= 1 and apart[2] <= 1 and apart[1] > 1
    assert not list((tmp_path / "trajectory").glob("*.safetensors"))
    assert len(list((tmp_path / "lerp").glob("*.safetensors"))) == 3


def test_a_trajectory_needs_both_x_T(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    tiny("encode", faces, "-o", tmp_path / "codes", "--no-x-t")
    ends = [tmp_path / "codes" / f"{name}.safetensors" for name in "ab"]
    result = tiny("interpolate", *ends, "--path", "trajectory", "-o", tmp_path / "o", "-q")
    assert result.code == 1 and "a code has none" in result.err and not (tmp_path / "o").exists()
