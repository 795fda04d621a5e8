"""The Python API as a notebook uses it: what it takes, what it gives, and in whose words it refuses."""

from __future__ import annotations

import ast
import pydoc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import rdm_cli as rdm
from rdm_cli.data.images.pixels import to_pixels, to_unit_range
from rdm_cli.errors import settings_written_by

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pipe(tiny_bundle: Path) -> rdm.Pipeline:
    return rdm.open_pipeline(tiny_bundle, device="cpu", batch_size=4)


@pytest.fixture
def pictures(faces: Path) -> list[Image.Image]:
    return [Image.open(faces / f"{name}.png") for name in "abcd"]


def same(actual: Tensor | None, expected: Tensor | None) -> None:
    assert actual is not None and expected is not None and torch.equal(actual, expected)


def test_images_of_every_kind_are_the_same_codes(
    pipe: rdm.Pipeline, faces: Path, pictures: list[Image.Image]
) -> None:
    """Paths, PIL images, arrays and tensors of the same pixels, mixed."""
    expected = pipe.encode([faces / f"{name}.png" for name in "abcd"], steps=2)
    array, tensor = np.asarray(pictures[2]), to_unit_range(torch.from_numpy(np.array(pictures[3])))
    mixed = pipe.encode([str(faces / "a.png"), pictures[1], array, tensor.permute(2, 0, 1)], steps=2)
    same(mixed.z, expected.z)
    same(mixed.x_T, expected.x_T)
    assert expected.names == ("a", "b", "c", "d") and mixed.names == ("a", "000001", "000002", "000003")
    info = mixed.infos[0]
    assert info.source == "a.png" and info.source_size == (16, 16) and len(info.source_digest or "") == 64
    assert [i.source for i in mixed.infos[1:]] == [None] * 3
    stacked = np.stack([np.asarray(p) for p in pictures])
    same(pipe.load_images(stacked), pipe.load_images(pictures))
    same(pipe.load_images([pipe.load_images(stacked)]), pipe.load_images(stacked))


def test_a_folder_stands_for_its_images_and_what_is_passed_over_is_said(
    pipe: rdm.Pipeline, faces: Path
) -> None:
    (faces / "notes.txt").write_text("none")
    with pytest.warns(UserWarning, match=r"passed over 1 file of kind \.txt"):
        codes = pipe.encode(faces, with_x_T=False)
    assert codes.names == ("a", "b", "c", "d", "sub/e")


