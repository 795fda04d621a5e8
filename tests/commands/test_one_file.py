"""One picture in, one picture out: an -o that ends in a picture's or a code's suffix is that very file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.codes.code import Codes, read_info
from rdm_cli.commands.manipulate import edit_name
from rdm_cli.data.images.record import is_own_picture, read_record

Rdm = Callable[..., Any]


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def values(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


@pytest.fixture
def code(tiny: Rdm, faces: Path, tmp_path: Path) -> Path:
    path = tmp_path / "code.safetensors"
    assert tiny("encode", faces / "a.png", "-o", path).lines == [str(path)]
    return path


@pytest.mark.parametrize(
    ("words", "written"),
    [
        (("encode",), ["x.safetensors"]),
        (("reconstruct",), ["x-side-by-side.png", "x.png"]),
        (("manipulate", "--attr", "hat"), ["x.png", "x.safetensors"]),
        (("manipulate", "--attr", "hat", "--scales=-1,1"), ["x.png"]),
    ],
)
def test_the_file_that_is_named_is_written(
    tiny: Rdm, faces: Path, tmp_path: Path, words: tuple[str, ...], written: list[str]
) -> None:
    """Whatever goes with the result lies beside it, with the same stem; the folder is made."""
    place = tmp_path / "new" / ("x.safetensors" if words[0] == "encode" else "x.png")
    result = tiny(words[0], faces / "a.png", *words[1:], "-o", place, "--json")
    assert result.code == 0 and [one["output"] for one in result.objects] == [str(place)]
    assert names(tmp_path / "new") == written
    folder = tmp_path / "folder"
    assert tiny(words[0], faces / "a.png", *words[1:], "-o", folder).code == 0
    (same,) = (folder / name for name in names(folder) if name.endswith(place.suffix) and "side" not in name)
    if place.suffix == ".png":  # whose record names the command, too
        assert np.array_equal(values(place), values(same))
    else:
        assert place.read_bytes() == same.read_bytes()
    again = tiny(words[0], faces / "a.png", *words[1:], "-o", place)
    assert again.code == 0, "its own result is no stranger's file"


def test_decode_sample_and_interpolate_write_one_file(
    tiny: Rdm, code: Path, faces: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert tiny("decode", code, "-o", out / "d.png").lines == [str(out / "d.png")]
    assert tiny("sample", "--n", 1, "-o", out / "s.png").lines == [str(out / "s.png")]
    walk = ("interpolate", faces / "a.png", faces / "b.png", "--frames", 3)
    assert tiny(*walk, "-o", out / "i.png").lines == [str(out / "i.png")]
    for name in ("i.gif", "i.webp"):
        done = tiny(*walk, "--animation", "webp", "-o", out / name)
        assert done.code == 0 and done.lines == [str(out / name)]
        with Image.open(out / name) as animation:
            assert animation.n_frames == 4 and read_record(out / name) is not None
    assert names(out) == ["d.png", "i.gif", "i.png", "i.webp", "s.png", "s.safetensors"]
    tiny("sample", "--n", 1, "-o", tmp_path / "s")
    assert np.array_equal(values(out / "s.png"), values(tmp_path / "s" / "000000.png"))
    tiny(*walk, "-o", tmp_path / "i")
    assert np.array_equal(values(out / "i.png"), values(tmp_path / "i" / "strip.png"))
    assert "1 already there" in tiny("sample", "--n", 1, "-o", out / "s.png").err


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".JPEG"])
def test_each_format_keeps_the_record_of_how_it_was_made(
    tiny: Rdm, code: Path, tmp_path: Path, suffix: str
) -> None:
    place, plain = tmp_path / f"x{suffix}", tmp_path / "plain.png"
    assert tiny("decode", code, "-o", place).code == tiny("decode", code, "-o", plain).code == 0
    record = read_record(place)
    assert record is not None and is_own_picture(place) and record["what"] == "decode"
    difference = np.abs(values(place) - values(plain)).max()
    assert difference == 0 if suffix in (".png", ".webp") else difference <= 16
    # the same once more is no stranger's; one whose pixels another program changed is
    assert tiny("decode", code, "-o", place).code == 0
    with Image.open(place) as image:
        brighter = Image.eval(image.convert("RGB"), lambda value: 255 - value)
        kept = {"exif": image.getexif().tobytes()} if suffix != ".png" else {}
    if kept:
        brighter.save(place, **kept)
        assert read_record(place) == record
        assert "was changed since rdm made it" in tiny("decode", code, "-o", place).err


def test_pictures_of_every_format_are_no_inputs_of_a_folder(tiny: Rdm, code: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    for suffix in (".png", ".webp", ".jpg"):
        tiny("decode", code, "-o", folder / f"x{suffix}")
    Image.new("RGB", (16, 16)).save(folder / "photo.jpg")
    Image.new("RGB", (16, 16)).save(folder / "photo2.webp")
    result = tiny("encode", folder, "-o", tmp_path / "codes")
    assert names(tmp_path / "codes") == ["photo.safetensors", "photo2.safetensors"]
    assert "passed over 3 files made by rdm" in result.err


def test_every_pixel_does_not_fit_into_a_jpeg(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    code = tmp_path / "x.safetensors"
    assert tiny("encode", faces / "a.png", "--lossless", "-o", code).code == 0
    refused = tiny("decode", code, "-o", tmp_path / "x.jpg")
    assert refused.code == 1 and "a JPEG does not keep every pixel" in refused.err
    assert tiny("decode", code, "-o", tmp_path / "x.webp").code == 0
    assert np.array_equal(values(tmp_path / "x.webp"), values(faces / "a.png"))


def test_several_inputs_do_not_go_into_one_file(tiny: Rdm, code: Path, faces: Path, tmp_path: Path) -> None:
    a, b, place = faces / "a.png", faces / "b.png", tmp_path / "x.png"
    (tmp_path / "list").write_text(f"{a}\n{b}\n")
    before = names(tmp_path)
    for words, told in (
        (("manipulate", a, b, "--attr", "hat", "-o", place), "is one file, and there are several inputs"),
        (("reconstruct", faces, "-o", place), f"is one file, and {faces} is a folder"),
        (("decode", code, "--files-from", tmp_path / "list", "-o", place), "there are several inputs"),
        (("reconstruct", "--files-from", tmp_path / "list", "-o", place), "there are several inputs"),
        (("sample", "--n", 2, "-o", place), "is one file, and goes with --n 1"),
        (("sample", "--n", 1, "--shard", "1/2", "-o", place), "is one file, and goes with --n 1"),
    ):
        refused = tiny(*words)
        assert refused.code == 2 and told in refused.err and "name a folder for the results" in refused.err
    for words, told in (
        (("decode", code, "--shard", "1/2", "-o", place), "is one file, and --shard divides many"),
        (("decode", code, "--tar", "-o", place), "is one file, and --tar writes archives"),
        (("encode", a, "-o", place), "name a folder, or a file that ends in .safetensors"),
        (("decode", code, "-o", tmp_path / "x.gif"), "the result is not written as .gif"),
        (("interpolate", a, b, "-o", tmp_path / "x.tiff"), "the result is not written as .tiff"),
        (("decode", code, "-o", "https://example.org/x.png"), "results are not written to https://"),
    ):
        refused = tiny(*words)
        assert refused.code == 2 and told in refused.err
    assert names(tmp_path) == before


def test_a_named_list_of_one_goes_into_one_file(tiny: Rdm, code: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"{code}\n")
    place = tmp_path / "x.png"
    assert tiny("decode", "--files-from", tmp_path / "list", "-o", place).lines == [str(place)]


def test_stdin_goes_into_one_file(tiny: Rdm, code: Path, tmp_path: Path) -> None:
    result = tiny("decode", "-", "-o", tmp_path / "x.png", stdin=code.read_bytes())
    assert result.code == 0 and names(tmp_path)[-1] == "x.png"


def test_a_folder_called_like_a_picture_stays_one(tiny: Rdm, code: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    assert tiny("decode", code, "-o", tmp_path / "x.png").lines == [str(tmp_path / "x.png" / "code.png")]
    assert tiny("sample", "--n", 1, "-o", f"{tmp_path}/y.png/").code == 0
    assert names(tmp_path / "y.png") == ["000000.png", "000000.safetensors", "grid.png"]


def test_nothing_of_others_is_replaced(tiny: Rdm, code: Path, faces: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.png"
    shutil.copyfile(faces / "c.png", own)
    (tmp_path / "own.safetensors").write_bytes(b"mine")
    (tmp_path / "free.safetensors").write_bytes(b"mine, too")
    (tmp_path / "y-side-by-side.png").write_bytes(b"mine as well")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for words in (
        ("manipulate", faces / "a.png", "hat=1", "-o", own),
        ("manipulate", faces / "a.png", "hat=1", "-o", tmp_path / "free.png"),
        ("reconstruct", faces / "a.png", "-o", tmp_path / "y.png"),
        ("decode", code, "-o", own),
        ("encode", faces / "a.png", "-o", tmp_path / "own.safetensors"),
        ("sample", "--n", 1, "-o", own),
        ("sample", "--n", 1, "-o", tmp_path / "free.png"),
        ("interpolate", faces / "a.png", faces / "b.png", "-o", own),
    ):
        refused = tiny(*words)
        assert refused.code == 1 and "is there already" in refused.err and "--force" in refused.err
    for words in (
        ("manipulate", own, "hat=1", "-o", own, "--force"),
        ("interpolate", own, faces / "b.png", "-o", own, "--force"),
        ("manipulate", code, "hat=1", "-o", tmp_path / "code.png", "--force"),
    ):
        refused = tiny(*words)
        assert refused.code == 2 and "would replace the input" in refused.err
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert tiny("decode", code, "-o", own, "--force").code == 0


def test_attributes_are_named_with_their_scales(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    a = faces / "a.png"
    words = ("--attr", "smiling", "--scale", 0.3, "--attr", "hat", "--scale", "-1")
    assert tiny("manipulate", a, *words, "-o", tmp_path / "o.png").code == 0
    for number, others in enumerate((("smiling=0.3", "hat=-1"), ("hat=-1", "--attr", "smiling"))):
        place = tmp_path / f"{number}.png"
        assert tiny("manipulate", a, *others, "-o", place).code == 0
        assert np.array_equal(values(place), values(tmp_path / "o.png"))
    for others, told in (
        (("hat=much",), "hat=much: no such file or folder, and 'much' is no number"),
        (("hat=1", "--attr", "hat"), "an attribute is named twice"),
        (("hat=1", "hat=2"), "an attribute is named twice"),
        (("hat=inf",), "finite"),
        (("hat=1", "--attr", "smiling", "--scales", "0,1"), "--scales goes with one --attr"),
        (("hatt=1",), "did you mean 'hat'?"),
        (("hat=1.png", "hat=1"), "no such file or folder"),
        ((), "no attribute was named"),
    ):
        refused = tiny("manipulate", a, *others, "-o", tmp_path / "refused.png")
        assert refused.code == 2 and told in refused.err
    assert not (tmp_path / "refused.png").exists()


def test_a_file_of_that_very_name_is_an_input(
    tiny: Rdm, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copyfile(faces / "a.png", tmp_path / "hat=1")
    monkeypatch.chdir(tmp_path)
    assert tiny("manipulate", "hat=1", "hat=2", "-o", "x.png").code == 0
    assert read_info(tmp_path / "x.safetensors").edits == ("hat:2",)


def test_codes_are_edited_with_the_bundle_that_they_record(
    rdm: Rdm, tiny_bundle: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two bundles in one call, each code with its own; and an image with the one that is usual."""
    import torch

    from rdm_cli.bundles.writing import save_bundle

    monkeypatch.delenv("RDM_BUNDLE", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_bundle, "one")
    opened = open_bundle("one")
    with torch.no_grad():
        next(iter(opened.model.parameters())).add_(0.01)
    save_bundle(Path("two"), opened.method, opened.model, card="# two\n", directions=opened.directions)  # type: ignore[arg-type]
    for name in ("one", "two"):
        assert rdm("encode", faces / "a.png", "-b", name, "-o", f"{name}.safetensors").code == 0
    edit = ("hat=0.5", "-o", "edits")
    assert rdm("manipulate", "one.safetensors", "two.safetensors", *edit).code == 0
    done = edit_name([{"hat": 0.5}])
    for name in ("one", "two"):
        assert read_info(Path("edits") / f"{name}-{done}.safetensors").bundle == name
        alone = rdm("manipulate", f"{name}.safetensors", "hat=0.5", "-b", name, "-o", f"{name}-alone.png")
        assert alone.code == 0
        assert np.abs(values(Path(f"{name}-alone.png")) - values(Path(f"edits/{name}-{done}.png"))).max() <= 1
    other = rdm("manipulate", "one.safetensors", *edit, "-b", "two", "--force")
    assert other.code == 1 and "was made with bundle one" in other.err
    walk = rdm("interpolate", "two.safetensors", "two.safetensors", "--frames", 2, "-o", "walk")
    assert walk.code == 0 and Codes.load(Path("walk/frame-0000.safetensors")).infos[0].bundle == "two"
    mixed = rdm("interpolate", "two.safetensors", "one.safetensors", "-o", "no.png")
    assert mixed.code == 1 and "one.safetensors: this code was made with bundle one" in mixed.err
    # an attribute that is unknown is said once, by the bundle of the first code
    unknown = rdm("manipulate", "one.safetensors", "two.safetensors", "hatt=1", "-o", "no")
    assert unknown.code == 2 and unknown.err.count("did you mean") == 1
    # a bundle that is gone is named, and what helps
    shutil.rmtree("one")
    for words in (
        ("manipulate", "one.safetensors", *edit),
        ("interpolate", "one.safetensors", faces / "a.png"),
    ):
        gone = rdm(*words)
        assert gone.code == 1 and "one: no such bundle" in gone.err and "--bundle" in gone.err
    some = rdm("manipulate", "one.safetensors", "two.safetensors", "hat=0.5", "-o", "some")
    assert some.code == 3 and names(Path("some")) == [f"two-{done}.png", f"two-{done}.safetensors"]
