"""rdm interpolate: frames, strip, animation, and ends that are the reconstructions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rdm_cli.codes.code import read_info

Rdm = Callable[..., Any]


def values(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


def test_between_two_images(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "o"
    result = tiny(
        "interpolate", faces / "a.png", faces / "b.png", "--frames", 4, "-o", output, "--json", "--tile", 0
    )
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


def test_through_the_prior_ends_are_the_same_and_the_middle_is_another(
    rdm: Rdm, tiny_bundle: Path, told: Path, faces: Path, tmp_path: Path
) -> None:
    """By the prior where it predicts v; the straight way is asked for, or all that there is."""
    ends = (faces / "a.png", faces / "b.png")
    frames = {}
    for name, bundle, way in (
        ("usual", told, ()),
        ("prior", told, ("--path", "prior")),
        ("lerp", told, ("--path", "lerp")),
        ("of-before", tiny_bundle, ()),
    ):
        output = tmp_path / name
        assert rdm("interpolate", *ends, "--frames", 3, "-b", bundle, *way, "-o", output).code == 0
        frames[name] = [values(output / f"frame-{i:04d}.png") for i in range(3)]
        assert len(list(output.glob("*.safetensors"))) == 3
    assert all(np.array_equal(a, b) for a, b in zip(frames["usual"], frames["prior"], strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(frames["lerp"], frames["of-before"], strict=True))
    apart = [np.abs(a - b).max() for a, b in zip(frames["prior"], frames["lerp"], strict=True)]
    assert apart[0] <= 1 and apart[2] <= 1 and apart[1] > 1
    # another path is another run
    refused = rdm("interpolate", *ends, "--frames", 3, "-b", told, "-o", tmp_path / "lerp", "-q")
    assert refused.code == 1 and "frame-0000.png: is there already" in refused.err


def test_without_a_prior_there_is_no_way_through_it(
    rdm: Rdm, told: Path, faces: Path, tmp_path: Path
) -> None:
    shutil.rmtree(told / "prior")
    command = (
        "interpolate",
        faces / "a.png",
        faces / "b.png",
        "--frames",
        3,
        "-b",
        told,
        "-o",
        tmp_path / "o",
    )
    refused = rdm(*command, "--path", "prior", "-q")
    assert refused.code != 0 and "has no latent prior" in refused.err and not (tmp_path / "o").exists()
    assert rdm(*command).code == 0


def test_a_trajectory_needs_both_x_T(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    tiny("encode", faces, "-o", tmp_path / "codes", "--no-x-t")
    ends = [tmp_path / "codes" / f"{name}.safetensors" for name in "ab"]
    result = tiny("interpolate", *ends, "--path", "trajectory", "-o", tmp_path / "o", "-q")
    assert result.code == 1 and "a code has none" in result.err and not (tmp_path / "o").exists()


@pytest.mark.parametrize("way", ["lerp", "trajectory"])
def test_ends_of_different_steps_are_the_reconstructions(
    tiny: Rdm, faces: Path, tmp_path: Path, way: str
) -> None:
    """Each end decodes as it was made, be it a code in few steps, one in many, or an image in others."""
    for name, steps in (("a", 2), ("b", 9)):
        tiny("encode", faces / f"{name}.png", "-o", tmp_path / "codes", "--steps", steps)
    tiny("decode", tmp_path / "codes", "-o", tmp_path / "d")
    tiny("reconstruct", faces / "c.png", "-o", tmp_path / "r", "--steps", 4)
    few, many = (tmp_path / "codes" / f"{name}.safetensors" for name in "ab")
    runs = {
        "path": ((few, many), ("d/a.png", "d/b.png")),
        "back": ((many, few), ("d/b.png", "d/a.png")),
        "mixed": ((faces / "c.png", many, "--steps", 4), ("r/c-reconstruction.png", "d/b.png")),
    }
    for name, (inputs, expected) in runs.items():
        output = tmp_path / name
        done = tiny("interpolate", *inputs, "--frames", 3, "--path", way, "--tile", 0, "-o", output)
        assert done.code == 0
        strip = values(output / "strip.png")
        for end, picture in ((strip[:, :16], expected[0]), (strip[:, -16:], expected[1])):
            assert np.abs(end - values(tmp_path / picture)).max() <= 1
    output = tmp_path / "path"
    if way == "lerp":
        made = [read_info(output / f"frame-{i:04d}.safetensors").steps for i in range(3)]
        assert made == [2, 6, 9]
        # a frame's code decodes to the frame, the last as the first
        frame = output / "frame-0002"
        assert tiny("decode", f"{frame}.safetensors", "-o", tmp_path / "again").code == 0
        assert np.abs(values(tmp_path / "again" / "frame-0002.png") - values(Path(f"{frame}.png"))).max() <= 1


def test_codes_of_one_path_are_not_another_paths(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    """The same command may be run again; whatever else stands in the folder is refused, before any work."""
    ends, output = (faces / "a.png", faces / "b.png"), tmp_path / "o"
    command = ("interpolate", *ends, "--frames", 4, "-o", output)
    assert tiny(*command).code == 0
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    assert tiny(*command).code == 0
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    for other in (
        ("interpolate", *ends, "--frames", 3, "-o", output),
        ("interpolate", faces / "a.png", faces / "c.png", "--frames", 4, "-o", output),
        (*command, "--path", "trajectory"),
        (*command, "--steps", 2),
    ):
        refused = tiny(*other, "-q")
        assert (
            refused.code == 1
            and "frame-0000.png: is there already" in refused.err
            and "--force" in refused.err
        )
        assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    (output / "animation.gif").write_bytes(b"my own")
    refused = tiny(*command, "-q")
    assert refused.code == 1 and "animation.gif: is there already, and rdm did not make it" in refused.err
    assert tiny(*command, "--force").code == 0
    assert (output / "animation.gif").read_bytes() == before["animation.gif"]
