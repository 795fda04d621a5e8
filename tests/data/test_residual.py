"""Pixels come back bit for bit from any prediction within the slack, and from none beyond it unnoticed."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rdm_cli.data.residual import (
    encode_residual,
    modulus,
    nearest_congruent,
    pixel_digest,
    restore_pixels,
)

FACES = sorted((Path(__file__).resolve().parents[2] / "assets" / "faces").glob("*.png"))[:4]


def drawn(seed: int, shape: tuple[int, ...], low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape)


def off_by(pixels: np.ndarray, errors: np.ndarray) -> np.ndarray:
    return np.clip(pixels.astype(np.int64) + errors, 0, 255).astype(np.uint8)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9)),
    largest=st.sampled_from([0, 1, 2, 5, 17, 18, 40, 130, 255]),
    slack=st.integers(0, 4),
)
@pytest.mark.long
def test_pixels_survive_a_prediction_within_the_slack(
    seed: int, size: tuple[int, int, int], largest: int, slack: int
) -> None:
    shape = size
    # the ends of the range are where the nearest congruent value may lie outside of it
    pixels = np.random.default_rng(seed).choice([0, 1, 3, 128, 250, 254, 255], shape).astype(np.uint8)
    prediction = off_by(pixels, drawn(seed, shape, -largest, largest + 1))
    elsewhere = off_by(prediction, drawn(seed + 1, shape, -slack, slack + 1))
    residual = encode_residual(pixels, prediction, slack=slack)
    np.testing.assert_array_equal(restore_pixels(prediction, residual), pixels)
    np.testing.assert_array_equal(restore_pixels(elsewhere, residual), pixels)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), sign=st.sampled_from([-1, 1]))
def test_a_prediction_beyond_the_bound_is_seen(seed: int, sign: int) -> None:
    """One value three levels off, on pixels that were predicted exactly: m = 5, so it comes back 5 off."""
    pixels = drawn(seed, (3, 6, 5), 20, 236).astype(np.uint8)
    residual = encode_residual(pixels, pixels)
    errors = np.zeros(pixels.shape, dtype=np.int64)
    errors.flat[seed % errors.size] = 3 * sign
    restored = restore_pixels(off_by(pixels, errors), residual)
    assert np.abs(restored.astype(int) - pixels).max() == 5
    assert pixel_digest(restored) != pixel_digest(pixels)


@given(prediction=st.integers(0, 255), pixel=st.integers(0, 255), m=st.integers(1, 256))
def test_the_nearest_congruent_value_is_that_of_a_search(prediction: int, pixel: int, m: int) -> None:
    found = int(nearest_congruent(np.array([prediction], dtype=np.uint8), np.array([pixel % m]), m)[0])
    congruent = range(pixel % m, 256, m)
    assert found in congruent
    assert abs(found - prediction) == min(abs(value - prediction) for value in congruent)


def test_the_modulus_exceeds_twice_the_error_and_the_slack() -> None:
    assert [modulus(e) for e in (0, 1, 60, 124, 125, 255)] == [5, 7, 125, 253, 255, 256]
    assert modulus(3, slack=0) == 7


def test_with_the_largest_modulus_the_prediction_does_not_matter() -> None:
    pixels = drawn(0, (3, 8, 8)).astype(np.uint8)
    residual = encode_residual(pixels, 255 - pixels // 200 * 255)
    np.testing.assert_array_equal(restore_pixels(drawn(1, pixels.shape).astype(np.uint8), residual), pixels)


def test_a_face_takes_fewer_bytes_than_as_an_image_file() -> None:
    """On avatars that were predicted exactly."""
    sizes = {"residual": 0, "webp": 0}
    for face in FACES:
        image = Image.open(face).convert("RGB")
        pixels = np.asarray(image).transpose(2, 0, 1)
        sizes["residual"] += len(encode_residual(pixels, pixels))
        buffer = BytesIO()
        image.save(buffer, "WEBP", lossless=True, quality=100, method=6)
        sizes["webp"] += len(buffer.getvalue())
    assert FACES and 3 * sizes["residual"] < 2 * sizes["webp"]


def test_smooth_pictures_are_predicted_from_their_neighbours() -> None:
    """Shades with a little grain and a prediction that says nothing: PNG would filter them, too."""
    y, x = np.mgrid[:64, :64]
    shades = (np.stack([x + 2 * y, 2 * x + y, 3 * x]) + drawn(0, (3, 64, 64), 0, 2)).astype(np.uint8)
    blank = np.where(shades < 128, 255, 0).astype(np.uint8)
    residual = encode_residual(shades, blank)
    assert residual[1] == 1 and len(residual) < shades.size / 2
    np.testing.assert_array_equal(restore_pixels(blank, residual), shades)


def test_the_digest_is_that_of_an_image_files_pixels() -> None:
    image = Image.open(FACES[0]).convert("RGB")
    assert pixel_digest(np.asarray(image).transpose(2, 0, 1)) == hashlib.sha256(image.tobytes()).hexdigest()


def test_damage_is_told() -> None:
    pixels = drawn(2, (3, 8, 8)).astype(np.uint8)
    residual = encode_residual(pixels, pixels)
    for damaged in (b"", residual[:3], residual[:-4], b"\x09" + residual[1:], residual[:4] + b"\xff" * 9):
        with pytest.raises(ValueError, match="residual is"):
            restore_pixels(pixels, damaged)
    with pytest.raises(ValueError, match="4 x 8 pixels"):
        restore_pixels(pixels[:, :4], residual)


@pytest.mark.parametrize(
    "wrong", [np.zeros((3, 4, 4)), np.zeros((4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8)]
)
def test_other_arrays_are_refused(wrong: np.ndarray) -> None:
    pixels = np.zeros((3, 4, 4), dtype=np.uint8)
    with pytest.raises(ValueError, match="uint8"):
        encode_residual(wrong, pixels)
    with pytest.raises(ValueError, match="differ in shape"):
        encode_residual(pixels, pixels[:, :2])
