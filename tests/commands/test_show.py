"""rdm show: what every kind of file records, what a terminal sees, and that nothing in a file is obeyed."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import stat
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from rdm_cli.data.images.record import mp4_box, read_record, saving_options

Rdm = Callable[..., Any]
HAT = ("--attr", "hat", "--steps", 1)
EVIL = "\x1b]0;owned\x07\n\u202e"


@pytest.fixture
def edited(tiny: Rdm, faces: Path) -> Path:
    """An edit and its code, beside the image."""
    assert tiny("manipulate", faces / "a.png", *HAT).code == 0
    return faces / "a-hat+0.3.png"


def facts_of(text: str) -> dict[str, str]:
    """The lines below the name."""
    return dict(re.split(r"\s\s+", line.strip(), maxsplit=1) for line in text.splitlines()[1:])


def test_a_picture_says_how_it_was_made(rdm: Rdm, edited: Path, tiny_bundle: Path) -> None:
    shown = rdm("show", edited)
    assert shown.code == 0 and shown.err == "" and "\x1b" not in shown.out
    assert shown.lines[0] == str(edited)
    facts = facts_of(shown.out)
    assert facts["kind"] == "picture" and facts["what"] == "edit" and facts["edits"] == "hat 0.3"
    assert facts["command"] == f"rdm manipulate a.png hat=0.3 --bundle {tiny_bundle} --steps 1"
    assert facts["software"].startswith("rdm ") and facts["bundle"] == "tiny"
    (told,) = rdm("show", edited, "--json").objects
    assert told["record"] == read_record(edited) and (told["width"], told["format"]) == (16, "PNG")
    assert list(facts)[:2] == ["kind", "format"] and list(told["record"])[:2] == ["what", "command"]


def test_what_rdm_did_not_make_says_so(rdm: Rdm, faces: Path) -> None:
    assert facts_of(rdm("show", faces / "a.png").out)["record"].startswith("none: rdm did not make it")
    (told,) = rdm("show", faces / "a.png", "--json").objects
    assert told["record"] is None


def test_a_code_says_how_it_was_made_and_which_picture_is_its_own(
    rdm: Rdm, edited: Path, tiny: Rdm, faces: Path, tmp_path: Path
) -> None:
    code = edited.with_suffix(".safetensors")
    facts = facts_of(rdm("show", code).out)
    assert facts["kind"] == "code" and facts["edits"] == "hat:0.3" and facts["holds"] == "x_T, z"
    record = read_record(edited)
    assert record is not None and facts["digest"] == record["code_digest"] and facts["picture"] == edited.name
    # the image that it was made of is its own too; another file of that name is not
    assert tiny("encode", faces / "b.png", "--steps", 1).code == 0
    assert facts_of(rdm("show", faces / "b.safetensors").out)["picture"] == "b.png"
    shutil.copy(faces / "c.png", faces / "b.png")
    assert "picture" not in facts_of(rdm("show", faces / "b.safetensors").out)


def test_codes_are_decoded_where_that_is_asked_for(
    rdm: Rdm, tiny: Rdm, tiny_bundle: Path, faces: Path, tmp_path: Path
) -> None:
    codes, sheet = tmp_path / "codes", tmp_path / "sheet.png"
    assert tiny("encode", faces, "-o", codes, "--steps", 1).code == 0
    without = rdm("show", codes, "-o", sheet)
    assert without.code == 0 and "5 codes without a picture" in without.err and not sheet.exists()
    unknown = rdm("show", codes, "-o", sheet, "--decode")
    assert unknown.code == 1 and unknown.err.count("tiny: no such bundle") == 5
    assert rdm("show", codes, "-o", sheet, "--decode", "-b", tiny_bundle).code == 0
    with Image.open(sheet) as image:
        assert image.width > 3 * 256


def test_a_bundle_is_shown_in_one_way(rdm: Rdm, tiny_bundle: Path) -> None:
    assert rdm("show", tiny_bundle).raw == rdm("bundles", "show", tiny_bundle).raw.replace(
        b"tiny\n", f"{tiny_bundle}\n".encode(), 1
    )
    (shown,) = rdm("show", tiny_bundle, "--json").objects
    (listed,) = rdm("bundles", "show", tiny_bundle, "--json").objects
    assert shown == {"input": str(tiny_bundle), "kind": "bundle", **listed}


def test_what_is_none_of_these_fails_by_name(rdm: Rdm, faces: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a text")
    (tmp_path / "a.safetensors").write_text("a text")
    for name in ("a.txt", "a.safetensors", "nosuch"):
        refused = rdm("show", tmp_path / name)
        assert refused.code == 1 and len(refused.err.splitlines()) == 1 and name in refused.err
    some = rdm("show", faces / "a.png", tmp_path / "a.txt", "--json")
    assert some.code == 3 and [("error" in o) for o in some.objects] == [False, True]
    assert rdm("show", tmp_path / "a.txt", tmp_path / "nosuch").code == 1


def png(*chunks: bytes) -> bytes:
    """A PNG of these chunks, between the header of one pixel and the pixel."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = b"IDAT" + zlib.compress(b"\0\xff\0\0")
    parts = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in (header, *chunks, pixel, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_what_a_picture_says_is_printed_and_not_obeyed(rdm: Rdm, tmp_path: Path) -> None:
    """Control characters in values and in names of fields, deep nesting, and texts of a megabyte."""
    nested: Any = "deep"
    for _ in range(400):
        nested = {"x": [nested]}
    record = {"software": "rdm 9", "what": EVIL, EVIL: "x", "nested": nested, "long": "y" * 500_000}
    path = tmp_path / "a.png"
    Image.new("RGB", (2, 2)).save(path, **saving_options(record, "PNG"))
    shown = rdm("show", path)
    assert shown.code == 0 and "\x1b" not in shown.out and "\x07" not in shown.out
    assert len(shown.lines) == 1 + 4 + len(record) and "\u202e" not in shown.out
    assert r"\x1b]0;owned\x07\n\u202e" in shown.out and "more characters)" in shown.out
    assert len(shown.raw) < 10_000
    many = {f"field {i}": i for i in range(20_000)} | {"software": "rdm 9", "k" * 500_000: 1}
    Image.new("RGB", (2, 2)).save(path, **saving_options(many, "PNG"))
    shown = rdm("show", path)
    assert len(shown.lines) == 102 and len(shown.raw) < 10_000 and " more" in shown.lines[-1]


def test_a_giant_text_is_no_record_and_no_harm(rdm: Rdm, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(b"tEXtrdm\0" + b'{"software":"rdm 9","x":"' + b"y" * 2**22 + b'"}'))
    shown = rdm("show", path)
    assert shown.code == 0 and facts_of(shown.out)["record"].startswith("none")
    bomb = zlib.compress(b"y" * 2**27)
    path.write_bytes(png(b'tEXtrdm\0{"software":"rdm 9"}', b"zTXtother\0\0" + bomb))
    shown = rdm("show", path)  # Pillow refuses what unpacks to 128 MB; the record is read without it
    assert facts_of(shown.out)["software"] == "rdm 9"
    assert shown.code == 0 and (shown.err == "" or "a.png: damaged image" in shown.err)


def test_a_folder_becomes_a_contact_sheet(rdm: Rdm, edited: Path, tmp_path: Path) -> None:
    folder, sheet = edited.parent, tmp_path / "sheet.png"
    (folder / "notes.txt").write_text("no picture")
    made = rdm("show", folder, "-o", sheet, "--tile", 32, "--columns", 3)
    assert made.code == 0 and made.lines == [str(sheet)]
    assert "6 shown" in made.err and "passed over 1 file of kind .txt" in made.err  # five faces and the edit
    with Image.open(sheet) as image:
        assert image.width >= 3 * 32 and image.height >= 2 * 32
    first = sheet.read_bytes()
    record = read_record(sheet)
    assert (
        record is not None and record["what"] == "contact sheet" and record["command"].startswith("rdm show ")
    )
    assert rdm("show", folder, "-o", sheet, "--tile", 32, "--columns", 3).code == 0
    assert sheet.read_bytes() == first
    (told,) = rdm("show", folder, "--limit", 4, "--json").objects
    assert (told["num_found"], told["num_shown"], told["left_out"]) == (6, 4, 2)
    assert "2 on other pages" in rdm("show", folder, "--limit", 4, "--page", 2).err.replace("4 on", "2 on")
    beyond = rdm("show", folder, "--page", 9)
    assert beyond.code == 2 and "1 pages of 100 pictures, and no 9" in beyond.err


def test_what_cannot_be_read_is_counted_and_named(rdm: Rdm, faces: Path, tmp_path: Path) -> None:
    (faces / "bad.png").write_text("no image")
    made = rdm("show", faces, "-o", tmp_path / "sheet.png")
    assert made.code == 3 and "5 shown, 1 not readable" in made.err and "bad.png: not an image" in made.err


def test_a_sheet_replaces_nothing(rdm: Rdm, faces: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"my own")
    refused = rdm("show", faces, "-o", sheet)
    assert refused.code == 1 and "rdm did not make it" in refused.err and sheet.read_bytes() == b"my own"
    assert rdm("show", faces, "-o", sheet, "--force").code == 0
    for wrong in ((faces, "-o", tmp_path / "x.jpg"), (faces / "a.png", "-o", sheet), (faces, "--open")):
        assert rdm("show", *wrong).code == 2


def code_of(folder: Path) -> Path:
    """A code that has no picture beside it."""
    from rdm_cli.codes.code import CodeInfo, Codes

    info = CodeInfo(method="diffae", bundle="tiny", bundle_digest="0" * 64, image_size=16)
    Codes(z=torch.zeros(1, 8), x_T=None, infos=(info,)).save([folder / "alone.safetensors"])
    return folder / "alone.safetensors"


def viewer(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the system's viewer."""
    folder.mkdir(exist_ok=True)
    for name in ("xdg-open", "open"):
        path = folder / name
        path.write_text(f"#!{sys.executable}\nimport sys\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))


def test_an_mp4_says_how_it_was_made_and_is_not_decoded(rdm: Rdm, tmp_path: Path) -> None:
    video = struct.pack(">I", 12) + b"ftypisom"
    (tmp_path / "a.mp4").write_bytes(
        video + mp4_box({"software": "rdm 9", "what": "interpolation animation"})
    )
    shown = rdm("show", tmp_path / "a.mp4")
    assert shown.code == 0 and shown.err == "" and facts_of(shown.out)["kind"] == "animation"
    (tmp_path / "a.mp4").write_bytes(video)
    assert rdm("show", tmp_path / "a.mp4").code == 1


def test_open_hands_the_file_to_the_viewer(
    rdm: Rdm, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    viewer(tmp_path / "bin", f"open({str(seen)!r}, 'w').write(repr(sys.argv[1:]))", monkeypatch)
    monkeypatch.chdir(faces)
    shutil.copy("a.png", "-a; touch x.png")
    assert rdm("show", "--open", "--", "-a; touch x.png").code == 0
    assert seen.read_text() == repr([str(faces.resolve() / "-a; touch x.png")])  # no option, and no shell
    refused = rdm("show", code_of(tmp_path), "--open")
    assert refused.code == 2 and "no picture of this code" in refused.err
    viewer(tmp_path / "bin", "sys.exit(4)", monkeypatch)
    failed = rdm("show", "a.png", "--open")
    assert failed.code == 1 and "ended with 4; open it yourself: a.png" in failed.err
    monkeypatch.setenv("PATH", str(tmp_path))
    absent = rdm("show", "a.png", "--open")
    assert absent.code == 1 and "is not installed" in absent.err


def in_a_terminal(*words: object, **environment: str) -> bytes:
    """stdout of rdm in a terminal of its own."""
    here, there = pty.openpty()
    cleared = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TMUX", "STY", "TERM_PROGRAM")}
    command = [sys.executable, "-m", "rdm_cli", "show", *map(str, words)]
    process = subprocess.Popen(
        command, stdin=there, stdout=there, stderr=subprocess.PIPE,
        env={**cleared, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", **environment},
    )  # fmt: skip
    os.close(there)
    content = b""
    while True:
        try:
            part = os.read(here, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        content += part
    os.close(here)
    assert process.wait(60) == 0, process.stderr and process.stderr.read()
    return content


@pytest.mark.parametrize(
    ("term", "begins"),
    [
        ("xterm-kitty", b"\x1b_Ga=T,f=100"),
        ("foot", b"\x1bPq"),
        ("xterm-256color", b"\x1b[38;2;"),
        ("dumb", b""),
    ],
)
def test_a_terminal_sees_the_picture_and_then_the_facts(faces: Path, term: str, begins: bytes) -> None:
    content = in_a_terminal(faces / "a.png", TERM=term)
    assert content.startswith(begins or os.fsencode(faces)) and b"kind" in content.rpartition(b"a.png")[2]
    assert (b"\x1b" in content) == bool(begins)


def test_graphics_may_be_chosen_and_json_has_none(faces: Path) -> None:
    chosen = in_a_terminal(faces / "a.png", "--graphics", "iterm2", TERM="xterm-256color")
    assert chosen.startswith(b"\x1b]1337;File=")
    assert b"\x1b" not in in_a_terminal(faces / "a.png", "--graphics", "none", TERM="xterm-kitty")
    told = in_a_terminal(faces / "a.png", "--json", TERM="xterm-kitty")
    assert json.loads(told)["kind"] == "picture"
