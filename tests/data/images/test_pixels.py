"""Odd and damaged images, each made by Pillow here and compared with its pixels as defined."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from rdm_cli.data.images.pixels import (
    Fit,
    fit_square,
    grid,
    image_bytes,
    load_rgb,
    to_pil,
    to_pixels,
    to_unit_range,
)
from rdm_cli.data.images.record import new_record, save_image
from rdm_cli.errors import ImageError

RNG = np.random.default_rng(0)


def pixels_of(path: Path, remarks: list[str] | None = None) -> np.ndarray:
    said: list[str] = []
    image = load_rgb(path, on_remark=lambda name, text: said.append(text))
    assert said == ([] if remarks is None else remarks)
    assert image.mode == "RGB"
    return np.asarray(image)


def random_rgb(height: int = 6, width: int = 9) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif", ".webp", ".gif"])
def test_lossless_formats_give_their_pixels(tmp_path: Path, suffix: str) -> None:
    expected = random_rgb()
    path = tmp_path / f"a{suffix}"
    image = Image.fromarray(expected)
    if suffix == ".gif":
        image = image.quantize(64, dither=Image.Dither.NONE)  # 54 pixels, so no colour is lost
    image.save(path, **({"lossless": True} if suffix == ".webp" else {}))
    np.testing.assert_array_equal(pixels_of(path), expected)


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_jpeg_keeps_flat_colours(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (16, 16), (200, 40, 90)).convert(mode).save(path, quality=95)
    # A flat block has only a DC coefficient; quantising it at quality 95 and the change of colour
    # space move a value by 3 levels at the most. An inverted CMYK would be off by over 50.
    np.testing.assert_allclose(pixels_of(path), np.full((16, 16, 3), (200, 40, 90)), atol=3)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(pixels_of(path), grey(np.round(values / 257)))


def test_16_bit_big_endian_tiff(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    path = tmp_path / "a.tif"
    Image.frombytes("I;16B", (4, 1), values.astype(">u2").tobytes()).save(path)
    with Image.open(path) as image:
        assert image.mode == "I;16B"
    np.testing.assert_array_equal(pixels_of(path), grey(np.array([[0, 1, 128, 255]])))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.25, 0.5, 1.0], [0, 64, 128, 255]),
        ([0.0, 10.4, 254.6, 300.0], [0, 10, 255, 255]),
        ([-1.0, 0.4, 0.2, 1.0], [0, 102, 51, 255]),
    ],
    ids=["fraction", "levels", "outside"],
)
def test_float_tiff(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([values], dtype=np.float32)).save(path)
    np.testing.assert_array_equal(pixels_of(path), grey(np.array([expected])))


def test_alpha_lies_over_white(tmp_path: Path) -> None:
    value, alpha = np.meshgrid(np.arange(256), np.arange(256))
    rgba = np.stack([value, 255 - value, np.full_like(value, 7), alpha], axis=-1).astype(np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(rgba).save(path)
    colours = rgba[..., :3].astype(np.int64)
    # Exact integers, rounded half up: every colour at every opacity.
    over_white = (2 * (alpha[..., None] * colours + (255 - alpha[..., None]) * 255) + 255) // 510
    np.testing.assert_array_equal(pixels_of(path), over_white)


def test_grey_with_alpha(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[[10, 255], [10, 0], [55, 51]]], dtype=np.uint8)).save(path)
    np.testing.assert_array_equal(pixels_of(path), grey(np.array([[10, 255, 215]])))


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 255, 0, 0])
    image.putdata([0, 1, 2])
    path = tmp_path / "a.png"
    image.save(path, transparency=1)
    with Image.open(path) as stored:
        assert stored.mode == "P"
    np.testing.assert_array_equal(pixels_of(path), [[[10, 20, 30], [255, 255, 255], [255, 0, 0]]])


def test_colour_key_transparency(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    image = Image.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], dtype=np.uint8))
    image.save(path, transparency=(1, 2, 3))
    np.testing.assert_array_equal(pixels_of(path), [[[255, 255, 255], [9, 9, 9]]])


def test_one_bit(tmp_path: Path) -> None:
    bits = np.array([[True, False, True], [False, False, True]])
    path = tmp_path / "a.png"
    Image.fromarray(bits).save(path)
    with Image.open(path) as stored:
        assert stored.mode == "1"
    np.testing.assert_array_equal(pixels_of(path), grey(bits * 255))


def test_grey(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = tmp_path / "a.png"
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(pixels_of(path), grey(values))


# How a camera held each way stores an upright scene, by EXIF 2.32, table 6: orientation 6 has the
# scene's top along the stored right side, and so on.
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: upright.transpose(1, 0, 2)[::-1],
    7: lambda upright: upright.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda upright: upright.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = random_rgb(4, 7)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(np.ascontiguousarray(STORED[orientation](upright))).save(path, exif=exif)
    np.testing.assert_array_equal(pixels_of(path), upright)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animation_gives_its_first_frame(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    frames = [Image.new("RGB", (5, 5), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40, **options)
    with Image.open(path) as stored:
        assert stored.n_frames == 3
    shown = pixels_of(path, ["page 1 of 3 is read"])
    np.testing.assert_array_equal(shown, np.full((5, 5, 3), (255, 0, 0)))


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (3, 2)])
def test_any_shape_becomes_a_square(tmp_path: Path, shape: tuple[int, int], fit: Fit) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", shape, (12, 34, 56)).save(path)
    pixels = image_bytes(path, 16, fit)
    assert pixels.shape == (3, 16, 16) and pixels.dtype == np.uint8
    if fit != "pad":
        np.testing.assert_array_equal(pixels, np.broadcast_to([[[12]], [[34]], [[56]]], (3, 16, 16)))


def test_image_of_the_size_is_untouched(tmp_path: Path) -> None:
    expected = random_rgb(32, 32)
    path = tmp_path / "a.png"
    Image.fromarray(expected).save(path)
    for fit in ("crop", "pad", "stretch"):
        np.testing.assert_array_equal(image_bytes(path, 32, fit), expected.transpose(2, 0, 1))


def test_crop_takes_the_centre_square() -> None:
    wide = random_rgb(16, 40)
    square = fit_square(Image.fromarray(wide), 16, "crop")
    np.testing.assert_array_equal(np.asarray(square), wide[:, 12:28])


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (13, 40), (31, 30), (17, 100), (99, 97), (250, 249)])
def test_pad_is_pillow_s_where_that_keeps_a_pixel(shape: tuple[int, int]) -> None:
    image = Image.fromarray(random_rgb(*shape))
    expected = ImageOps.pad(image, (16, 16), method=Image.Resampling.LANCZOS, color="white")
    np.testing.assert_array_equal(np.asarray(fit_square(image, 16, "pad")), np.asarray(expected))


def test_pad_puts_the_whole_on_white() -> None:
    wide = random_rgb(8, 16)
    expected = np.full((16, 16, 3), 255, dtype=np.uint8)
    expected[4:12] = wide
    np.testing.assert_array_equal(np.asarray(fit_square(Image.fromarray(wide), 16, "pad")), expected)


def test_reduction_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    reduced = np.asarray(fit_square(Image.fromarray(stripes), 8, "crop"))[1:-1, 1:-1]
    # Picking pixels would give 0 or 255. Lanczos passes next to nothing at the stripes' frequency,
    # which is eight times the reduced image's own limit.
    np.testing.assert_allclose(reduced, 127.5, atol=3)


def _bytes_of(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _truncated(form: str) -> bytes:
    whole = _bytes_of(Image.fromarray(random_rgb(64, 64)), form)
    return whole[: len(whole) // 2]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("png", _truncated("PNG"), "damaged"),
        ("jpg", _truncated("JPEG"), "damaged"),
        ("png", b"", "empty"),
        ("png", b"once upon a time\n" * 20, "not an image"),
        ("png", b"\x89PNG\r\n\x1a\n", "not an image"),
    ],
    ids=["truncated png", "truncated jpeg", "empty", "text", "signature alone"],
)
def test_bad_file_is_named_with_why(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / f"bad.{name}"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        load_rgb(path)
    assert str(path) in caught.value.message and "\n" not in str(caught.value)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    reasons = {
        "x.png": "folder",
        "link.png": "points to nothing",
        "loop.png": "points to nothing",
        "missing.png": "no such file",
        "n" * 300 + ".png": "too long",
    }
    for name, reason in reasons.items():
        with pytest.raises(ImageError, match=reason):
            load_rgb(tmp_path / name)


def test_permission_denied_is_an_image_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match="may not be read"):
        load_rgb(path)


_SMALL = Image.fromarray(random_rgb())
_TURNED = Image.Exif()
_TURNED[ExifTags.Base.Orientation] = 6
_SOUND = [
    _bytes_of(_SMALL, "PNG", exif=_TURNED),
    _bytes_of(_SMALL.convert("P"), "PNG", transparency=0),
    _bytes_of(_SMALL, "JPEG", exif=_TURNED),
    _bytes_of(_SMALL.convert("CMYK"), "JPEG"),
    _bytes_of(_SMALL, "WEBP", exif=_TURNED),
    _bytes_of(_SMALL, "GIF"),
    _bytes_of(_SMALL, "BMP"),
    _bytes_of(_SMALL, "PPM"),
    _bytes_of(_SMALL, "AVIF", exif=_TURNED),
    _bytes_of(Image.fromarray(RNG.integers(0, 65536, (5, 4), dtype=np.uint16)), "PNG"),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sound=st.sampled_from(_SOUND),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    keep=st.floats(0, 1) | st.just(1.0),
)
def test_damage_gives_an_image_or_an_image_error(
    tmp_path: Path, sound: bytes, edits: list[tuple[float, int]], keep: float
) -> None:
    content = bytearray(sound)
    for place, value in edits:
        content[int(place * len(content))] = value
    path = tmp_path / "a.png"
    path.write_bytes(content[: round(keep * len(content))])
    try:
        image = load_rgb(path)
    except ImageError as error:
        assert error.message.startswith(str(path))
    else:
        assert image.mode == "RGB" and min(image.size) > 0


def test_every_level_survives_the_round_trip() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    x_0 = to_unit_range(levels)
    assert x_0.dtype == torch.float32 and x_0[0] == -1 and x_0[255] == 1
    torch.testing.assert_close(to_pixels(x_0), levels, rtol=0, atol=0)


def test_to_pixels_clamps() -> None:
    x_0 = torch.tensor([-9.0, -1.001, 1.001, 9.0])
    torch.testing.assert_close(to_pixels(x_0), torch.tensor([0, 0, 255, 255], dtype=torch.uint8))


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    expected = random_rgb(8, 8).transpose(2, 0, 1)
    image = to_pil(to_unit_range(torch.from_numpy(expected.copy())))
    save_image(image, tmp_path / "new" / "a.png", new_record("sample"))
    np.testing.assert_array_equal(image_bytes(tmp_path / "new" / "a.png", 8), expected)


def test_grey_is_pillows_own(tmp_path: Path) -> None:
    colour = Image.fromarray(random_rgb(8, 8))
    colour.save(tmp_path / "a.png")
    pixels = image_bytes(tmp_path / "a.png", 8, channels=1)
    np.testing.assert_array_equal(pixels, np.asarray(colour.convert("L"))[None])
    grey = to_pil(to_unit_range(torch.from_numpy(pixels)))
    assert grey.mode == "L"
    np.testing.assert_array_equal(np.asarray(grey), pixels[0])


@pytest.mark.parametrize(
    ("count", "columns", "shape"), [(5, 3, (2, 3)), (2, 4, (1, 2)), (4, 2, (2, 2)), (1, 1, (1, 1))]
)
def test_grid_layout(count: int, columns: int, shape: tuple[int, int]) -> None:
    width, height, gap = 4, 3, 2
    tiles = [random_rgb(height, width) for _ in range(count)]
    sheet = np.asarray(grid([Image.fromarray(tile) for tile in tiles], columns, gap))
    rows, across = shape
    expected = np.full((rows * (height + gap) - gap, across * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        expected[top : top + height, left : left + width] = tile
    np.testing.assert_array_equal(sheet, expected)
