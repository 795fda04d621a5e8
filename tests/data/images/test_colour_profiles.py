"""Embedded ICC profiles against the same conversion computed in NumPy.

The profiles are made here from their defining numbers: Pillow makes none but sRGB and Lab.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from rdm_cli.data.images.pixels import image_bytes, load_rgb

WHITE_D50 = (0.9642, 1.0, 0.8249)

# Red, green and blue in XYZ, adapted to D50: the columns of each space's matrix, as its profiles have them.
PRIMARIES = {
    "sRGB": ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)),
    "Display P3": ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
    "Adobe RGB": ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
}


def rgb_profile(name: str, gamma: float | None) -> bytes:
    """A display's profile with a space's primaries; ``gamma`` None is sRGB's own curve."""
    curve = _srgb_curve() if gamma is None else _gamma_curve(gamma)
    tags = {"wtpt": _xyz(WHITE_D50)}
    for letter, primary in zip("rgb", PRIMARIES[name], strict=True):
        tags |= {f"{letter}XYZ": _xyz(primary), f"{letter}TRC": curve}
    return _profile("RGB ", "XYZ ", "mntr", tags)


def grey_profile(gamma: float) -> bytes:
    """A grey display's profile."""
    return _profile("GRAY", "XYZ ", "mntr", {"wtpt": _xyz(WHITE_D50), "kTRC": _gamma_curve(gamma)})


def cmyk_profile() -> bytes:
    """A press whose inks are none: each only makes the paper darker, all alike, down to black together."""
    inks = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    lightness = 255 - np.round(inks.sum(axis=1) * 255 / 4)
    lab = np.stack([lightness, np.full(16, 128), np.full(16, 128)], axis=-1).astype(np.uint8)
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * v for v in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + ramp * 4 + lab.tobytes() + ramp * 3
    return _profile("CMYK", "Lab ", "prtr", {"wtpt": _xyz(WHITE_D50), "A2B0": table, "A2B1": table})


def to_srgb(pixels: np.ndarray, name: str, gamma: float | None) -> np.ndarray:
    """Levels (..., 3) of such a display as those of sRGB, computed here; not rounded."""
    share = pixels / 255
    light = _srgb_to_light(share) if gamma is None else share**gamma
    there, here = np.array(PRIMARIES[name]).T, np.array(PRIMARIES["sRGB"]).T
    linear = (light @ (np.linalg.inv(here) @ there).T).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _srgb_to_light(share: np.ndarray) -> np.ndarray:
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def _xyz(value: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * v) for v in value))


def _gamma_curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma)) + b"\0\0"


def _srgb_curve() -> bytes:
    levels = np.round(65535 * _srgb_to_light(np.linspace(0, 1, 1024))).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", 1024) + levels.tobytes()


def _profile(space: str, connection: str, kind: str, tags: dict[str, bytes]) -> bytes:
    text = b"made for tests\0"
    tags = tags | {
        "desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        "cprt": b"text\0\0\0\0" + text,
    }
    offset, entries, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        entries += name.encode() + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = offset + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, kind.encode(), space.encode(),
                       connection.encode())  # fmt: skip
    head += bytes(12) + b"acsp" + bytes(28) + _xyz(WHITE_D50)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + body


RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)


def saved(path: Path, pixels: np.ndarray, profile: bytes, **options: object) -> Path:
    Image.fromarray(pixels).save(path, icc_profile=profile, **options)
    return path


def read(path: Path) -> np.ndarray:
    return np.asarray(load_rgb(path, on_remark=lambda name, text: pytest.fail(text)))


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg", "avif"])
@pytest.mark.parametrize(("name", "gamma"), [("Display P3", None), ("Adobe RGB", 563 / 256), ("sRGB", 1.8)])
def test_a_profile_is_converted_to_srgb(tmp_path: Path, name: str, gamma: float | None, suffix: str) -> None:
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    profile = rgb_profile(name, gamma)
    path = saved(tmp_path / f"a.{suffix}", COLOURS, profile, **options)
    with Image.open(path) as stored:
        decoded = np.asarray(stored.convert("RGB"))
    expected = to_srgb(decoded, name, gamma)
    assert np.abs(decoded - expected).mean() > 4  # what it was off by while profiles were ignored
    # LittleCMS' curves of 8 bits are steep near black: a level there, half a level by rounding elsewhere
    found = np.abs(read(path) - expected)
    assert found.mean() < 0.5 and found.max() < 2.5


