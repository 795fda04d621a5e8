"""Images known by their first bytes, whatever they are called; HEIC and AVIF with and without a decoder."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from rdm_cli.data.images.kinds import HEAD_BYTES, holds_image, kind_of
from rdm_cli.data.images.pixels import FORMATS, load_rgb
from rdm_cli.data.sources.folders import PassedOver, find_inputs
from rdm_cli.errors import ImageError, UsageError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))

# The box with which a phone's HEIC begins: major brand, minor version, compatible brands.
HEIC = b"\0\0\0\x24ftypheic\0\0\0\0mif1MiHBMiHEMiPrheictmap" + bytes(200)


def content_of(form: str, **options: object) -> bytes:
    file = io.BytesIO()
    PICTURE.save(file, form, **options)
    return file.getvalue()


WRITTEN = {
    "PNG": "PNG", "JPEG": "JPEG", "MPO": "JPEG", "WEBP": "WEBP", "BMP": "BMP", "GIF": "GIF", "TIFF": "TIFF",
    "PPM": "PPM", "AVIF": "AVIF", "JPEG2000": "JPEG2000",
}  # fmt: skip


@pytest.mark.parametrize("form", WRITTEN)
def test_every_format_is_known_by_its_first_bytes(form: str) -> None:
    kind = kind_of(content_of(form)[:HEAD_BYTES])
    assert kind == WRITTEN[form] and kind in FORMATS


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (content_of("TIFF", big_tiff=True), "TIFF"),
        (content_of("JPEG2000", no_jp2=True), "JPEG2000"),
        (b"P2\n# made by hand\n2 1\n255\n0 255\n", "PPM"),
        (b"P5 2 1 255\n\0\0", "PPM"),
        (b"Pf\n2 1\n-1.0\n" + bytes(8), "PPM"),
        (HEIC, "HEIF"),
        (HEIC.replace(b"heic", b"mif1", 1).replace(b"heic", b"avif"), "AVIF"),
    ],
    ids=["BigTIFF", "bare JPEG 2000", "PGM in text", "PGM", "PFM", "HEIC", "AVIF by its second brand"],
)
def test_other_beginnings_of_a_format(head: bytes, kind: str) -> None:
    assert kind_of(head[:HEAD_BYTES]) == kind


@pytest.mark.parametrize(
    "content",
    [
        b"", b"P", b"BM", b"BMW and other cars: a list of what drives by here, in many lines\n", b"P5 is it",
        b"Py", b"Python 3 is what this note is about", b"RIFF\0\0\0\0WAVEfmt ",
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", b"ftyp", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
        b"%PDF-1.7\n", b"\0\0\0\x0cjP  ", b"\0\0\1\0\1\0\x10\x10", b"II*", b"PK\3\4",
    ],
)  # fmt: skip
def test_what_is_no_image_is_not_taken_for_one(content: bytes) -> None:
    assert kind_of(content) is None


@settings(deadline=None)
@given(st.binary(max_size=HEAD_BYTES))
def test_any_bytes_are_looked_at(head: bytes) -> None:
    assert kind_of(head) in (None, *FORMATS)


def test_a_folder_s_images_are_taken_by_content_and_the_rest_is_counted(tmp_path: Path) -> None:
    for name, form in {
        "a.jfif": "JPEG", "b.jpe": "JPEG", "c.j2k": "JPEG2000", "d.pnm": "PPM", "IMG_0001": "PNG",
        "sub/scan.v2": "TIFF", "wrong.txt": "GIF", "UPPER.JFIF": "JPEG",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content_of(form, **({"no_jp2": True} if form == "JPEG2000" else {})))
    images = ["IMG_0001", "UPPER.JFIF", "a.jfif", "b.jpe", "c.j2k", "d.pnm", "sub/scan.v2", "wrong.txt"]
    for name in ("n.txt", "m.TXT", "metadata.csv", "a.safetensors", "README", "sub/x.json"):
        (tmp_path / name).write_bytes(b"BM not an image at all, but a text of some length, in one line")
    (tmp_path / ".hidden").write_bytes(content_of("PNG"))
    (tmp_path / "photo.nef").write_bytes(content_of("TIFF"))  # a raw file's first page is a thumbnail
    PICTURE.save(tmp_path / "page.eps")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    passed_over = PassedOver()
    items = find_inputs([tmp_path], passed_over=passed_over)
    assert [item.relative.as_posix() for item in items] == images
    for item in items:
        assert load_rgb(item.source).size == PICTURE.size
    assert passed_over == {
        "of kind .txt": 2, "of kind .csv": 1, "of kind .safetensors": 1, "of kind .json": 1,
        "of kind .nef": 1, "of kind .eps": 1, "without a suffix": 3,
    }  # fmt: skip
    said = str(passed_over)
    assert said.startswith("passed over 1 file of kind .csv, 1 file of kind .eps, ")
    assert said.endswith(", 2 files of kind .txt, 3 files without a suffix")
    # no image is looked for among codes
    assert [i.relative.name for i in find_inputs([tmp_path], suffixes={".safetensors"})] == ["a.safetensors"]


def test_many_kinds_are_summed_up() -> None:
    passed_over = PassedOver({f"of kind .k{i:02d}": 1 for i in range(30)} | {"of kind .txt": 9})
    said = str(passed_over)
    assert "9 files of kind .txt" in said and said.count(",") == 8 and "23 files of other kinds" in said


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.mov").write_bytes(b"\0\0\0\x14ftypqt  \0\0\0\0qt  ")
    with pytest.raises(UsageError, match=r"no images found \(passed over 1 file of kind \.mov\)"):
        find_inputs([tmp_path], passed_over=PassedOver())


def test_what_may_not_be_opened_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(content_of("PNG"))
    assert holds_image(tmp_path / "a")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert not holds_image(tmp_path / "a")


def test_heic_without_its_decoder_is_named_with_what_installs_it(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(HEIC)
    (tmp_path / "renamed.jpg").write_bytes(HEIC)
    if "HEIF" in Image.OPEN:
        pytest.skip("pillow-heif is installed, and registered")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
        for item in find_inputs([tmp_path]):
            with pytest.raises(
                ImageError, match="this is HEIF, which this installation has no decoder for"
            ) as e:
                load_rgb(item.source)
            assert e.value.hint == "pip install 'rdm-cli[heif]'"


def test_avif_without_its_decoder_is_named_with_what_installs_it(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    path.write_bytes(content_of("AVIF"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(Image.OPEN, "AVIF")
        patch.setitem(sys.modules, "pillow_avif", None)
        with pytest.raises(ImageError, match="this is AVIF, which this installation has no decoder for"):
            load_rgb(path)
    assert load_rgb(path).size == PICTURE.size


def test_a_heic_is_read_by_pillow_s_plugin_where_there_is_one(tmp_path: Path) -> None:
    """A plugin of the same interface stands in for pillow-heif, whose wheels are no part of the tests."""

    class StandIn(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            self._size, self._mode = (30, 20), "RGB"
            self.tile = [ImageFile._Tile("raw", (0, 0, 30, 1), 0, ("RGB", 0, 1))]

    registered: list[str] = []

    def register_heif_opener() -> None:
        registered.append("HEIF")
        Image.register_open("HEIF", StandIn, lambda prefix: prefix[4:12] == b"ftypheic")

    plugin: Any = types.ModuleType("pillow_heif")
    plugin.register_heif_opener = register_heif_opener
    path = tmp_path / "IMG_1.heic"
    path.write_bytes(HEIC)
    usual = dict(Image.OPEN), list(Image.ID)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", plugin)
        try:
            assert load_rgb(path).size == (30, 20) and load_rgb(path).size == (30, 20)
            with pytest.raises(ImageError, match="more than 599 pixels"):
                load_rgb(path, max_pixels=599)
        finally:
            Image.OPEN.clear()
            Image.OPEN.update(usual[0])
            Image.ID[:] = usual[1]
    assert registered == ["HEIF"]


def test_no_plugin_is_imported_for_other_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content_of("PNG"))
    code = (
        "import sys; from pathlib import Path; from rdm_cli.data.images.pixels import load_rgb\n"
        f"load_rgb(Path({str(tmp_path / 'a.png')!r}))\n"
        "assert not {'pillow_heif', 'pillow_avif'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
