"""rdm manipulate, and rdm reconstruct beside it: pictures that follow z."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rdm_cli.codes.code import Codes

Rdm = Callable[..., Any]


def values(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


def test_an_edit_of_nothing_is_the_reconstruction(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    assert tiny("manipulate", faces / "a.png", "--attr", "hat", "--scale", 0, "-o", tmp_path).code == 0
    assert tiny("reconstruct", faces / "a.png", "-o", tmp_path).code == 0
    difference = values(tmp_path / "a-hat+0.png") - values(tmp_path / "a-reconstruction.png")
    assert np.abs(difference).max() <= 1


def test_edits_of_images_and_of_codes_agree(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    edit = ("--attr", "smiling", "--scale", "-0.5", "--attr", "hat", "--scale", "1")
    tiny("encode", faces / "a.png", "-o", tmp_path / "codes")
    result = tiny("manipulate", faces / "a.png", *edit, "-o", tmp_path / "i", "--json")
    assert result.objects[0]["edits"] == [{"smiling": -0.5, "hat": 1.0}]
    assert tiny("manipulate", tmp_path / "codes", *edit, "-o", tmp_path / "c").code == 0
    edited = Codes.load(tmp_path / "i" / "a-smiling-0.5-hat+1.safetensors")
    assert edited.infos[0].edits == ("smiling:-0.5", "hat:1")
    for name in ("a-smiling-0.5-hat+1.png",):
        assert np.abs(values(tmp_path / "i" / name) - values(tmp_path / "c" / name)).max() <= 1
    tiny("reconstruct", faces / "a.png", "-o", tmp_path)
    assert (
        np.abs(
            values(tmp_path / "i" / "a-smiling-0.5-hat+1.png") - values(tmp_path / "a-reconstruction.png")
        ).max()
        > 3
    )
    # edits can be edited further
    assert (
        tiny(
            "manipulate",
            tmp_path / "i" / "a-smiling-0.5-hat+1.safetensors",
            "--attr",
            "hat",
            "-o",
            tmp_path / "j",
        ).code
        == 0
    )
    again = Codes.load(tmp_path / "j" / "a-smiling-0.5-hat+1-hat+0.3.safetensors")
    assert again.infos[0].edits == ("smiling:-0.5", "hat:1", "hat:0.3")


def test_a_strip_of_scales(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    result = tiny(
        "manipulate", faces / "a.png", "--attr", "hat", "--scales", "-1,0,1", "-o", tmp_path, "--tile", 0
    )
    assert result.code == 0 and [p.name for p in tmp_path.glob("a-*")] == ["a-hat-1+0+1.png"]
    strip = values(tmp_path / "a-hat-1+0+1.png")
    assert strip.shape == (16, 3 * 16 + 2 * 2, 3)
    left, right = strip[:, :16], strip[:, 36:]
    assert np.abs(left - right).max() > 3
    again = tiny(
        "manipulate", faces / "a.png", "--attr", "hat", "--scales=-1", "-o", tmp_path / "one", "--tile", 0
    )
    assert again.code == 0
    assert np.abs(values(tmp_path / "one" / "a-hat-1.png") - left).max() <= 1


@pytest.mark.parametrize("verb", [("manipulate", "--attr", "hat"), ("reconstruct",)])
def test_random_noise_depends_on_the_seed_alone(
    tiny: Rdm, faces: Path, tmp_path: Path, verb: tuple[str, ...], pixels_of: Callable[[Path], bytes]
) -> None:
    pictures = []
    for i, seed in enumerate((1, 1, 2)):
        tiny(*verb, faces / "a.png", "--x-t", "random", "--seed", seed, "-o", tmp_path / str(i))
        made = (tmp_path / str(i)).glob("a-*.png")
        pictures.append(pixels_of(next(p for p in made if "side" not in p.name)))
    assert pictures[0] == pictures[1] != pictures[2]


def test_reconstruction_measures(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    result = tiny("reconstruct", faces, "-o", tmp_path, "--variations", 2, "--json", "--tile", 0)
    *items, last = result.objects
    assert len(items) == last["num_images"] == 5
    for name in ("mse", "psnr_db", "ssim"):
        assert last["mean"][name] == pytest.approx(np.mean([item[name] for item in items]))
    for item in items:
        side = values(Path(item["side_by_side"]))
        assert side.shape == (16, 4 * 16 + 3 * 2, 3)
        original, ours = side[:, :16], side[:, 18:34]
        assert np.array_equal(original, values(Path(item["input"])))
        assert np.array_equal(ours, values(Path(item["output"])))
        # what is written is rounded to 8 bits, what is measured is not
        assert item["mse"] == pytest.approx(np.mean((original - ours) ** 2) / 255**2, rel=0.05)
        first, second = side[:, 36:52], side[:, 54:]
        assert np.abs(first - second).max() > 3
    text = tiny("reconstruct", faces / "a.png", "-o", tmp_path / "one")
    assert len(text.lines) == 1 and "PSNR" in text.out and "dB" in text.out  # one image has no mean
