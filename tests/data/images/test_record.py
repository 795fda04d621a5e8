"""A picture says how rdm made it, and one that rdm did not make says nothing."""

from __future__ import annotations

import struct
import zlib

import pytest
from PIL import Image

from rdm_cli.data.images.record import (
    command_recorded,
    is_own_picture,
    mp4_box,
    new_record,
    read_record,
    same_settings,
    save_image,
    saving_options,
)
from rdm_cli.data.io.places import Blob


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_record_comes_back_from_a_picture(tmp_path, kind):
    record = {"what": "edit", "edits": ["smiling+0.3"], "source": "ü.png", "seed": 1}
    path = tmp_path / f"a.{kind.lower()}"
    Image.new("RGB", (8, 8)).save(path, format=kind, **saving_options(record, kind))
    assert read_record(path) == record
    assert read_record(Blob("a", path.read_bytes())) == record


def test_what_rdm_did_not_make_has_no_record(tmp_path):
    plain, other, nothing = tmp_path / "a.png", tmp_path / "b.jpg", tmp_path / "c.png"
    Image.new("RGB", (8, 8)).save(plain)
    Image.new("RGB", (8, 8)).save(other)
    nothing.write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    for path in (plain, other, nothing, tmp_path / "absent.png"):
        assert read_record(path) is None


def test_a_picture_too_large_to_be_decoded_is_told_apart(tmp_path):
    """A decompression bomb among the images stops no search, and one with a record is rdm's."""

    def png(*chunks: bytes) -> bytes:
        parts = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts)

    header = b"IHDR" + struct.pack(">IIBBBBB", 2**20, 2**20, 8, 2, 0, 0, 0)
    own = b'tEXtrdm\0{"software":"rdm 9"}'
    path = tmp_path / "a.png"
    for chunks, made_by_rdm in (
        ((header, b"IDAT"), False),
        ((header, own, b"IDAT"), True),
        ((header, b"tEXtother\0x", b"gAMA1234", own, b"IDAT"), True),
        ((header, b"IDAT", own), False),
        ((header, b'tEXtrdm\0{"software":', b"IDAT"), False),
        ((header, b"tEXtrdm\0[]", b"IDAT"), False),
        ((header, b"tEXtrdm\0\xff", b"IDAT"), False),
        ((header, b"tEXt", b"IDAT"), False),
    ):
        path.write_bytes(png(*chunks))
        assert is_own_picture(path) is made_by_rdm
    path.write_bytes(png(header) + b"\xff\xff\xff\xfftEXtrdm\0")  # a chunk that claims 4 GiB
    assert not is_own_picture(path)
    path.write_bytes(b"GIF89a\xff\xff\xff\xff\0\0\0")
    assert not is_own_picture(path)


def test_equal_settings_are_told_by_digests_and_not_by_names():
    known = new_record(
        "edit", bundle="a", bundle_digest="1", source="x", seed=None, edits=[{"b": 1, "a": 2.0}]
    )
    assert "seed" not in known
    other = {**known, "software": "rdm 99", "bundle": "b", "source": "y", "code_digest": "2"}
    assert same_settings(known, other)
    for name, value in (("bundle_digest", "2"), ("edits", [{"a": 2.0}]), ("what", "decode"), ("seed", 0)):
        assert not same_settings(known, {**known, name: value})
        assert same_settings(known, {**known, name: value}, but=[name])


def test_a_record_comes_back_from_a_webp_and_from_the_end_of_an_mp4(tmp_path):
    record = {"what": "edit", "source": "ü.png", "long": "x" * 70_000}
    path = tmp_path / "a.webp"
    Image.new("RGB", (8, 8)).save(path, **saving_options(record, "WEBP"))
    assert read_record(path) == record
    video = struct.pack(">I", 16) + b"ftypisom" + bytes(4) + struct.pack(">I", 12) + b"mdat" + bytes(4)
    foreign = struct.pack(">I", 28) + b"uuid" + bytes(20)
    assert read_record(Blob("a.mp4", video + foreign + mp4_box(record))) == record
    assert read_record(Blob("a.mp4", video + foreign)) is None


@pytest.mark.parametrize(
    "content",
    [
        b"RIFF\xff\xff\xff\xffWEBP" + b"EXIF\xff\xff\xff\xff" + b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"RIFF\x04\0\0\0WEBPVP8X\xff\xff\xff\xff",
        b"RIFF\x04\0\0\0WEBPEXIF\x04\0\0\0abcd",
        b"\0\0\0\x0cftypisom\0\0\0\0uuid" + bytes(16),
        b"\0\0\0\x0cftypisom\xff\xff\xff\xffuuid" + bytes(16),
        b"\0\0\0\x0cftypisom\0\0\0\x01mdat\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\0\0\0\x0cftypisom" + mp4_box({})[:8] + b"\xff" * 40,
    ],
)
def test_damaged_files_have_no_record(content):
    assert read_record(Blob("a", content)) is None


def test_the_command_is_recorded_and_is_no_setting(tmp_path):
    """With the inputs that the picture was made of, and as many samples as give its number."""
    asked = []

    def write(instead):
        asked.append({name: list(words) for name, words in instead.items()})
        return f"rdm {len(asked)}"

    path = tmp_path / "a.png"
    with command_recorded(write):
        for record in (
            {"source": "a.png"},
            {"sources": ["a", "b"]},
            {"draw": 3},
            {"draw": 3, "condition": {}},
        ):
            save_image(Image.new("RGB", (8, 8)), path, record)
        save_image(Image.new("RGB", (8, 8)), path, {"command": "rdm train"})
    assert asked == [{"inputs": ["a.png"]}, {"inputs": ["a", "b"]}, {"num": ["4"]}, {}]
    assert read_record(path)["command"] == "rdm train"
    save_image(Image.new("RGB", (8, 8)), path, {"source": "a.png"})
    assert "command" not in read_record(path)
    assert same_settings({"what": "x", "command": "1"}, {"what": "x"})
