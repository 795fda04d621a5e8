"""Names with line breaks, terminal escapes, markup and bytes of no encoding: one line each, never obeyed."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rdm_cli.console import Console

Rdm = Callable[..., Any]

EVIL = "a\n\x1b]0;owned\x07\u202e[red]"
SHOWN = r"a\n\x1b]0;owned\x07\u202e[red]"
LATIN = os.fsdecode(b"caf\xe9")


def test_results_take_one_line_each(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in (EVIL, LATIN):
        shutil.copy(faces / "a.png", folder / f"{name}.png")
    out = tmp_path / "o"
    result = tiny("encode", folder, "-o", out, "--no-x-t", "-q")
    assert result.code == 0 and result.err == ""
    assert result.raw.splitlines() == [
        os.fsencode(f"{out}/{SHOWN}.safetensors"),
        os.fsencode(f"{out}/{LATIN}.safetensors"),  # a program can open it
    ]
    again = tiny("encode", folder, "-o", out, "--no-x-t", "-q", "--json")
    assert [o["output"] for o in again.objects] == [f"{out}/{n}.safetensors" for n in (EVIL, LATIN)]
    for verb in (("decode", out, "-o", tmp_path / "d"), ("reconstruct", folder, "-o", tmp_path / "r")):
        assert tiny(*verb, "--steps", 1, "-q").code == 0


def test_failures_take_one_line_each(tiny: Rdm, tmp_path: Path) -> None:
    for name in (EVIL, LATIN):
        (tmp_path / f"{name}.png").write_text("no image")
    failures = tmp_path / "failures"
    result = tiny("encode", tmp_path, "-o", tmp_path / "o", "--failures", failures, "--json", "-q")
    assert result.code == 1
    first, second = result.err.splitlines()
    assert first == f"rdm: {tmp_path}/{SHOWN}.png: not an image that can be read"
    assert second == rf"rdm: {tmp_path}/caf\xe9.png: not an image that can be read"
    assert [o["input"] for o in result.objects] == [f"{tmp_path}/{n}.png" for n in (EVIL, LATIN)]
    assert EVIL in json.loads(failures.read_text().splitlines()[0])["error"]


def test_errors_about_names_take_one_line(rdm: Rdm, tmp_path: Path) -> None:
    for words in (
        ("encode", tmp_path / EVIL), ("encode", "x", "-b", EVIL), ("bundles", "show", EVIL), (EVIL,),
        ("encode", f"--{EVIL}"), ("train", "attributes", tmp_path, "--labels", EVIL, "-b", EVIL),
        ("bundles", "convert", EVIL, "x", "-o", tmp_path / "o"), ("encode", "--files-from", EVIL),
    ):  # fmt: skip
        result = rdm(*words)
        assert result.code in (1, 2)
        (line,) = result.err.splitlines()
        assert line.isprintable()


def test_tables_take_no_markup_and_documents_no_escapes(rdm: Rdm, tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    path = bundle / "attributes" / "attributes.json"
    known = json.loads(path.read_text())
    known["names"][:2] = ["[/red]", "\x1b[2J"]
    path.write_text(json.dumps(known))
    (bundle / "README.md").write_text("# title\n\x1b[2Jtext\n")
    listed = rdm("attributes", "list", "-b", bundle)
    assert listed.code == 0 and "[/red]" in listed.out and r"\x1b[2J" in listed.out
    assert "\x1b" not in listed.out + rdm("bundles", "show", bundle).out
    assert rdm("bundles", "show", bundle, "--card").lines == ["# title", r"\x1b[2Jtext"]


def test_a_terminal_is_shown_bytes_of_no_encoding(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    Console().emit(LATIN)
    assert capsysbinary.readouterr().out == b"caf\\xe9\n"


def test_cards_of_files_with_such_names_can_be_written(rdm: Rdm, tmp_path: Path) -> None:
    from rdm_cli.bundles.cards import conversion_card, training_card

    card = conversion_card(name=EVIL, title="x", files=[LATIN, EVIL], summary="y")
    assert r"- `caf\xe9`" in card.splitlines() and f"# {SHOWN}" in card.splitlines()
    trained = training_card(
        name=LATIN, title="x", commands=[f"rdm train {LATIN}"], data=EVIL, num_images=1, num_parameters=1
    )
    io.BytesIO().write((card + trained).encode("utf-8"))


def test_names_in_a_code_are_escaped(rdm: Rdm, tmp_path: Path) -> None:
    info = {
        "format_version": 1, "method": "diffae", "bundle": EVIL, "bundle_digest": EVIL, "image_size": 16,
    }  # fmt: skip
    save_file({"z": torch.zeros(8)}, tmp_path / "a.safetensors", metadata={"rdm": json.dumps(info)})
    result = rdm("decode", tmp_path / "a.safetensors", "-q")
    assert result.code == 1
    (line,) = result.err.splitlines()
    assert SHOWN in line
