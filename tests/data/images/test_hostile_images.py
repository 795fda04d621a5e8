"""Bombs, programs and devices that are called images."""

from __future__ import annotations

import os
import struct
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from rdm_cli.data.images.pixels import Fit, image_bytes, load_rgb
from rdm_cli.errors import ImageError


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "bmp", "webp", "ppm", "avif", "jp2"])
def test_the_limit_holds_to_the_pixel(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bomb.{suffix}"
    Image.new("RGB", (20, 20)).save(path)
    with pytest.raises(ImageError, match=r"more than 399 pixels; raise max_pixels"):
        load_rgb(path, max_pixels=399)
    assert load_rgb(path, max_pixels=400).size == (20, 20)


def test_pillows_own_limit_is_the_host_s_and_neither_changed_nor_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image beyond Pillow's limit opens where the caller's own limit is higher, without a warning."""
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_rgb(tmp_path / "a.png").size == (20, 20)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="more than 399 pixels"):
        load_rgb(tmp_path / "a.png", max_pixels=399)
    assert Image.MAX_IMAGE_PIXELS is None


def test_threads_of_two_limits_do_not_see_one_another_s(tmp_path: Path) -> None:
    """They did: the limit was Pillow's global, and 13 verdicts of 6,000 were another thread's."""
    path = tmp_path / "a.png"
    Image.new("RGB", (20, 20)).save(path)

    def verdicts(limit: int) -> set[bool]:
        found = set()
        for _ in range(400):
            try:
                load_rgb(path, max_pixels=limit)
                found.add(True)
            except ImageError:
                found.add(False)
        return found

    filters = list(warnings.filters)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(verdicts, (399, 400, 399, 400)))
    finally:
        sys.setswitchinterval(interval)
    assert found == [{False}, {True}, {False}, {True}]
    assert warnings.filters == filters


def test_a_tile_of_a_tiff_counts_as_much_as_the_image(tmp_path: Path) -> None:
    """A small image of one enormous tile: decoding would take memory for all of the tile."""
    path = tmp_path / "a.tif"
    tags = {
        256: 20, 257: 20, 258: 8, 259: 1, 262: 1, 277: 1, 322: 60_000, 323: 60_000, 324: 8, 325: 400,
    }  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = b"II*\0" + struct.pack("<I", 8 + 400)
    path.write_bytes(header + bytes(400) + struct.pack("<H", len(tags)) + entries + bytes(4))
    with pytest.raises(ImageError, match="more than 134,217,728 pixels"):
        load_rgb(path)


def test_a_bomb_is_refused_before_its_pixels_are_decoded(tmp_path: Path) -> None:
    """A PNG of 2.5 thousand million pixels, in a few hundred bytes whose pixels are not even there."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path = tmp_path / "bomb.png"
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageError, match="more than 134,217,728 pixels"):
        load_rgb(path)


def test_a_postscript_picture_is_no_image_whatever_its_name(tmp_path: Path) -> None:
    """Pillow would start Ghostscript for it."""
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path, "EPS")
    with Image.open(path) as opened:
        assert opened.format == "EPS"
    with pytest.raises(ImageError, match="not an image that can be read"):
        load_rgb(path)


def test_a_phone_picture_of_two_frames_is_an_image(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    small = Image.new("RGB", (8, 8), "red")
    small.save(path, "MPO", save_all=True, append_images=[small])
    assert load_rgb(path).size == (8, 8)


def test_pipes_and_devices_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    for name in ("a.png", "b.png"):
        with pytest.raises(ImageError, match="a pipe or a device"):
            load_rgb(tmp_path / name)


@pytest.mark.parametrize("shape", [(3000, 1), (1, 3000)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_the_most_extreme_shapes_fit(tmp_path: Path, shape: tuple[int, int], fit: Fit) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", shape).save(path)
    assert image_bytes(path, 16, fit).shape == (3, 16, 16)


def test_a_line_padded_to_a_square_is_still_there(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (1, 3000)).save(path)
    pixels = image_bytes(path, 16, "pad")
    assert (pixels[0] == 0).sum() == 16 and (pixels[0] == 255).sum() == 15 * 16
