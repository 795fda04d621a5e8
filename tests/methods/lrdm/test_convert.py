"""The LRDM authors' files: told by their content, refused by name where they do not fit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.cli import main
from rdm_cli.codes.code import Codes
from rdm_cli.errors import CheckpointError
from rdm_cli.methods.lrdm.convert import read_lrdm
from rdm_cli.methods.official.reading import load_official

pytestmark = pytest.mark.golden
NAMES = ("lrdm_tiny.ckpt", "lrdm_tiny-project.yaml")


@pytest.fixture
def files(folder: Path, tmp_path: Path) -> list[Path]:
    return [Path(shutil.copy(folder / name, tmp_path / name)) for name in NAMES]


@pytest.fixture
def edited(files: list[Path]) -> Callable[[Callable[[dict[str, Any]], None]], list[Path]]:
    """Change what the checkpoint's state_dict holds."""

    def run(change: Callable[[dict[str, Any]], None]) -> list[Path]:
        # clones: what is read is mapped from the file that is about to be written
        state = {name: value.clone() for name, value in load_official(files[0])["state_dict"].items()}
        change(state)
        torch.save({"state_dict": state}, files[0])
        return files

    return run


def test_any_order_and_without_settings(files: list[Path], official: Any) -> None:
    """Without its yaml the published sizes are taken, which these networks' shapes do not contradict."""
    expected = official("lrdm_tiny")
    read = read_lrdm(files[::-1])
    assert read.config == expected.config and read.config.unet.head_channels == 8
    assert all(torch.equal(read.state[name], expected.state[name]) for name in expected.state)
    alone = read_lrdm(files[:1]).config
    assert alone.unet.latent_size == 64 and alone.unet.head_channels == 64 and alone.prediction == "x_0"
    assert alone.unet.attention_resolutions == (32, 16)


def test_the_command_line_converts_encodes_and_decodes(
    files: list[Path], tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    """z of the golden images, from PNGs of them, and diffusers opens the first stage."""
    from diffusers import VQModel

    out = tmp_path / "converted"
    assert main(["bundles", "convert", "lrdm", *map(str, files), "-o", str(out)]) == 0
    assert main(["bundles", "check", str(out)]) == 0
    bundle = open_bundle(str(out))
    model: Any = bundle.model
    assert bundle.method.prior == "gaussian" and not model.sampling.clip_x_0
    assert model.config.representation.kl_weight == 0.001
    theirs = VQModel.from_pretrained(out / "first_stage").eval()
    with torch.no_grad():
        latents = theirs.encode(tensors["lrdm.image"]).latents
    torch.testing.assert_close(latents, tensors["lrdm.ae.pre_quant"], atol=2e-5, rtol=1e-4)
    for i, x_0 in enumerate(tensors["lrdm.image"]):
        pixels = ((x_0 + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{i}.png")
        words = [str(tmp_path / f"{i}.png"), "--steps", "20", "-b", str(out), "-q"]
        assert main(["encode", *words]) == 0
        code = Codes.load(tmp_path / f"{i}.safetensors")
        seen = torch.from_numpy(np.array(Image.open(tmp_path / f"{i}.png"))).permute(2, 0, 1) / 127.5 - 1
        expected = model.encode(model.enter(seen[None].float()))["z"]
        torch.testing.assert_close(code.z, expected, atol=1e-5, rtol=1e-4)
        # images outside of [-1, 1] are clipped by the PNG; what is left of z is still near
        assert code.x_T is not None and code.x_T.shape == (1, 3, 16, 16)
        assert main(["decode", str(tmp_path / f"{i}.safetensors"), "-o", str(tmp_path / "d"), "-q"]) == 1
        decoded = ["decode", str(tmp_path / f"{i}.safetensors"), "-o", str(tmp_path / "d"), "-b", str(out)]
        assert main(decoded) == 0 and (tmp_path / "d" / f"{i}.png").exists()


def drop(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.pop(name)


def cut(name: str) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        state[name] = state[name][:-1]

    return change


def rename(name: str) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        state[f"{name}_other"] = state.pop(name)

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop("diff_model.conv_in.weight"), "conv_in.weight is missing"),
        (drop("diff_model.mid.1.qkv.bias"), "nothing for middle.attention.qkv.bias"),
        (cut("diff_model.up.0.main.0.out_layers.3.bias"), "has shape"),
        (rename("diff_model.conv_out.2.weight"), "conv_out.2.weight_other belongs to no layer"),
        (drop("diff_model.time_conditioning.1.weight"), "its time embedding is not the published one"),
        (cut("repr_ae.decoder.out.2.bias"), "has shape"),
        (drop("repr_ae.post_quant_conv.weight"), "nothing for from_z.weight"),
        (drop("ae_model.decoder.conv_in.bias"), "nothing for decoder.conv_in.bias"),
        (drop("ae_model.encoder.conv_in.weight"), "encoder.conv_in.weight is missing"),
        (lambda state: [state.pop(n) for n in list(state) if n.startswith("diff_model.")], "no diff_model"),
    ],
)
def test_weights_that_do_not_fit(edited: Any, change: Any, told: str) -> None:
    files = edited(change)
    with pytest.raises(CheckpointError, match=told) as caught:
        read_lrdm(files)
    assert str(files[0]) in caught.value.message


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("model:\n  params: 3\n", "settings without a model.params.diffusion_model_config"),
        ("based_on: base.yaml\n", "is based on other settings"),
        ("- 1\n", "a text without settings"),
    ],
)
def test_settings_that_say_nothing(files: list[Path], settings: str, told: str) -> None:
    files[1].write_text(settings)
    with pytest.raises(CheckpointError, match=told) as caught:
        read_lrdm(files)
    assert str(files[1]) in caught.value.message


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("losses.DDPMImageLoss", "losses.SDELoss", "trained with SDELoss"),
        ("beta_max: 20", "beta_max: 10", "not the published one"),
        ("continuous: false", "continuous: true", "not the published one"),
    ],
)
def test_kinds_that_no_published_model_is_of(files: list[Path], old: str, new: str, told: str) -> None:
    text = files[1].read_text()
    assert old in text
    files[1].write_text(text.replace(old, new))
    with pytest.raises(CheckpointError, match=told):
        read_lrdm(files)