def test_an_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    pillows = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for i, profile in enumerate((pillows, rgb_profile("sRGB", None))):
        path = saved(tmp_path / f"{i}.png", COLOURS, profile)
        np.testing.assert_array_equal(read(path), COLOURS)
        np.testing.assert_array_equal(image_bytes(path, 32), COLOURS.transpose(2, 0, 1))


def test_colours_near_srgb_s_own_are_still_converted(tmp_path: Path) -> None:
    """A gamma of 2.2 is not sRGB's curve: it differs by up to some 5 levels, near black."""
    path = saved(tmp_path / "a.png", COLOURS, rgb_profile("sRGB", 2.2))
    np.testing.assert_allclose(read(path), to_srgb(COLOURS, "sRGB", 2.2), atol=2.5)
    assert (read(path) != COLOURS).any()


def test_grey_with_a_profile(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = to_srgb(levels[..., None].repeat(3, axis=2), "sRGB", 1.0)
    path = saved(tmp_path / "a.png", levels, grey_profile(1.0))
    np.testing.assert_allclose(read(path)[1:], expected[1:], atol=1)
    # a colour profile in a grey image, as some programs write it
    path = saved(tmp_path / "b.png", levels, rgb_profile("sRGB", 1.0))
    np.testing.assert_allclose(read(path)[1:], expected[1:], atol=1)
    # 16 bits
    wide = saved(tmp_path / "c.png", (levels * np.uint16(257)), grey_profile(1.0))
    np.testing.assert_allclose(read(wide)[1:], expected[1:], atol=1)


def test_cmyk_with_a_profile(tmp_path: Path) -> None:
    """The press of this profile has four equal inks: L* falls by a quarter for each."""
    pixels = np.zeros((1, 5, 4), np.uint8)
    for num_inks in range(5):
        pixels[0, num_inks, :num_inks] = 255
    path = tmp_path / "a.tif"
    Image.fromarray(pixels, "CMYK").save(path, icc_profile=cmyk_profile())
    lightness = 100 - 25 * np.arange(5)
    y = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    grey = 255 * np.where(y <= 0.0031308, 12.92 * y, 1.055 * y ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(read(path)[0], grey[:, None].repeat(3, axis=1), atol=3)


def test_alpha_lies_over_white_after_the_conversion(tmp_path: Path) -> None:
    profile = rgb_profile("Display P3", None)
    alpha = np.full((32, 32, 1), 128, np.uint8)
    path = saved(tmp_path / "a.png", np.concatenate([COLOURS, alpha], axis=-1), profile)
    expected = (128 * to_srgb(COLOURS, "Display P3", None) + 127 * 255) / 255
    np.testing.assert_allclose(read(path), expected, atol=2)
    palette = Image.fromarray(COLOURS).quantize(16, dither=Image.Dither.NONE)
    palette.save(tmp_path / "p.png", icc_profile=profile)
    plain = np.asarray(palette.convert("RGB"))
    np.testing.assert_allclose(read(tmp_path / "p.png"), to_srgb(plain, "Display P3", None), atol=2.5)


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        (b"no profile at all", "cannot be read"),
        (rgb_profile("Display P3", None)[:300], "cannot be read"),
        (cmyk_profile(), "is for CMYK, and the pixels are RGB"),
    ],
    ids=["text", "cut short", "of another colour space"],
)
def test_a_profile_that_cannot_be_used_is_said(tmp_path: Path, profile: bytes, why: str) -> None:
    path = saved(tmp_path / "a.png", COLOURS, profile)
    said: list[tuple[str, str]] = []
    image = load_rgb(path, on_remark=lambda *remark: said.append(remark))
    np.testing.assert_array_equal(np.asarray(image), COLOURS)
    assert said == [(str(path), f"its ICC profile {why}; it is read as sRGB")]


def test_profiles_are_converted_in_memory_as_well(tmp_path: Path) -> None:
    from rdm_cli.data.io.places import Blob

    content = io.BytesIO()
    Image.fromarray(COLOURS).save(content, "PNG", icc_profile=rgb_profile("Display P3", None))
    found = np.asarray(load_rgb(Blob("archive.tar/a.png", content.getvalue())))
    np.testing.assert_allclose(found, to_srgb(COLOURS, "Display P3", None), atol=2.5)
