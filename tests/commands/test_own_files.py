"""What rdm made it knows again: it is no input, may be made again, and nothing else is written over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rdm_cli.codes.code import Codes
from rdm_cli.data.images.record import read_record, saving_options

Rdm = Callable[..., Any]
HAT = ("--attr", "hat", "--steps", 1)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_edits_are_named_by_what_was_done(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    one, output = faces / "a.png", tmp_path / "o"
    for edit in (
        ("--attr", "hat"),
        ("--attr", "smiling", "--scale", "-0.5"),
        ("--attr", "hat", "--scale", 1, "--attr", "smiling", "--scale", "-0.25"),
        ("--attr", "hat", "--scales=-1,0,0.5"),
    ):
        assert tiny("manipulate", one, *edit, "--steps", 1, "-o", output).code == 0
    assert sorted(path.name for path in output.glob("*.png")) == [
        "a-hat+0.3.png",
        "a-hat+1-smiling-0.25.png",
        "a-hat-1+0+0.5.png",
        "a-smiling-0.5.png",
    ]
    assert sorted(path.stem for path in output.glob("*.safetensors")) == [
        "a-hat+0.3",
        "a-hat+1-smiling-0.25",
        "a-smiling-0.5",
    ]
    record = read_record(output / "a-smiling-0.5.png")
    assert record is not None and record["what"] == "edit" and record["edits"] == [{"smiling": -0.5}]
    assert record["source"] == "a.png" and record["encoding"]["steps"] == 1


@pytest.mark.parametrize(
    ("command", "taken", "others"),
    [
        (("manipulate", *HAT), "a-hat+0.3.png", 9),
        (("manipulate", *HAT), "a-hat+0.3.safetensors", 9),
        (("reconstruct", "--steps", 1), "a-reconstruction.png", 9),
        (("reconstruct", "--steps", 1), "a-reconstruction-side-by-side.png", 9),
        (("decode", "--steps", 1), "a.png", 5),
    ],
)
def test_a_file_of_the_users_stays_and_the_rest_is_done(
    tiny: Rdm, faces: Path, tmp_path: Path, command: tuple[Any, ...], taken: str, others: int
) -> None:
    """Refused by name, exit 3; the same command again makes the same bytes, and --force replaces."""
    verb, *options = command
    inputs = faces
    if verb == "decode":
        inputs = tmp_path / "codes"
        assert tiny("encode", faces, "-o", inputs, "--steps", 1).code == 0
    output = tmp_path / "o"
    output.mkdir()
    (output / taken).write_bytes(b"my own")
    for _ in range(2):
        result = tiny(verb, inputs, *options, "-o", output)
        assert result.code == 3, result.err
        assert f"{output / taken}: is there already" in result.err and "--force" in result.err
        assert (output / taken).read_bytes() == b"my own"
        assert not any(name.startswith("a") for name in contents(output) if name != taken)
        assert len(contents(output)) == others
    forced = tiny(verb, inputs, *options, "-o", output, "--force")
    assert forced.code == 0 and (output / taken).read_bytes() != b"my own"
    before = contents(output)
    assert tiny(verb, inputs, *options, "-o", output).code == 0 and contents(output) == before


@pytest.mark.parametrize(
    ("first", "then", "told"),
    [
        (("manipulate", *HAT), ("manipulate", "--attr", "hat", "--steps", 2), "solver or number of steps"),
        (("manipulate", *HAT), ("manipulate", *HAT, "--x-t", "random"), "seed"),
        (("reconstruct", "--steps", 1), ("reconstruct", "--steps", 1, "--fit", "pad"), "encoding"),
        (("reconstruct", "--variations", 1), ("reconstruct", "--variations", 2), "variations"),
    ],
)
def test_a_result_of_other_settings_stays(
    tiny: Rdm, faces: Path, tmp_path: Path, first: Any, then: Any, told: str
) -> None:
    one, output = faces / "a.png", tmp_path / "o"
    assert tiny(first[0], one, *first[1:], "-o", output).code == 0
    before = contents(output)
    refused = tiny(then[0], one, *then[1:], "-o", output, "-q")
    assert refused.code == 1 and "is there already, made otherwise (another" in refused.err
    assert told in refused.err and contents(output) == before


def test_a_result_of_another_image_of_that_name_stays(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "o"
    assert tiny("manipulate", faces / "a.png", *HAT, "-o", output).code == 0
    before = contents(output)
    (faces / "a.png").write_bytes((faces / "b.png").read_bytes())
    refused = tiny("manipulate", faces / "a.png", *HAT, "-o", output, "-q")
    assert refused.code == 1 and "made otherwise (another source)" in refused.err
    assert contents(output) == before


def test_a_code_of_another_bundle_stays(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    one, code = faces / "a.png", tmp_path / "a.safetensors"
    assert tiny("encode", one, "-o", tmp_path, "--steps", 1).code == 0
    theirs = Codes.load(code)
    theirs.replace(infos=(replace(theirs.infos[0], bundle="mine", bundle_digest="0" * 64),)).save([code])
    before = code.read_bytes()
    refused = tiny("encode", one, faces / "b.png", "-o", tmp_path, "--steps", 1)
    assert refused.code == 3 and f"{code}: is a code of another bundle, mine (000000000000)" in refused.err
    assert code.read_bytes() == before and (tmp_path / "b.safetensors").is_file()
    assert tiny("encode", one, "-o", tmp_path, "--steps", 1, "--force").code == 0
    assert code.read_bytes() != before


def test_a_lossless_code_outlives_a_plain_rerun(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    one, code = faces / "a.png", tmp_path / "a.safetensors"
    assert tiny("encode", one, "-o", tmp_path, "--lossless").code == 0
    before = code.read_bytes()
    for weaker in ((), ("--no-x-t",), ("--verify",)):
        refused = tiny("encode", one, "-o", tmp_path, *weaker, "-q")
        assert refused.code == 1 and "what brings back every pixel" in refused.err
        assert code.read_bytes() == before
    assert "1 already done" in tiny("encode", one, "-o", tmp_path, "--lossless").err


def test_a_refused_member_of_an_archive_stays(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    output = ("-o", tmp_path / "o", "--tar")
    assert tiny("encode", faces, *output, "--steps", 1).code == 0
    (archive,) = (tmp_path / "o").glob("*.tar")
    before = archive.read_bytes()
    assert tiny("encode", faces, *output, "--no-x-t").code == 1
    assert archive.read_bytes() == before


def test_what_rdm_made_is_no_input(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    """Edits, reconstructions, samples and paths among the photos: passed over and counted, by any verb."""
    assert tiny("manipulate", faces, *HAT).code == 0
    assert tiny("reconstruct", faces / "a.png", "--steps", 1).code == 0
    assert tiny("sample", "-n", 2, "--steps", 1, "-o", faces / "samples").code == 0
    (faces / "a-hat+0.3.png").rename(faces / "renamed.png")
    result = tiny("encode", faces, "-o", tmp_path / "codes", "--steps", 1)
    passed = ", passed over 10 files made by rdm, 7 files of kind .safetensors\n"
    assert result.code == 0 and passed in result.err
    assert len(contents(tmp_path / "codes")) == 5
    # the same of its edits again, and of edits of edits
    again = tiny("manipulate", faces, *HAT, "--scale", 1, "-o", tmp_path / "edits")
    assert again.code == 0 and "edited 7 images" in again.err  # five photos, and the codes of two samples
    # named on its own it is an input as any other
    named = tiny("encode", faces / "renamed.png", "-o", tmp_path / "named", "--steps", 1)
    assert named.code == 0 and len(contents(tmp_path / "named")) == 1


def test_nothing_but_own_pictures_is_said(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    assert tiny("reconstruct", faces / "a.png", "--steps", 1, "-o", tmp_path / "o").code == 0
    result = tiny("encode", tmp_path / "o", "-q")
    assert result.code == 2 and "no images found (passed over 2 files made by rdm)" in result.err
    assert "where they are named as files" in result.err


@pytest.mark.long
def test_examples_and_training_images_are_not_rdms_own(
    rdm: Rdm, tiny: Rdm, faces: Path, tmp_path: Path
) -> None:
    assert tiny("manipulate", faces, *HAT).code == 0
    like = tiny("sample", "-n", 1, "--like", faces, "--max-draws", 1, "--steps", 1, "-o", tmp_path / "s")
    assert f"5 examples from {faces}" in like.err and "passed over 10 files made by rdm" in like.err
    out = ("-o", tmp_path / "new", "--run", tmp_path / "run", "--steps", 1, "--batch-size", 2)
    trained = rdm("train", "dpm", faces, *out, "--preset", "small64")
    assert trained.code == 0, trained.err
    assert f"{faces}: passed over 5 files made by rdm" in trained.err
    for sheet in (tmp_path / "run").rglob("*.png"):
        record = read_record(sheet)
        assert record is not None and record["what"] == "training sheet"


def test_a_drawn_avatar_is_an_input(rdm: Rdm, tmp_path: Path) -> None:
    assert rdm("data", "avatars", tmp_path, "--n", 2, "--size", 16).code == 0
    assert [read_record(path) for path in tmp_path.rglob("*.png")] == [None, None]


@pytest.mark.parametrize("keeps_text", [False, True])
def test_a_result_that_was_changed_is_the_users(
    tiny: Rdm, faces: Path, tmp_path: Path, keeps_text: bool
) -> None:
    """Whoever changes a result has made it their own: it stays, with the record's text or without."""
    assert tiny("manipulate", faces / "a.png", *HAT, "-o", tmp_path).code == 0
    path = tmp_path / "a-hat+0.3.png"
    with Image.open(path) as image:
        pixels = 255 - np.asarray(image)
    record = read_record(path)
    assert record is not None
    Image.fromarray(pixels).save(path, **(saving_options(record, "PNG") if keeps_text else {}))
    refused = tiny("manipulate", faces / "a.png", *HAT, "-o", tmp_path, "-q")
    told = "was changed since rdm made it" if keeps_text else "rdm did not make it"
    assert refused.code == 1 and told in refused.err
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), pixels)