def test_too_many_and_too_few(files: list[Path]) -> None:
    for given, told in (
        ([], "no files: the checkpoint is missing"),
        (files[1:], "the checkpoint is missing"),
        ([files[0], files[0]], "both hold weights"),
        ([files[1], files[1]], "both hold settings"),
    ):
        with pytest.raises(CheckpointError, match=told):
            read_lrdm(given)


def test_classes_on_the_command_line(
    folder: Path,
    tensors: dict[str, Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    pixels_of: Callable[[Path], bytes],
) -> None:
    """The files number their classes; an image is of the one that is named, and its code says so."""
    out = tmp_path / "converted"
    files = [str(folder / "lrdm_class_tiny.ckpt"), str(folder / "lrdm_class_tiny-project.yaml")]
    assert main(["bundles", "convert", "lrdm", *files, "-o", str(out)]) == 0
    assert main(["bundles", "check", str(out)]) == 0
    model: Any = open_bundle(str(out)).model
    (known,) = model.conditions
    assert known.name == "class" and len(known.names) > 1
    assert known.names == tuple(map(str, range(len(known.names))))
    (grey,) = ((tensors["lrdm_class.image"][0] + 1) * 127.5).round().clamp(0, 255).byte()
    image = tmp_path / "a.png"
    Image.fromarray(grey.numpy()).save(image)
    words = ["encode", str(image), "-b", str(out), "--steps", "5", "-q"]
    capsys.readouterr()
    assert main(words) == 1
    told = capsys.readouterr().err
    assert "a.png: of which class is it?" in told and "--class" in told and len(told.splitlines()) == 1
    assert main([*words, "--class", "9999"]) == 2
    seen = grey[None, None] / 127.5 - 1
    found = []
    for y in (0, 1):
        assert main([*words, "--class", str(y)]) == 0
        code = Codes.load(tmp_path / "a.safetensors")
        expected = model.encode(model.enter(seen.float()), {"class": torch.tensor([y])})["z"]
        torch.testing.assert_close(code.z, expected, atol=1e-5, rtol=1e-4)
        assert code.infos[0].class_name == str(y)
        decode = ["decode", str(tmp_path / "a.safetensors"), "-b", str(out), "-q"]
        assert main([*decode, "-o", str(tmp_path / f"own-{y}")]) == 0
        assert main([*decode, "-o", str(tmp_path / f"as-0-{y}"), "--class", "0"]) == 0
        found.append([pixels_of(tmp_path / f"{name}-{y}" / "a.png") for name in ("own", "as-0")])
    assert found[0][0] == found[0][1] and found[1][0] != found[1][1]
    assert Image.open(tmp_path / "own-0" / "a.png").mode == "L"
    made = tmp_path / "made"
    assert main(["sample", "-n", "3", "-b", str(out), "--steps", "3", "-o", str(made)]) == 0
    words = [str(image), "-b", str(out), "--steps", "3", "-o", str(made), "--class", "2"]
    assert main(["reconstruct", *words]) == 0


@pytest.mark.long
def test_t_lrdm_on_the_command_line(
    folder: Path, tensors: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its code holds z at each step that it was made for, and a decode that asks for others says so."""
    out = tmp_path / "converted"
    files = [str(folder / "tlrdm_tiny.ckpt"), str(folder / "tlrdm_tiny-project.yaml")]
    assert main(["bundles", "convert", "lrdm", *files, "-o", str(out)]) == 0
    assert main(["bundles", "check", str(out)]) == 0
    pixels = ((tensors["tlrdm.image"][0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    image, code = tmp_path / "a.png", tmp_path / "a.safetensors"
    Image.fromarray(np.ascontiguousarray(pixels)).save(image)
    assert main(["encode", str(image), "-b", str(out), "--steps", "5", "-q"]) == 0
    found = Codes.load(code)
    assert found.z.shape == (1, 5, 4, 4, 4) and found.infos[0].steps == 5
    model: Any = open_bundle(str(out)).model
    seen = torch.from_numpy(np.array(Image.open(image))).permute(2, 0, 1)[None] / 127.5 - 1
    z_0 = model.enter(seen.float())
    for i, t in enumerate([0, 249, 499, 749, 999]):
        expected = model.posterior(z_0, torch.tensor([t]))[0]
        torch.testing.assert_close(found.z[:, i], expected, atol=1e-5, rtol=1e-4)
    capsys.readouterr()
    words = ["decode", str(code), "-b", str(out), "-o", str(tmp_path / "d")]
    assert main([*words, "--steps", "4"]) == 1
    assert "holds z at the 5 steps that it was made for, and not at 4" in capsys.readouterr().err
    assert main(words) == 0
    # the same steps, walked by hand
    from rdm_cli.kernels.ddim import ddim_decode, last

    eps_fn = model.denoiser_of_time(lambda t: model.posterior(z_0, t)[0])
    assert found.x_T is not None
    expected = model.leave(last(ddim_decode(eps_fn, found.x_T, model.sampling, 5)))
    decoded = torch.from_numpy(np.array(Image.open(tmp_path / "d" / "a.png"))).permute(2, 0, 1)[None]
    shown = ((expected + 1) * 127.5).round().clamp(0, 255)
    assert float((decoded - shown).abs().max()) <= 1
    drawn = ["sample", "-n", "1", "-b", str(out), "-o", str(tmp_path / "s")]
    assert main([*drawn, "--steps", str(model.sampling.steps)]) == 0
    assert main(["reconstruct", str(image), "-b", str(out), "-o", str(tmp_path / "r"), "--steps", "5"]) == 0
    walked = ["interpolate", str(code), str(code), "-b", str(out), "-o", str(tmp_path / "w"), "--frames", "2"]
    assert main(walked) == 0 and main([*walked, "--path", "trajectory", "--force"]) == 0
    gap = ["evaluate", "gap", str(out), str(tmp_path), "-n", "2", "--every", "500", "--at", "500"]
    Image.open(image).save(tmp_path / "b.png")
    assert main(gap) == 0


def test_a_style_and_shape_model_on_the_command_line(
    folder: Path, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    """A code is z and the style's latents; what they decode to is the model's own answer."""
    out = tmp_path / "converted"
    files = [str(folder / "lrdm_warp_tiny.ckpt"), str(folder / "lrdm_warp_tiny-project.yaml")]
    assert main(["bundles", "convert", "lrdm", *files, "-o", str(out)]) == 0
    assert main(["bundles", "check", str(out)]) == 0
    pixels = ((tensors["lrdm_warp.image"][0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(pixels.numpy())).save(tmp_path / "a.png")
    assert main(["encode", str(tmp_path / "a.png"), "-b", str(out), "--steps", "4", "-q"]) == 0
    code = Codes.load(tmp_path / "a.safetensors")
    model: Any = open_bundle(str(out)).model
    seen = torch.from_numpy(np.array(Image.open(tmp_path / "a.png"))).permute(2, 0, 1)[None] / 127.5 - 1
    z_0 = model.enter(seen.float())
    assert code.style is not None
    torch.testing.assert_close(code.style, z_0, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(code.z, model.posterior(z_0)[0], atol=1e-5, rtol=1e-4)
