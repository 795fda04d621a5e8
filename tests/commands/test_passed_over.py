"""What lies in a searched folder and is no input is counted, and the summary says of which kinds."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from rdm_cli.codes.code import Codes

Rdm = Callable[..., Any]


def test_the_summary_says_what_was_passed_over(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    for name in ("metadata.csv", "notes.txt", "sub/notes.txt", "LICENSE"):
        (faces / name).write_text("no picture", encoding="utf-8")
    for verb, *options in (("encode", "--no-x-t"), ("reconstruct", "--steps", 1)):
        result = tiny(verb, faces, "-o", tmp_path / verb, *options)
        assert result.code == 0
        assert result.err.rstrip().endswith(
            ", passed over 1 file of kind .csv, 2 files of kind .txt, 1 file without a suffix"
        )
        assert tiny(verb, faces, "-o", tmp_path / f"{verb}-q", *options, "-q").err == ""
    (tmp_path / "encode" / "list.jsonl").write_text("{}", encoding="utf-8")
    result = tiny("decode", tmp_path / "encode", "-o", tmp_path / "out", "--steps", 1)
    assert result.code == 0 and result.err.rstrip().endswith(", passed over 1 file of kind .jsonl")


def test_images_of_any_name_are_encoded(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    for name in ("p.jfif", "q.pnm", "IMG_7", "r.jpeg_original"):
        shutil.copy(faces / "a.png", faces / name)
    result = tiny("encode", faces, "-o", tmp_path / "o", "--no-x-t")
    assert result.code == 0 and "passed over" not in result.err
    names = {path.name for path in (tmp_path / "o").iterdir()}
    assert {"p.safetensors", "q.safetensors", "IMG_7.safetensors", "r.safetensors"} < names
    plain, other = (Codes.load(tmp_path / "o" / f"{name}.safetensors") for name in ("a", "IMG_7"))
    assert (plain.z == other.z).all() and other.infos[0].source == "IMG_7"


def test_a_phone_s_heic_fails_by_name_where_it_cannot_be_read(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)
    (faces / "IMG_1.HEIC").write_bytes(content)
    result = tiny("encode", faces, "-o", tmp_path / "o", "--no-x-t", "-q")
    assert result.code == 3 and result.err.startswith(f"rdm: {faces}/IMG_1.HEIC: ")
    assert len(list((tmp_path / "o").rglob("*.safetensors"))) == 5


def test_stdin_may_be_any_of_them(tiny: Rdm, tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(content, "JPEG2000", no_jp2=True)
    assert tiny("encode", "-", "-o", tmp_path, "--no-x-t", stdin=content.getvalue()).code == 0