def test_other_sizes_and_kinds_of_pictures_are_fitted(pipe: rdm.Pipeline) -> None:
    wide = Image.new("RGBA", (40, 20), (255, 0, 0, 255))
    for image in (wide, np.asarray(wide), np.asarray(wide.convert("L")), Image.new("I;16", (9, 9), 65535)):
        assert pipe.load_images(image).shape == (1, 3, 16, 16)
    padded = pipe.load_images(wide, "pad")
    assert (padded[0, :, 0] == 1).all() and pipe.encode(wide, fit="pad", steps=1).infos[0].fit == "pad"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (np.zeros((16, 16, 3), dtype=np.float32), r"uint8 \(H, W, 3\).* and not float32 \(16, 16, 3\)"),
        (np.zeros((3, 16, 16), dtype=np.uint8), r"and not uint8 \(3, 16, 16\)"),
        (np.zeros((0, 16, 3), dtype=np.uint8), r"and not uint8 \(0, 16, 3\)"),
        (torch.zeros(2, 16, 16), r"\(N, 3, 16, 16\) or \(3, 16, 16\), not \(2, 16, 16\)"),
        (7, "and no int"),
        ({"a": 1}, "and no dict"),
        (b"a.png", "and no bytes"),
        ([], "no image is named"),
    ],
)
def test_what_is_no_image_is_a_value_error(pipe: rdm.Pipeline, wrong: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pipe.encode(wrong)


def test_pictures_come_in_three_forms(pipe: rdm.Pipeline) -> None:
    codes = pipe.sample(2, steps=2)
    x_0, images, array = (pipe.decode(codes, output=o) for o in ("pt", "pil", "np"))
    assert isinstance(x_0, Tensor) and isinstance(images, list) and isinstance(array, np.ndarray)
    assert array.shape == (2, 16, 16, 3) and array.dtype == np.uint8
    np.testing.assert_array_equal(array, to_pixels(x_0).permute(0, 2, 3, 1).numpy())
    np.testing.assert_array_equal(array[1], np.asarray(images[1]))
    with pytest.raises(ValueError, match="no output 'jpg'; known: pt, pil, np"):
        pipe.decode(codes, output="jpg")  # type: ignore[call-overload]


def test_manipulate_gives_codes_for_codes_and_pictures_for_images(pipe: rdm.Pipeline, faces: Path) -> None:
    codes = pipe.encode(faces / "a.png", steps=2)
    edited = pipe.manipulate(codes, {"smiling": 0.3})
    assert isinstance(edited, rdm.Codes) and edited.names == ("a",)
    expected = pipe.decode(edited)
    same(pipe.manipulate(codes, {"smiling": 0.3}, output="pt"), expected)  # type: ignore[arg-type]
    same(pipe.manipulate(faces / "a.png", {"smiling": 0.3}, steps=2), expected)  # type: ignore[arg-type]
    (image,) = pipe.manipulate(str(faces / "a.png"), {"smiling": 0.3}, output="pil")
    assert image.size == (16, 16)
    for wrong in ({"smiling": "much"}, ["smiling"]):
        with pytest.raises(ValueError, match="attributes map names to numbers"):
            pipe.manipulate(codes, wrong)  # type: ignore[call-overload]


def test_samples_record_the_solver_and_steps_that_they_are_drawn_for(pipe: rdm.Pipeline) -> None:
    codes = pipe.sample(2, solver="unipc", steps=3)
    assert (codes.infos[0].solver, codes.infos[0].steps) == ("unipc", 3)
    expected = pipe.decode(pipe.sample(2), solver="unipc", steps=3)
    same(pipe.decode(codes), expected)
    same(pipe.sample(2, solver="unipc", steps=3, output="pt"), expected)  # type: ignore[arg-type]
    assert not torch.equal(pipe.decode(pipe.sample(2), steps=3), expected)
    assert pipe.sample(2).infos[0].steps is None
    with pytest.raises(rdm.RdmError, match="no solver 'unip'; did you mean 'unipc'"):
        pipe.sample(1, solver="unip")


def test_codes_are_saved_into_a_folder_and_keep_their_names(
    pipe: rdm.Pipeline, faces: Path, tmp_path: Path
) -> None:
    codes = pipe.encode([faces, faces / "a.png"], steps=1)
    with pytest.raises(ValueError, match="two of these codes are called 'a'"):
        codes.save(tmp_path / "codes")
    assert not (tmp_path / "codes").exists()
    digests = codes[:5].save(f"{tmp_path}/codes/")
    assert digests == codes[:5].digests() and (tmp_path / "codes/sub/e.safetensors").is_file()
    again = rdm.Codes.load(f"{tmp_path}/codes/")
    assert again.names == codes[:5].names and again.infos == codes[:5].infos
    same(again.x_T, codes[:5].x_T)
    assert again[3:].names == ("d", "sub/e") and rdm.Codes.load(tmp_path / "codes/a.safetensors").names == (
        "a",
    )
    pipe.sample(2).save(tmp_path / "drawn")
    assert rdm.Codes.load(tmp_path / "drawn").names == ("000000", "000001")
    for name in ("../a", "/a", ""):
        with pytest.raises(ValueError, match="a path below the folder"):
            codes[0].replace(names=(name,)).save(tmp_path / "codes")
    with pytest.raises(ValueError, match="1 infos need as many rows of names, not 2"):
        codes[0].replace(names=("a", "b"))
    with pytest.raises(rdm.RdmError, match="no codes found"):
        rdm.Codes.load(faces)


def test_what_is_printed_is_short(pipe: rdm.Pipeline) -> None:
    text = repr(pipe)
    for part in (
        "Pipeline tiny, method diffae",
        "16 x 16, RGB",
        "(8,)",
        "3: smiling, glasses, hat",
        "cpu, fp32",
    ):
        assert part in text
    assert len(text.splitlines()) <= 8 and len(repr(pipe.bundle)) < 300
    assert repr(pipe.sample(2)) == "<Codes: 2 of tiny; z (2, 8), x_T (2, 3, 16, 16)>"
    lines = repr(pipe.attributes).splitlines()
    assert lines[0] == "smiling  AUROC 0.900, AP 0.800, 5 of 10 examples have it" and "no scores" in lines[2]
    assert (
        list(pipe.attributes) == ["smiling", "glasses", "hat"] and pipe.attributes["smiling"]["auroc"] == 0.9
    )


def test_dir_and_help_show_what_a_user_has_use_for(pipe: rdm.Pipeline) -> None:
    assert set(rdm.__all__) <= set(dir(rdm)) and "import_module" not in dir(rdm)
    assert all(hasattr(pipe, name) for name in dir(pipe))
    assert {"encode", "decode", "manipulate", "interpolate", "sample", "to"} <= set(dir(pipe))
    assert not {"in_batches", "eps_fn", "info_of"} & set(dir(pipe))
    text = pydoc.render_doc(rdm, renderer=pydoc.plaintext)
    assert "open_pipeline(" in text and "class Codes" in text and "show(" in text
    for name in rdm.__all__:
        assert name == "__version__" or getattr(rdm, name).__doc__


def test_a_pipeline_moves_in_place(pipe: rdm.Pipeline) -> None:
    assert pipe.to("cpu") is pipe and pipe.device == torch.device("cpu")
    with pytest.raises(rdm.RdmError, match="^device nonsense: "):
        pipe.to("nonsense")


def test_all_networks_of_a_bundle_move(tiny_bundle: Path) -> None:
    """The weights in half precision and the prior, too; "meta" is a device that every machine has."""
    bundle = rdm.open_pipeline(tiny_bundle, device="cpu").bundle
    networks = [bundle.model, bundle.model_in("bf16"), bundle.prior]
    bundle.move_to(torch.device("meta"))
    assert bundle.device.type == "meta"
    for network in networks:
        assert {value.device.type for value in network.state_dict().values()} == {"meta"}  # type: ignore[union-attr]


def test_a_strip_has_a_row_for_each_entry_and_a_label_for_each_column(pipe: rdm.Pipeline) -> None:
    x_0 = pipe.load_images(np.zeros((2, 16, 16, 3), dtype=np.uint8))
    strip = rdm.show(x_0, height=32)
    assert strip.size == (2 * 36 - 4, 32) and strip.getpixel((0, 0)) == (0, 0, 0)
    rows = rdm.show({"black": x_0, "white": [Image.new("RGB", (16, 16), "white")] * 2}, ["a", "b"], height=32)
    assert rows.height > 64 and rows.width > strip.width
    ink = np.asarray(rows)[: rows.height - 68] < 128
    assert ink.any()  # the labels
    for wrong in (
        torch.zeros(2, 2, 4, 4),
        np.zeros((4, 4, 3)),
        [],
        "a.png",
        torch.zeros(3, 4, 4, dtype=torch.uint8),
    ):
        with pytest.raises(ValueError, match="images"):
            rdm.show(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 columns need as many labels, not 1"):
        rdm.show(x_0, ["a"])


def test_anything_wrong_is_told_in_the_words_of_python(pipe: rdm.Pipeline) -> None:
    codes = pipe.sample(2, steps=2)
    wrong: list[Any] = [
        lambda: pipe.decode(codes, steps=0),
        lambda: pipe.decode(codes, steps="5"),  # type: ignore[call-overload]
        lambda: pipe.decode(codes.z),  # type: ignore[call-overload]
        lambda: pipe.decode(codes, solver="euler"),
        lambda: pipe.manipulate(codes, {"smiling": float("nan")}),
        lambda: pipe.interpolate(codes[0], codes[1], [1.5]),
        lambda: pipe.interpolate(codes[0], codes[1], ["half"]),  # type: ignore[list-item]
        lambda: pipe.sample(0),
        lambda: pipe.sample("4"),  # type: ignore[call-overload]
        lambda: pipe.sample(1, prior_steps=0),
        lambda: pipe.encode(torch.zeros(1, 3, 16, 16), inversion="heun"),
        lambda: pipe.encode(torch.zeros(1, 3, 16, 16), inversion="exact", iterations=0),
        lambda: replace(pipe, precision="bf16").to("cpu").to("nonsense"),
        lambda: rdm.open_pipeline(pipe.bundle.folder, batch_size=0),
        lambda: rdm.open_pipeline(pipe.bundle.folder, threads=0),
        lambda: rdm.open_pipeline(pipe.bundle.folder, class_name="cat"),
        lambda: rdm.open_pipeline(pipe.bundle.folder, device="cpu", precision="fp16"),
        lambda: rdm.open_pipeline(pipe.bundle.folder, style="a.png"),
    ]
    for call in wrong:
        with pytest.raises((ValueError, rdm.RdmError)) as caught:
            call()
        assert "--" not in str(caught.value), caught.value


def test_a_command_writes_settings_as_options(pipe: rdm.Pipeline) -> None:
    from rdm_cli.cli import _as_option

    with settings_written_by(_as_option), pytest.raises(rdm.RdmError, match="--steps 0: ddim takes"):
        pipe.decode(pipe.sample(1), steps=0)
    with pytest.raises(rdm.RdmError, match="tiny: steps 0: ddim takes"):
        pipe.decode(pipe.sample(1), steps=0)
    spelled = {_as_option(name) for name in ("class_name", "value_range", "x_T", "batch_size")}
    assert spelled == {"--class", "--range", "--x-t", "--batch-size"}


def test_no_message_of_these_rooms_names_an_option() -> None:
    """``setting`` writes it; a whole command, such as 'rdm train prior', is written as it is."""
    files = [ROOT / "rdm_cli/runtime.py", ROOT / "rdm_cli/bundles/bundle.py"]
    for room in ("pipeline", "codes", "kernels", "priors"):
        files += (ROOT / "rdm_cli" / room).glob("*.py")
    assert len(files) > 30
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                for text in ast.walk(node):
                    if isinstance(text, ast.Constant) and isinstance(text.value, str) and "--" in text.value:
                        assert (
                            "rdm " in text.value or "`" in text.value or text.value.startswith(" --bundle")
                        ), f"{file.name}:{text.lineno}: {text.value}"
