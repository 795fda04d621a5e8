"""Weights, scales, codes and results that are not finite: nothing black is written, and all is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.writing import add_directions, save_bundle
from rdm_cli.codes.code import Codes
from rdm_cli.data.images.pixels import grid, to_pil, to_pixels
from rdm_cli.errors import BundleError, CodeError, PictureError, UsageError
from rdm_cli.pipeline import coding
from rdm_cli.pipeline.pipeline import open_pipeline

Rdm = Callable[..., Any]
NOT_FINITE = (float("nan"), float("inf"), -float("inf"))


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))


def spoil(path: Path, name: str, value: float) -> None:
    tensors = load_file(path)
    tensors[name].flatten()[0] = value
    save_file(tensors, path)


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_bundle_with_such_weights_is_refused_by_every_verb(
    rdm: Rdm, tiny: Rdm, copy: Path, faces: Path, tmp_path: Path, value: float
) -> None:
    tiny("encode", faces, "-o", tmp_path / "codes", "--no-x-t")
    spoil(copy / "unet" / "diffusion_pytorch_model.safetensors", "conv_out.weight", value)
    for words in (
        ("encode", faces), ("decode", tmp_path / "codes"), ("reconstruct", faces), ("sample", "-n", 1),
        ("manipulate", faces, "--attr", "hat"), ("interpolate", faces / "a.png", faces / "b.png"),
    ):  # fmt: skip
        result = rdm(*words, "-o", tmp_path / "out", "-b", copy)
        assert result.code in (1, 2)
        assert "unet.conv_out.weight holds values that are not finite" in result.err
    assert files_below(tmp_path / "out") == []


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize(
    ("part", "file", "tensor", "words"),
    [
        ("prior", "diffusion_pytorch_model.safetensors", "z_mean", ("sample", "-n", 1)),
        ("attributes", "attributes.safetensors", "z_std", ("manipulate", "{faces}", "--attr", "hat")),
    ],
)
def test_such_a_part_of_a_bundle_is_refused(
    rdm: Rdm, copy: Path, faces: Path, tmp_path: Path, value: float, part: str, file: str, tensor: str,
    words: tuple[object, ...],
) -> None:  # fmt: skip
    spoil(copy / part / file, tensor, value)
    given = [str(word).format(faces=faces) for word in words]
    result = rdm(*given, "-o", tmp_path / "out", "-b", copy)
    assert result.code in (1, 2)
    assert f"{copy}/{part}/{file}: {tensor} holds values that are not finite" in result.err
    assert files_below(tmp_path / "out") == []


def test_pictures_and_codes_that_turn_out_so_fail_by_name_and_others_are_done(
    tiny: Rdm, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a network that overflows in fp16, for one image of several in a batch."""
    images = sorted(faces.glob("*.png"))
    assert tiny("encode", *images, "-o", tmp_path / "codes", "--no-x-t", "-q").code == 0
    real, overflowing = coding.Coder.in_batches, slice(2, 3)

    def some_overflow(self: Any, run: Any, *tensors: torch.Tensor, **options: Any) -> Any:
        found = real(self, run, *tensors, **options)
        for values in found:
            values[overflowing] = torch.inf
        return found

    monkeypatch.setattr(coding.Coder, "in_batches", some_overflow)
    said = "holds values that are not finite, so it is not written; try another --precision"
    for verb, inputs, ending, options in (
        ("encode", images, ".safetensors", ("--no-x-t",)),
        ("decode", [tmp_path / "codes"], ".png", ()),
    ):
        out = tmp_path / verb
        result = tiny(verb, *inputs, "-o", out, "--batch-size", 4, *options)
        assert result.code == 3
        what = "its z " if verb == "encode" else ""
        assert f"{out}/c{ending}: {what}{said}\n" in result.err and "1 failed" in result.err
        assert files_below(out) == [f"{name}{ending}" for name in "abd"]
    result = tiny("sample", "-n", 4, "-o", tmp_path / "sample", "--steps", 1)
    assert result.code == 1 and f"{tmp_path}/sample/000002.png: {said}" in result.err
    # samples are written as they are drawn: those before it are there, each with its code
    written = [f"{number:06d}{ending}" for number in (0, 1) for ending in (".png", ".safetensors")]
    assert files_below(tmp_path / "sample") == written
    overflowing = slice(None)
    for verb, ending, *options in (
        ("reconstruct", "-reconstruction.png"), ("manipulate", "-hat+0.3.png", "--attr", "hat"),
    ):  # fmt: skip
        out = tmp_path / verb
        result = tiny(verb, *images, "-o", out, *options, "--steps", 1)
        assert result.code == 1 and files_below(out) == []
        assert [f"{out}/{name}{ending}: {said}\n" in result.err for name in "abcd"] == [True] * 4


def test_a_scale_that_is_not_finite_or_too_large(
    tiny: Rdm, tiny_bundle: Path, faces: Path, tmp_path: Path
) -> None:
    pipeline = open_pipeline(str(tiny_bundle))
    codes = pipeline.sample(1)
    for scale in NOT_FINITE:
        with pytest.raises(UsageError, match="a scale of"):
            pipeline.manipulate(codes, {"hat": scale})
    result = tiny(
        "manipulate", faces / "a.png", "--attr", "hat", "--scale", 1e39, "-o", tmp_path / "o", "--steps", 1
    )
    assert result.code == 1 and "not finite" in result.err
    assert files_below(tmp_path / "o") == []


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("name", ["z", "x_T"])
def test_no_such_code_is_written(tiny_bundle: Path, tmp_path: Path, name: str, value: float) -> None:
    codes = open_pipeline(str(tiny_bundle)).sample(2)
    values = getattr(codes, name).clone()
    values[1].flatten()[3] = value
    wrong = codes.replace(**{name: values})
    with pytest.raises(CodeError, match=rf"b\.safetensors: its {name} holds values that are not finite"):
        wrong.save([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])
    assert files_below(tmp_path) == ["a.safetensors"]
    Codes.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("value", NOT_FINITE)
def test_no_such_picture_is_made(value: float) -> None:
    x_0 = torch.zeros(3, 4, 4)
    x_0[1, 2, 3] = value
    for make in (to_pil, to_pixels):
        with pytest.raises(PictureError, match=r"a\.png: holds values that are not finite"):
            make(x_0, "a.png")
    assert grid([to_pil(torch.zeros(3, 4, 4))], 1).size == (4, 4)


def test_no_bundle_with_such_weights_is_written(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(str(tiny_bundle))
    weight = next(iter(bundle.model.encoder.parameters()))
    with torch.no_grad():
        weight.flatten()[0] = 1e5  # which fits float32, and not float16
    save_bundle(tmp_path / "fp32", bundle.method, bundle.model, card="")
    with pytest.raises(BundleError, match=r"encoder: .* holds values that are not finite in torch\.float16"):
        save_bundle(tmp_path / "fp16", bundle.method, bundle.model, card="", dtype=torch.float16)
    assert not (tmp_path / "fp16").exists()
    copied = open_bundle(str(tmp_path / "fp32"))
    directions = bundle.directions
    directions.weight.fill_(torch.nan)
    with pytest.raises(BundleError, match="attributes: weight holds values that are not finite"):
        add_directions(copied, directions)
    assert not (tmp_path / "fp32" / "attributes").exists()
