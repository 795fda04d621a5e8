"""rdm sample: pictures that depend on (seed, number) alone, and conditions."""

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


def test_samples_with_codes_and_grid(tiny: Rdm, tmp_path: Path) -> None:
    result = tiny("sample", "-n", 5, "--seed", 3, "-o", tmp_path / "o", "--columns", 3, "--json", "--tile", 0)
    assert result.code == 0
    *samples, sheet = result.objects
    assert [s["draw"] for s in samples] == list(range(5))
    assert sheet["kind"] == "grid" and sheet["draw"] is None
    assert values(Path(sheet["output"])).shape == (16 * 2 + 2, 16 * 3 + 2 * 2, 3)
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == sorted(
        [*(f"{i:06d}.{s}" for i in range(5) for s in ("png", "safetensors")), "grid.png"]
    )
    pictures = [values(Path(s["output"])) for s in samples]
    assert all(np.abs(a - b).max() > 3 for a, b in zip(pictures, pictures[1:], strict=False))
    # a sample's code decodes to the sample, and can be edited
    codes = [s["code"] for s in samples]
    assert tiny("decode", *codes, "-o", tmp_path / "d").code == 0
    for i, picture in enumerate(pictures):
        assert np.abs(values(tmp_path / "d" / f"{i:06d}.png") - picture).max() <= 1
    assert tiny("manipulate", codes[0], "--attr", "hat", "-o", tmp_path / "e").code == 0


def test_a_sample_is_keyed_by_seed_and_number(tiny: Rdm, tmp_path: Path) -> None:
    def draw(name: str, num: int, seed: int) -> dict[str, bytes]:
        command = ("sample", "-n", num, "--seed", seed, "-o", tmp_path / name, "--batch-size", 2)
        assert tiny(*command).code == 0
        return {p.name: p.read_bytes() for p in (tmp_path / name).iterdir() if p.name != "grid.png"}

    many = draw("many", 5, 1)
    assert draw("again", 5, 1) == many
    assert draw("few", 3, 1) == {n: many[n] for n in many if int(n[:6]) < 3}
    assert not set(draw("other", 5, 2).values()) & set(many.values())


@pytest.mark.parametrize("unlike", [False, True])
def test_like_five(tiny: Rdm, tmp_path: Path, unlike: bool) -> None:
    """The command line alone; what the acceptance is worth is tests/jobs/test_conditional.py's.

    The examples are codes of the prior itself: of the random bundle's images none is like its draws.
    """
    for name, seed in (("liked", 7), ("others", 8)):
        tiny("sample", "-n", 5, "--seed", seed, "-o", tmp_path / name)
        for picture in (tmp_path / name).glob("*.png"):
            picture.unlink()
    options = ("--unlike", tmp_path / "others") if unlike else ()
    liked = ("--like", tmp_path / "liked")
    result = tiny("sample", "-n", 2, *liked, *options, "--max-draws", 20_000, "-o", tmp_path / "o", "--json")
    assert result.code == 0, result.err
    assert f"5 examples from {tmp_path / 'liked'}" in result.err
    assert "accepted 2 of " in result.err and "%" in result.err
    draws = [o["draw"] for o in result.objects if o["kind"] == "sample"]
    assert len(draws) == 2 and (tmp_path / "o" / f"{draws[0]:06d}.png").is_file()


def test_like_images_that_the_prior_never_draws(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    """The best-scoring draws are kept, and nobody takes them for accepted ones."""
    result = tiny("sample", "-n", 2, "--like", faces, "--max-draws", 300, "-o", tmp_path / "o", "--json")
    assert result.code == 3 and f"5 examples from {faces}" in result.err
    assert "rdm: 2 of 2 samples were not accepted: they are the best of 300 draws; give more" in result.err
    *samples, sheet, error = result.objects
    assert [s["accepted"] for s in samples] == [False, False] and sheet["accepted"] is None
    assert "2 of 2 samples were not accepted" in error["error"]
    assert all(Path(s["output"]).is_file() and Path(s["code"]).is_file() for s in samples)


def test_with_a_stored_attribute(tiny: Rdm, tmp_path: Path) -> None:
    result = tiny("sample", "-n", 3, "--attr", "smiling", "-o", tmp_path / "o")
    assert result.code == 0 and "accepted 3 of " in result.err
    hopeless = tiny("sample", "-n", 60, "--attr", "smiling", "--max-draws", 5, "-o", tmp_path / "h", "-q")
    assert hopeless.code == 2 and hopeless.out == ""
    (line,) = hopeless.err.splitlines()
    assert line == "rdm: --max-draws 5: that many draws cannot give 60 samples"
    assert not (tmp_path / "h").exists()


def test_a_prior_that_knows_the_attributes_needs_no_rejection(rdm: Rdm, told: Path, tmp_path: Path) -> None:
    def draw(name: str, *more: object) -> Any:
        return rdm("sample", "-n", 3, "-b", told, "-o", tmp_path / name, *more)

    result = draw("serious", "--attr", "hat=yes,glasses=no", "--json")
    assert result.code == 0
    assert "drawing with the prior's attributes 'hat', not 'glasses'; no draw is rejected" in result.err
    assert [o["draw"] for o in result.objects if o["kind"] == "sample"] == [0, 1, 2]
    for name, asked in (("plain", ()), ("bare", ("--attr", "hat=no"))):
        assert draw(name, *asked).code == 0
    found = [values(tmp_path / name / "000000.png") for name in ("serious", "plain", "bare")]
    assert all(np.abs(found[i] - found[i - 1]).max() > 3 for i in range(3))
    # the same folder takes no samples of other attributes
    refused = draw("serious", "--attr", "hat=yes,glasses=yes", "-q")
    assert refused.code == 1 and "000000.png: is there already" in refused.err


def test_attributes_that_the_prior_does_not_know_are_accepted_by(
    rdm: Rdm, told: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    mixed = ("sample", "-n", 2, "--attr", "smiling=no,hat=yes", "--prior-steps", 2)
    for name, bundle in (("told", told), ("plain", tiny_bundle)):
        result = rdm(*mixed, "-b", bundle, "-o", tmp_path / name)
        assert "accepting draws by the stored attributes not 'smiling', 'hat'" in result.err
        assert "draws (" in result.err and result.code in (0, 3)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ("hat,hat=no", "--attr hat,hat=no: hat is asked for and ruled out at once"),
        ("hat=maybe", "--attr hat=maybe: 'hat=maybe' is no attribute that is asked for"),
        ("hat,,smiling", "--attr hat,,smiling: 'nothing' is no attribute that is asked for"),
        ("beard=no", "no attribute named 'beard'; known: smiling"),
    ],
)
def test_attributes_that_cannot_be_asked_for(
    rdm: Rdm, told: Path, tiny_bundle: Path, tmp_path: Path, asked: str, line: str
) -> None:
    for bundle in (tiny_bundle, told):
        refused = rdm("sample", "--attr", asked, "-b", bundle, "-o", tmp_path / "o", "-q")
        assert refused.code == 2 and line in refused.err and refused.err.count("\n") == 1
        assert not (tmp_path / "o").exists()
