"""--max-pixels on every command that reads images; a file that changes while it is read."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from rdm_cli.cli import app
from rdm_cli.codes.code import read_info
from rdm_cli.data.io import places
from rdm_cli.data.io.places import digest_of
from rdm_cli.jobs import loading

Rdm = Callable[..., Any]

READS_NO_IMAGES = {
    ("attributes", "add"), ("attributes", "discover"), ("attributes", "export"), ("attributes", "import"),
    ("attributes", "list"), ("attributes", "remove"), ("attributes", "rename"), ("attributes", "show"),
    ("bundles", "check"), ("bundles", "convert"),
    ("bundles", "copy"), ("bundles", "list"), ("bundles", "pull"), ("bundles", "push"), ("bundles", "show"),
    ("codes", "merge"), ("codes", "status"), ("demo",),
    ("codes", "index"), ("codes", "table"),
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


def encoded_while_a_changes_and_b_goes(
    tiny: Rdm, faces: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Encode three images; while they are decoded, a.png becomes another picture and b.png vanishes."""
    load, changed = loading.Pipeline.load_with_size, io.BytesIO()
    Image.new("RGB", (16, 16)).save(changed, "PNG")

    def meanwhile(self: Any, source: Any, *rest: Any) -> Any:
        found = load(self, source, *rest)
        if source.name == "a.png":
            (faces / "a.png").write_bytes(changed.getvalue())
        if source.name == "b.png":
            (faces / "b.png").unlink()
        return found

    monkeypatch.setattr(loading.Pipeline, "load_with_size", meanwhile)
    words = ("encode", faces / "a.png", faces / "b.png", faces / "c.png", "-o", output, "-q")
    return tiny(*words, "--no-x-t")


def test_a_code_is_of_the_bytes_whose_digest_it_records(
    tiny: Rdm, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that changes while it is decoded: else the code records one picture and holds another."""
    digests = {name: digest_of(faces / f"{name}.png") for name in "abc"}
    alone = tiny("encode", faces / "a.png", "-o", tmp_path / "alone", "-q", "--no-x-t", "--batch-size", 4)
    assert alone.code == 0
    with monkeypatch.context() as patch:
        assert encoded_while_a_changes_and_b_goes(tiny, faces, tmp_path / "o", patch).code == 0
    for name, digest in digests.items():
        assert read_info(tmp_path / "o" / f"{name}.safetensors").source_digest == digest
    codes = [tmp_path / folder / "a.safetensors" for folder in ("o", "alone")]
    assert codes[0].read_bytes() == codes[1].read_bytes()
    again = tiny("encode", faces / "a.png", "-o", tmp_path / "o", "--no-x-t", "--json")
    assert not again.objects[0]["skipped"]  # it is another image now


def test_a_large_image_that_changes_while_it_is_read_is_no_image(
    tiny: Rdm, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too large to be held in memory is read twice."""
    monkeypatch.setattr(places, "LARGEST_IN_MEMORY", 0)
    result = encoded_while_a_changes_and_b_goes(tiny, faces, tmp_path / "o", monkeypatch)
    assert result.code == 3
    first, second = result.err.splitlines()
    assert first.startswith(f"rdm: {faces}/a.png: the file changed while it was read")
    assert second == f"rdm: {faces}/b.png: No such file or directory"
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["c.safetensors"]
