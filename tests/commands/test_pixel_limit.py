"""--max-pixels on every command that reads images; a file that changes while it is read."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from rdm_cli.cli import app
from rdm_cli.core import inputs

Rdm = Callable[..., Any]

READS_NO_IMAGES = {
    ("attributes", "list"), ("attributes", "show"), ("bundles", "check"), ("bundles", "convert"),
    ("bundles", "copy"), ("bundles", "list"), ("bundles", "show"), ("codes", "merge"), ("codes", "status"),
    ("codes", "table"),
    ("codes", "verify"), ("data", "avatars"), ("doctor",), ("train", "attributes"),
    ("train", "prior"),
}  # fmt: skip


def leaves(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    children = getattr(command, "commands", None)
    if not children:
        return {path: command}
    return {p: c for name, child in children.items() for p, c in leaves(child, (*path, name)).items()}


def test_every_command_that_reads_images_has_the_option() -> None:
    found = leaves(typer.main.get_command(app))
    without = {path for path, c in found.items() if not any("--max-pixels" in p.opts for p in c.params)}
    assert without <= READS_NO_IMAGES


def test_too_large_images_fail_by_name_until_the_limit_is_raised(
    tiny: Rdm, faces: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (20, 20)).save(faces / "large.png")
    said = f"{faces}/large.png: more than 300 pixels; raise --max-pixels if it can be trusted"
    for verb, *options in (
        ("encode", "--no-x-t"), ("reconstruct", "--steps", 1), ("manipulate", "--attr", "hat", "--steps", 1),
    ):  # fmt: skip
        words = (verb, faces / "large.png", faces / "a.png", "-o", tmp_path / verb, *options, "-q")
        result = tiny(*words, "--max-pixels", 300)
        assert result.code == 3 and result.err == f"rdm: {said}\n"
        assert tiny(*words, "--max-pixels", 400).code == 0
    pair = (faces / "a.png", faces / "large.png")
    for words in (("interpolate", *pair, "-o", tmp_path / "i"), ("sample", "--like", faces, "-n", 1)):
        result = tiny(*words, "-q", "--max-pixels", 300)
        assert result.code == 1 and result.err == f"rdm: {said}\n"


def test_an_image_that_changes_while_it_is_read_is_no_image(
    tiny: Rdm, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the code would record the digest of one picture and hold another."""
    load, changed = inputs.Pipeline.load_images, io.BytesIO()
    Image.new("RGB", (16, 16)).save(changed, "PNG")

    def meanwhile(self: Any, paths: Any, *rest: Any) -> Any:
        x_0 = load(self, paths, *rest)
        if paths[0].name == "a.png":
            paths[0].write_bytes(changed.getvalue())
        if paths[0].name == "b.png":
            paths[0].unlink()
        return x_0

    monkeypatch.setattr(inputs.Pipeline, "load_images", meanwhile)
    words = ("encode", faces / "a.png", faces / "b.png", faces / "c.png", "-o", tmp_path / "o", "-q")
    result = tiny(*words, "--no-x-t")
    assert result.code == 3
    first, second = result.err.splitlines()
    assert first.startswith(f"rdm: {faces}/a.png: the file changed while it was read")
    assert second == f"rdm: {faces}/b.png: No such file or directory"
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["c.safetensors"]
    shutil.copy(faces / "c.png", faces / "b.png")
