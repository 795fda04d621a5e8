"""--range on every command that reads images, and what is said of images that are read in part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from rdm_cli.cli import app
from rdm_cli.codes.code import Codes

Rdm = Callable[..., Any]

WAYS = (
    ("encode", "--no-x-t"), ("reconstruct", "--steps", 1), ("manipulate", "--attr", "hat", "--steps", 1),
)  # fmt: skip


def leaves(command: Any) -> list[Any]:
    children = getattr(command, "commands", None)
    return [leaf for child in children.values() for leaf in leaves(child)] if children else [command]


def test_every_command_that_reads_images_can_be_told_the_range() -> None:
    options = [{name for p in leaf.params for name in p.opts} for leaf in leaves(typer.main.get_command(app))]
    assert [("--max-pixels" in names) == ("--range" in names) for names in options] == [True] * len(options)
    assert sum("--range" in names for names in options) > 10


@pytest.fixture
def scan(faces: Path) -> Path:
    """``faces/scan.png``: the picture ``a.png`` in grey, as 12 bits in 16."""
    grey = np.asarray(Image.open(faces / "a.png").convert("L"), dtype=np.uint16)
    Image.fromarray((grey * np.uint16(4095 // 255)).astype(np.uint16)).save(faces / "scan.png")
    return faces / "scan.png"


def test_a_range_that_is_not_known_fails_by_name_until_it_is_said(
    tiny: Rdm, scan: Path, tmp_path: Path
) -> None:
    for verb, *options in WAYS:
        words = (verb, scan, scan.parent / "a.png", "-o", tmp_path / verb, *options, "-q")
        result = tiny(*words)
        assert result.code == 3 and result.err.startswith(f"rdm: {scan}: its uint16 values are ")
        assert "which do not fit the usual range (0 to 65,535)" in result.err
        assert result.err.endswith("--range 0,4095\n")
        assert tiny(*words, "--range", "0,4095").code == 0
    ends = ("interpolate", scan, scan.parent / "a.png", "-o", tmp_path / "i", "--frames", 2, "--steps", 1)
    assert "values are" in tiny(*ends).err
    assert tiny(*ends, "--range", "0,4095").code == 0


def test_a_wrong_range_is_a_usage_error(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    for verb, *options in (*WAYS, ("train", "diffae")):
        result = (
            tiny(verb, faces, "-o", tmp_path / "o", *options, "--range", "9,2")
            if verb != "train"
            else tiny(verb, *options, faces, "-o", tmp_path / "o", "--range", "9,2")
        )
        assert result.code == 2
        if verb != "train":
            assert result.err.startswith("rdm: --range 9,2: two numbers are needed")
    assert not (tmp_path / "o").exists()


def test_a_code_records_the_range_and_is_made_again_for_another(
    tiny: Rdm, scan: Path, tmp_path: Path
) -> None:
    words = ("encode", scan, "-o", tmp_path, "--no-x-t")
    found = []
    for text, expected in (("0,4095", (0, 4095)), ("-100,5000", (-100, 5000))):
        assert "encoded 1 image" in tiny(*words, "--range", text).err
        codes = Codes.load(tmp_path / "scan.safetensors")
        assert codes.infos[0].value_range == expected
        found.append(codes.z)
        assert "1 already done" in tiny(*words, "--range", text).err
    assert (found[0] != found[1]).any()


def pages(*values: int) -> list[Image.Image]:
    return [Image.new("L", (16, 16), value) for value in values]


def test_pages_that_are_left_out_are_said_by_name(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    first, *others = pages(90, 10, 20)
    first.save(faces / "stack.tif", save_all=True, append_images=others)
    first.save(faces / "moving.gif", save_all=True, append_images=others)
    for verb, *options in WAYS:
        words = (verb, faces / "stack.tif", faces / "moving.gif", "-o", tmp_path / verb, *options)
        result = tiny(*words)
        assert result.code == 0
        for name in ("stack.tif", "moving.gif"):
            assert result.err.count(f"rdm: {faces}/{name}: page 1 of 3 is read\n") == 1
    content = (faces / "stack.tif").read_bytes()
    result = tiny("encode", "-", "-o", tmp_path / "one", "--no-x-t", stdin=content)
    assert result.code == 0 and result.err.startswith("rdm: -: page 1 of 3 is read\n")
    assert tiny("encode", "-", "-o", tmp_path / "one", "--no-x-t", "-q", stdin=content).err == ""


def test_pages_are_said_once_by_an_evaluation(rdm: Rdm, tiny_bundle: Path, tmp_path: Path) -> None:
    """Which reads each image once for every number of steps."""
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for i in range(3):
        picture = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        picture.save(tmp_path / "in" / f"{i}.tif", save_all=True, append_images=[picture] if i == 1 else [])
    said = rdm("evaluate", "reconstruction", tiny_bundle, tmp_path / "in", "--steps", "1,2")
    assert said.code == 0 and said.err.count(f"rdm: {tmp_path}/in/1.tif: page 1 of 2 is read\n") == 1


def test_the_api_warns_of_pages(tiny_bundle: Path, tmp_path: Path) -> None:
    from rdm_cli.pipeline.pipeline import open_pipeline

    first, *others = pages(90, 10)
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    pipeline = open_pipeline(str(tiny_bundle))
    with pytest.warns(UserWarning, match=r"a\.tif: page 1 of 2 is read"):
        pipeline.load_images([tmp_path / "a.tif"])
    said: list[tuple[str, str]] = []
    told = open_pipeline(str(tiny_bundle), on_remark=lambda *remark: said.append(remark))
    told.load_images([tmp_path / "a.tif"])
    assert said == [(str(tmp_path / "a.tif"), "page 1 of 2 is read")]


def test_a_range_reaches_training(rdm: Rdm, scan: Path, tmp_path: Path) -> None:
    from rdm_cli.data.dataset import ImageFolder

    with pytest.warns(UserWarning, match=r"scan\.png: its uint16 values are"):
        ImageFolder(scan.parent, size=16)[4]
    images = ImageFolder(scan.parent, size=16, value_range=(0, 4095), on_bad=lambda *_: pytest.fail())
    grey = np.asarray(Image.open(scan.parent / "a.png").convert("L"), dtype=np.float64)
    index = [path.name for path in images.paths].index("scan.png")
    np.testing.assert_allclose(images[index][0].numpy(), grey * (4095 // 255) * 255 / 4095, atol=0.51)
