"""Grey of more than 8 bits, floats, 16-bit colours: the right picture, or a refusal with what was found."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import tifffile
from PIL import Image

from rdm_cli.data.images.pixels import load_rgb
from rdm_cli.data.images.value_range import parse_range
from rdm_cli.errors import ImageError, UsageError

SHARE = np.linspace(0, 1, 64 * 64).reshape(64, 64)  # of white
COLOUR = np.stack([SHARE, SHARE.T, 1 - SHARE], axis=-1)


def grey_of(path: Path, **options: Any) -> np.ndarray:
    """The levels of an image that must come out grey, and of which nothing is remarked."""
    image = load_rgb(path, on_remark=lambda name, text: pytest.fail(text), **options)
    pixels = np.asarray(image)
    np.testing.assert_array_equal(pixels, pixels[..., :1].repeat(3, axis=2))
    return pixels[..., 0]


def write_tiff(path: Path, values: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, values, **({"photometric": "minisblack"} | options))
    return path


def write_png(path: Path, values: np.ndarray, *, transparent: tuple[int, ...] = ()) -> Path:
    """16-bit grey or RGB, of which one value or colour may be transparent; Pillow writes no such PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2").reshape(height, -1))
    header = struct.pack(">IIBBBBB", width, height, 16, 0 if values.ndim == 2 else 2, 0, 0, 0)
    key = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + key + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )  # fmt: skip
    return path


LEVELS = np.round(SHARE * 255)

TAKEN = {
    "floats up to 1": (SHARE, "f4"),
    "floats in [-1, 1]": (SHARE * 2 - 1, "f4"),
    "floats up to 255": (SHARE * 255, "f4"),
    "int16 levels": (LEVELS, "i2"),
    "int32 levels": (LEVELS, "i4"),
    "uint32 levels": (LEVELS, "u4"),
    "int32 of 16 bits": (SHARE * 65535, "i4"),
    "uint32 of 16 bits": (SHARE * 65535, "u4"),
    "uint32 of 32 bits": (SHARE * (2**32 - 1), "u4"),
    "uint16": (SHARE * 65535, "u2"),
}


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", TAKEN)
def test_usual_ranges_give_the_same_picture(
    tmp_path: Path, kind: str, order: str, compression: str | None
) -> None:
    values, dtype = TAKEN[kind]
    path = write_tiff(tmp_path / "a.tif", values.astype(dtype), byteorder=order, compression=compression)
    if dtype == "u4" and order == ">":
        with pytest.raises(ImageError, match=r"a\.tif: a TIFF of a kind that Pillow does not read"):
            load_rgb(path)
        return
    # a level of 255 was cut or rounded to an integer before: half a level, and half when it is rounded again
    np.testing.assert_allclose(grey_of(path), SHARE * 255, atol=1)


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize(("dtype", "white"), [("u1", 255), ("u2", 65535), ("f4", 1)])
def test_min_is_white_is_not_inverted(
    tmp_path: Path, dtype: str, white: int, compression: str | None
) -> None:
    values = ((1 - SHARE) * white).round(0 if white > 1 else 9).astype(dtype)
    path = write_tiff(tmp_path / "a.tif", values, photometric="miniswhite", compression=compression)
    np.testing.assert_allclose(grey_of(path), SHARE * 255, atol=0.51)


@pytest.mark.parametrize("overshoot", [1.003, 400.0, float("inf")])
def test_one_value_beyond_white_changes_nothing_else(tmp_path: Path, overshoot: float) -> None:
    values = SHARE.astype("f4")
    values[3, 7] = overshoot
    path = write_tiff(tmp_path / "a.tif", values)
    said: list[str] = []
    levels = np.asarray(load_rgb(path, on_remark=lambda name, text: said.append(text)))[..., 0]
    expected = (SHARE * 255).round()
    expected[3, 7] = 255
    np.testing.assert_allclose(levels, expected, atol=1e-9)
    one = ["1 of its values is not finite and read as black (+inf as white)"]
    assert said == (one if overshoot == float("inf") else [])


def test_values_that_are_not_finite_are_counted_and_decide_nothing(tmp_path: Path) -> None:
    values = SHARE.astype("f4")
    values[0, :3] = [np.nan, -np.inf, np.inf]
    path = write_tiff(tmp_path / "a.tif", values)
    said: list[tuple[str, str]] = []
    levels = np.asarray(load_rgb(path, on_remark=lambda *remark: said.append(remark)))[..., 0]
    assert levels[0, :3].tolist() == [0, 0, 255] and levels[-1, -1] == 255
    assert said == [(str(path), "3 of its values are not finite and read as black (+inf as white)")]
    with pytest.raises(ImageError, match=r"a\.tif: none of its values is a finite number"):
        load_rgb(write_tiff(path, np.full((4, 4), np.nan, "f4")))


