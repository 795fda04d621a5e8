"""Sheets: pictures as large as asked, with honest pixels, and captions that stay on the picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageFont

from rdm_cli.data.images.pixels import grid
from rdm_cli.data.images.sheet import GROUND, Tile, enlarged, lay_out, sheet, shortened

BACKGROUND = np.array(ImageColor.getrgb(GROUND), dtype=np.uint8)


def noise(size: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def ink(picture: Image.Image) -> np.ndarray:
    """Where something is drawn on the ground, (H, W)."""
    return (np.asarray(picture) != BACKGROUND).any(axis=2)


@pytest.mark.parametrize(
    ("size", "asked", "given"),
    [(64, 256, 256), (96, 256, 288), (128, 256, 256), (300, 256, 300), (64, 1, 64)],
)
def test_a_picture_is_enlarged_by_a_whole_number(size: int, asked: int, given: int) -> None:
    small = noise(size)
    large = enlarged(small, asked)
    assert large.size == (given, given)
    blocks = np.asarray(large).reshape(size, given // size, size, given // size, 3)
    assert (blocks == np.asarray(small)[:, None, :, None]).all()  # every pixel is a square of its colour


def test_captions_are_there_and_change_no_picture() -> None:
    pictures = [noise(64, seed) for seed in range(3)]
    plain = lay_out([[Tile(enlarged(p, 256)) for p in pictures]], gap=16)
    told = sheet([Tile(p, "face.png", "41.20 dB") for p in pictures])
    assert plain.size == (3 * 256 + 2 * 16, 256) and told.width == 3 * 256 + 4 * 16
    for i, picture in enumerate(pictures):
        at = 16 + i * 272
        shown = told.crop((at, 16, at + 256, 272))
        assert shown.tobytes() == enlarged(picture, 256).tobytes()
        assert ink(told.crop((at, 272, at + 256, told.height))).any()
    without = sheet([Tile(p) for p in pictures])
    assert without.height < told.height
    other = sheet([Tile(p, "face.png", "41.21 dB") for p in pictures])
    assert other.tobytes() != told.tobytes()
    assert sheet([Tile(p, "face.png", "41.20 dB") for p in pictures]).tobytes() == told.tobytes()


def test_0_leaves_all_pixels_as_they_are() -> None:
    pictures = [noise(16, seed) for seed in range(4)]
    bare = sheet([Tile(p, "a caption") for p in pictures], 2, tile=0, title="a title")
    assert bare.tobytes() == grid(pictures, 2).tobytes() and bare.size == (34, 34)


@pytest.mark.parametrize(
    "name", ["x" * 400 + ".png", "a\n\x1b]0;owned\x07\u202e.png", "\udce9.png", "Gr\u00fc\u00dfe.png"]
)
def test_no_name_leaves_its_place(name: str) -> None:
    """Too long, or of characters that are no letters: one line, within the tile, with its end still there."""
    for shown in (
        sheet([Tile(noise(64), name, name)] * 2, title=name),
        lay_out([[Tile(noise(64))]], names=[name]),
    ):
        drawn = ink(shown)
        assert (
            not drawn[:, -5:].any()
            and not drawn[-5:].any()
            and not drawn[:, :5].any()
            and not drawn[:5].any()
        )
    told = sheet([Tile(noise(64), name)] * 2)
    between = ink(told)[272:, 16 + 256 + 1 : 16 + 272 - 2]  # letters may lean out by a pixel
    assert not between.any()  # no caption runs into the next


def test_a_long_name_is_shortened_in_the_middle() -> None:
    font = ImageFont.load_default(16)
    short = shortened("holiday-in-the-mountains-2024-reconstruction.png", font, 200)
    assert short.startswith("holiday") and short.endswith("ion.png") and "..." in short
    assert font.getlength(short) <= 200
    assert shortened("a.png", font, 200) == "a.png" and shortened("a.png", font, 3) == ""
    assert (
        shortened("\u00fcn\u0131", font, 200)[0] == "u"
    )  # what the font lacks, it draws as its plain letter


def test_a_long_strip_goes_on_in_the_next_row() -> None:
    one = sheet([Tile(noise(16))] * 9, tile=16)
    two = sheet([Tile(noise(16))] * 14, tile=16)
    assert one.height == 16 and two.height > 32 and two.width < one.width
    with pytest.raises(ValueError, match="no pictures"):
        lay_out([[]])


def test_rows_and_columns_have_names() -> None:
    tiles = [[Tile(noise(64, i)) for i in range(2)] for _ in range(2)]
    bare = lay_out(tiles, gap=8)
    named = lay_out(tiles, names=["image", "reconstruction"], heads=["first", "second"], gap=8)
    left, top = named.width - bare.width - 8, named.height - bare.height - 8
    drawn = ink(named)
    assert drawn[:, :left].any() and drawn[:top].any()
    assert named.crop((left, top, left + 64, top + 64)).tobytes() == noise(64, 0).tobytes()
