"""A plain DPM through every command: what works on x_T alone, and one line where a z is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from rdm_cli.bundles.writing import save_bundle
from rdm_cli.codes.code import Codes
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.dpm.method import METHOD
from rdm_cli.methods.dpm.model import DPM, DPMConfig
from rdm_cli.models.unet import UNetConfig

Rdm = Callable[..., Any]


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle ``plain``: a random DPM of 16 px."""
    unet = UNetConfig(
        image_size=16, model_channels=32, channel_mult=(1, 2), num_res_blocks=1,
        attention_resolutions=(4,), time_width=32, z_width=None, dropout=0.0, patch_size=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DPM(DPMConfig(unet=unet, prediction="v", sampling=SamplingSpec(steps=5)))
        with torch.no_grad():
            for weight in model.parameters():
                if not weight.any():
                    weight.normal_(std=0.05)
    folder = tmp_path_factory.mktemp("bundles") / "plain"
    save_bundle(folder, METHOD, model, card="# plain\n")
    return folder


@pytest.fixture
def dpm(rdm: Rdm, plain: Path) -> Rdm:
    """Like ``rdm``, with the plain bundle."""
    return lambda *arguments: rdm(*arguments, "--bundle", plain)


def values(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


def test_codes_are_noise_alone(dpm: Rdm, rdm: Rdm, plain: Path, faces: Path, tmp_path: Path) -> None:
    codes = tmp_path / "codes"
    encoded = dpm("encode", faces, "-o", codes, "--steps", 20, "--verify", "--json")
    assert encoded.code == 0 and len(encoded.objects) == 5
    code = Codes.load(codes / "a.safetensors")
    assert code.z.shape == (1, 0) and code.x_T is not None and code.x_T.shape == (1, 3, 16, 16)
    again = dpm("encode", faces, "-o", codes, "--steps", 20, "--verify", "--json")
    assert again.code == 0 and all(item["skipped"] for item in again.objects)
    assert dpm("decode", codes / "a.safetensors", "-o", tmp_path / "decoded").code == 0
    assert dpm("reconstruct", faces / "a.png", "-o", tmp_path / "r", "--steps", 20).code == 0
    decoded = values(tmp_path / "decoded" / "a.png")
    assert np.abs(decoded - values(tmp_path / "r" / "a-reconstruction.png")).max() <= 1
    # 20 steps of a small random network lose little: what comes back is the picture, not another
    own, other = (np.abs(decoded - values(faces / f"{name}.png")).mean() for name in "ab")
    assert own < other / 3
    shown = rdm("bundles", "show", plain, "--json")
    assert shown.code == 0 and shown.objects[0]["z_shape"] == [0]
    assert rdm("bundles", "check", plain).code == 0


def test_samples_and_walks(dpm: Rdm, faces: Path, tmp_path: Path) -> None:
    drawn = dpm("sample", "-n", 3, "--steps", 4, "-o", tmp_path / "s", "--json")
    assert drawn.code == 0
    pictures = [values(tmp_path / "s" / f"{i:06d}.png") for i in range(3)]
    assert np.abs(pictures[0] - pictures[1]).mean() > 3
    fewer = dpm("sample", "-n", 1, "--steps", 4, "-o", tmp_path / "one")
    assert fewer.code == 0
    assert np.abs(values(tmp_path / "one" / "000000.png") - pictures[0]).max() <= 1
    assert dpm("decode", tmp_path / "s" / "000001.safetensors", "-o", tmp_path / "d").code == 0
    assert np.abs(values(tmp_path / "d" / "000001.png") - pictures[1]).max() <= 1
    ends = (faces / "a.png", tmp_path / "s" / "000001.safetensors")
    walked = dpm("interpolate", *ends, "--frames", 3, "--steps", 4, "-o", tmp_path / "walk")
    assert walked.code == 0
    frames = [values(tmp_path / "walk" / f"frame-{i:04d}.png") for i in range(3)]
    assert np.abs(frames[2] - pictures[1]).max() <= 1
    assert np.abs(frames[0] - frames[1]).mean() > 1 < np.abs(frames[1] - frames[2]).mean()


@pytest.mark.parametrize(
    "words",
    [
        ("encode", "FACES", "--no-x-t"),
        ("reconstruct", "FACES", "--x-t", "random"),
        ("reconstruct", "FACES", "--variations", "2"),
        ("manipulate", "FACES", "--attr", "hat"),
        ("sample", "--attr", "hat"),
        ("sample", "--like", "FACES"),
        ("attributes", "list"),
        ("train", "prior", "CODES"),
        ("train", "attributes", "CODES", "--labels", "labels.csv"),
    ],
    ids=" ".join,
)
def test_what_needs_a_z_says_so(dpm: Rdm, faces: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    codes = tmp_path / "codes"
    if "CODES" in words:
        assert dpm("encode", faces, "-o", codes, "--steps", 1, "-q").code == 0
    before = sorted(tmp_path.rglob("*"))
    places = {"FACES": faces, "CODES": codes}
    output = () if words[0] in ("train", "attributes") else ("-o", tmp_path / "out")
    result = dpm(*(places.get(word, word) for word in words), *output)
    assert result.code == 2 and result.lines == []
    (line,) = result.err.splitlines()
    assert "plain: " in line and "a plain DPM has no z" in line
    assert sorted(tmp_path.rglob("*")) == before


def test_more_steps_than_there_are(rdm: Rdm, plain: Path, faces: Path, tmp_path: Path) -> None:
    """PDAE's spacing has T - 1 steps at most; the number is refused, not the images one by one."""
    from rdm_cli.bundles.bundle import open_bundle

    model = cast(DPM, open_bundle(str(plain)).model)
    config = replace(model.config, sampling=SamplingSpec(spacing="linspace", steps=4))
    within = DPM(config)
    within.load_state_dict(model.state_dict())
    save_bundle(tmp_path / "within", METHOD, within, card="# within\n")
    refused = rdm("encode", faces, "--steps", 1000, "-o", tmp_path / "o", "-b", tmp_path / "within", "-q")
    assert refused.code == 2 and refused.err == "rdm: within: --steps 1000: ddim takes 1 to 999\n"
    done = rdm("encode", faces / "a.png", "-o", tmp_path / "o", "-b", tmp_path / "within", "-q")
    assert done.code == 0
    assert rdm("decode", tmp_path / "o" / "a.safetensors", "-b", tmp_path / "within").code == 0


def test_codes_of_other_methods_are_not_taken(dpm: Rdm, tiny_bundle: Path, rdm: Rdm, faces: Path) -> None:
    assert rdm("encode", faces / "a.png", "--steps", 1, "-b", tiny_bundle).code == 0
    refused = dpm("decode", faces / "a.safetensors", "-o", faces.parent / "out")
    assert refused.code == 1 and "made with bundle tiny" in refused.err
    assert dpm("encode", faces / "b.png", "--steps", 1).code == 0
    refused = rdm("decode", faces / "b.safetensors", "-o", faces.parent / "out", "-b", tiny_bundle)
    assert refused.code == 1 and "made with bundle plain" in refused.err


@pytest.mark.usefixtures("fresh_accelerate", "short_sheets")
def test_training_from_pictures_to_samples(rdm: Rdm, faces: Path, tmp_path: Path) -> None:
    trained = rdm(
        "train", "dpm", faces, "-o", tmp_path / "mine", "--run", tmp_path / "run", "--preset", "small32",
        "--steps", 2, "--batch-size", 2, "--threads", 1, "--json",
    )  # fmt: skip
    assert trained.code == 0
    assert [item["step"] for item in trained.objects[:-1]] == [1, 2]
    assert "swapped" not in trained.err  # there is no z to swap
    assert [p.name for p in (tmp_path / "run" / "sheets").iterdir()] == ["0000002.png"]
    sampled = rdm("sample", "-n", 1, "--steps", 2, "-o", tmp_path / "s", "-b", tmp_path / "mine")
    assert sampled.code == 0
    assert values(tmp_path / "s" / "000000.png").shape == (32, 32, 3)
    resumed = rdm(
        "train", "dpm", faces, "-o", tmp_path / "mine", "--run", tmp_path / "run", "--resume", "--steps", 3,
        "--sheet-minutes", 0, "--threads", 1,
    )  # fmt: skip
    assert resumed.code == 0 and "resuming at step 2" in resumed.err
    other = rdm("train", "diffae", faces, "-o", tmp_path / "x", "--run", tmp_path / "run", "--resume")
    assert other.code == 1 and "a run of dpm, not of diffae" in other.err


def grey_pipeline(folder: Path, channels: int) -> Path:
    """A random diffusers pipeline of 32 px, as one for digits or depth maps is."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=32, in_channels=channels, out_channels=channels, block_out_channels=(8, 8),
            layers_per_block=1, norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
        )  # fmt: skip
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("fresh_accelerate", "short_sheets")
def test_grey_images(rdm: Rdm, faces: Path, tmp_path: Path) -> None:
    """Colour pictures become grey ones for a model of one channel, and its pictures are grey."""
    grey, made = grey_pipeline(tmp_path / "grey", 1), tmp_path / "made"
    some = ("-b", grey, "--steps", 4)
    again = rdm("reconstruct", faces / "a.png", "-o", made, *some)
    assert again.code == 0
    assert Image.open(made / "a-reconstruction.png").mode == "L"
    assert rdm("encode", faces / "a.png", "-o", made, *some).code == 0
    assert Codes.load(made / "a.safetensors").x_T.shape == (1, 1, 32, 32)  # type: ignore[union-attr]
    assert rdm("sample", "-n", 2, "-o", made, *some).code == 0
    mine = tmp_path / "mine"
    words = ("--dpm", grey, "--batch-size", 2, "--steps", 2, "--threads", 1)
    trained = rdm("train", "pdae", faces, "-o", mine, "--run", tmp_path / "run", *words)
    assert trained.code == 0 and "loss with own -> swapped z" in trained.err
    words = ("-o", tmp_path / "mine-made", "-b", mine, "--steps", 4)
    assert rdm("reconstruct", faces / "a.png", *words).code == 0


def test_images_of_other_channels_are_refused(rdm: Rdm, faces: Path, tmp_path: Path) -> None:
    two = grey_pipeline(tmp_path / "two", 2)
    refused = rdm("encode", faces / "a.png", "-o", tmp_path / "out", "-b", two)
    assert refused.code == 2 and "works on images of 2 channels" in refused.err
    assert not (tmp_path / "out").exists()