REFUSED = {
    "floats up to 8": (SHARE * 8, "f4", "0 to 8", "0,8"),
    "floats around 0.5": (SHARE - 0.5, "f4", "-0.5 to 0.5", "-0.5,0.5"),
    "nearly black fractions": (SHARE / 100, "f4", "0 to 0.01", "0,0.01"),
    "Hounsfield units": (SHARE * 4095 - 1024, "i2", "-1,024 to 3,071", "-1024,3071"),
    "all of int16": (SHARE * 65535 - 32768, "i2", "-32,768 to 32,767", "-32768,32767"),
    "int8": (SHARE * 255 - 128, "i1", "-128 to 127", "-128,127"),
    "12 bits in 16": (SHARE * 4095, "u2", "0 to 4,095", "0,4095"),
    "14 bits in 16": (SHARE * 16383, "u2", "0 to 16,383", "0,16383"),
    "one grey": (SHARE * 0 + 0.2, "f4", "0.2 to 0.2", "0,1"),
    "12 bits in 32": (SHARE * 4095, "u4", "0 to 4,095", "0,4095"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_ranges_are_refused_with_what_was_found_until_they_are_said(tmp_path: Path, kind: str) -> None:
    values, dtype, found, option = REFUSED[kind]
    path = write_tiff(tmp_path / "a.tif", np.round(values, 9 if dtype == "f4" else 0).astype(dtype))
    with pytest.raises(ImageError) as caught:
        load_rgb(path)
    assert caught.value.message.startswith(f"{path}: its ") and f" values are {found}" in caught.value.message
    assert caught.value.hint == f"say it with value_range, as in value_range {option}"
    black, white = parse_range(option)
    expected = (values - black) / (white - black) * 255
    np.testing.assert_allclose(grey_of(path, value_range=(black, white)), expected, atol=1)


def test_12_bits_with_a_hot_pixel_are_still_12_bits(tmp_path: Path) -> None:
    values = np.round(SHARE * 4095).astype("u2")
    values[9, 9] = 65535
    path = write_png(tmp_path / "a.png", values)
    with pytest.raises(ImageError, match="are 0 to 65,535, which do not fit the usual range") as caught:
        load_rgb(path)
    assert str(caught.value.hint).endswith("value_range 0,4095")


@pytest.mark.parametrize("dtype", ["u2", "i4", "f4"])
def test_black_and_a_few_marks_on_black_are_what_they_are(tmp_path: Path, dtype: str) -> None:
    values = np.zeros((64, 64), dtype)
    assert not grey_of(write_tiff(tmp_path / "black.tif", values)).any()
    values[5, 5] = 1 if dtype == "f4" else 65535
    levels = grey_of(write_tiff(tmp_path / "mark.tif", values))
    assert levels[5, 5] == 255 and levels.sum() == 255


def test_a_transparent_grey_of_16_bits_is_white(tmp_path: Path) -> None:
    values = np.round(SHARE * 65535).astype("u2")
    expected = np.round(values / 257)
    expected[values == values[7, 8]] = 255
    path = write_png(tmp_path / "a.png", values, transparent=(int(values[7, 8]),))
    np.testing.assert_array_equal(grey_of(path), expected)


def test_colours_of_16_bits(tmp_path: Path) -> None:
    wide = np.round(COLOUR * 65535).astype("u2")
    for path in (
        write_png(tmp_path / "a.png", wide),
        write_tiff(tmp_path / "a.tif", wide, photometric="rgb"),
        write_tiff(
            tmp_path / "planes.tif", wide.transpose(2, 0, 1).copy(), photometric="rgb",
            planarconfig="separate", compression="deflate",
        ),
    ):  # fmt: skip
        np.testing.assert_allclose(np.asarray(load_rgb(path)), COLOUR * 255, atol=1)


@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_planes_of_16_bits_are_refused(tmp_path: Path, tile: tuple[int, int] | None) -> None:
    planes = np.round(COLOUR * 65535).astype("u2").transpose(2, 0, 1).copy()
    options: dict[str, Any] = {"photometric": "rgb", "planarconfig": "separate", "tile": tile}
    with pytest.raises(ImageError, match=r"a\.tif: its colours of 16 bits lie in planes of their own"):
        load_rgb(write_tiff(tmp_path / "a.tif", planes, **options))
    levels = (COLOUR * 255).astype("u1").transpose(2, 0, 1).copy()
    np.testing.assert_allclose(
        np.asarray(load_rgb(write_tiff(tmp_path / "b.tif", levels, **options))), COLOUR * 255, atol=1
    )


def test_dark_colours_of_16_bits_are_refused_until_they_are_said(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", np.round(COLOUR * 4095))
    with pytest.raises(ImageError, match="reach 4,095 of 65,535") as caught:
        load_rgb(path)
    assert str(caught.value.hint).endswith("value_range 0,65535")
    assert np.asarray(load_rgb(path, value_range=(0, 65535))).max() == 15
    with pytest.raises(ImageError, match="can only be read as 0 to 65,535"):
        load_rgb(path, value_range=(0, 4095))
    assert not np.asarray(load_rgb(write_png(path, np.zeros((8, 8, 3))))).any()


def test_a_transparent_colour_of_16_bits_is_refused(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", np.round(COLOUR * 65535), transparent=(1, 2, 3))
    with pytest.raises(ImageError, match="one of its colours of 16 bits is transparent"):
        load_rgb(path)


def test_grey_with_associated_alpha(tmp_path: Path) -> None:
    values = np.array([[[100, 255], [0, 0], [50, 100]]], dtype="u1")
    path = write_tiff(tmp_path / "a.tif", values, extrasamples=["assocalpha"], planarconfig="contig")
    if int(PIL.__version__.partition(".")[0]) < 13:  # which knows no such TIFF
        with pytest.raises(ImageError, match=r"a\.tif: a TIFF of a kind that Pillow does not read"):
            load_rgb(path)
        return
    # over white: what is stored is multiplied already, so 50 and 155 of white
    np.testing.assert_allclose(grey_of(path), [[100, 255, 205]], atol=1)


def test_the_thumbnail_of_a_raw_file_is_not_the_picture(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.dng", np.zeros((8, 8), "u1"), subfiletype=1)
    with pytest.raises(ImageError, match=r"a\.dng: its first page is a small copy of another"):
        load_rgb(path)


def test_of_a_stack_the_first_page_is_read_and_said(tmp_path: Path) -> None:
    pages = np.stack([np.full((8, 8), 200, "u1"), *[np.zeros((8, 8), "u1")] * 6])
    path = write_tiff(tmp_path / "a.tif", pages)
    said: list[tuple[str, str]] = []
    image = load_rgb(path, on_remark=lambda *remark: said.append(remark))
    assert np.asarray(image).min() == 200
    assert said == [(str(path), "page 1 of 7 is read")]
    with pytest.warns(UserWarning, match=r"a\.tif: page 1 of 7 is read"):
        load_rgb(path)


def test_a_stack_whose_later_pages_are_cut_off_is_of_several(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.full((7, 64, 64), 9, "u1"), metadata=None)
    content = path.read_bytes()
    with Image.open(path) as image:
        image.seek(1)
        second = image.tag_v2.get(273)[0]
    path.write_bytes(content[: second + 100])
    said: list[str] = []
    load_rgb(path, on_remark=lambda name, text: said.append(text))
    assert said in (["page 1 of several is read"], ["page 1 of 2 is read"])


@pytest.mark.parametrize("text", ["", "1", "0,1,2", "5,5", "7,1", "a,b", "0,inf", "nan,1"])
def test_a_range_is_two_numbers(text: str) -> None:
    with pytest.raises(UsageError, match="two numbers are needed"):
        parse_range(text)
    assert parse_range("-1024,3071.5") == (-1024, 3071.5)


def test_12_bits_that_are_stored_as_12_are_known(tmp_path: Path) -> None:
    """Two values in three bytes, in the smallest TIFF that says so: no library here writes one."""
    values = np.round(SHARE * 4095).astype(int)
    pairs = values.reshape(-1, 2)
    packed = b"".join(bytes((a >> 4, (a & 15) << 4 | b >> 8, b & 255)) for a, b in pairs.tolist())
    tags = [
        (256, 64),
        (257, 64),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 64),
        (279, len(packed)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + directory)
    np.testing.assert_allclose(grey_of(path), SHARE * 255, atol=0.51)
