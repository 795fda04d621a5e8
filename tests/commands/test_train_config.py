"""rdm train --config and --print-config: a run as a file, and the same run again from it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.writing import save_bundle
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.dpm.method import METHOD as DPM_METHOD
from rdm_cli.methods.dpm.model import DPM, DPMConfig
from rdm_cli.models.unet import UNetConfig

Rdm = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """The options that name what a method is trained around."""
    import diffusers

    folder = tmp_path_factory.mktemp("around")
    unet = UNetConfig(
        image_size=32, model_channels=32, channel_mult=(1, 1), num_res_blocks=1, attention_resolutions=(),
        time_width=32, z_width=None,
    )  # fmt: skip
    save_bundle(
        folder / "dpm", DPM_METHOD, DPM(DPMConfig(unet=unet, sampling=SamplingSpec())), card="# dpm\n"
    )
    diffusers.VQModel(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16), norm_num_groups=4, latent_channels=3, num_vq_embeddings=16,
    ).save_pretrained(folder / "vq")  # fmt: skip
    return {"pdae": ["--dpm", folder / "dpm"], "lrdm": ["--first-stage", folder / "vq"]}


def printed(rdm: Rdm, *words: object) -> str:
    result = rdm("train", *words, "--print-config")
    assert (result.code, result.err) == (0, "")
    tomllib.loads(result.out)
    return str(result.out)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("diffae", ["--preset", "small32", "--lr", 1e-5, "--no-flip", "--minutes", 0.5]),
        ("dpm", ["--preset", "small32", "--range", "0,4095", "--log", "tensorboard", "--threads", 1]),
        ("pdae", ["--preset", "published", "--steps", 7, "--batch-size", 4]),
        ("pdae", ["--gamma", 0.3]),
        (
            "lrdm",
            ["--preset", "small32-map", "--kl-weight", 1e-7, "--predict", "eps", "--cache-latents", "l"],
        ),
        ("lrdm", ["--preset", "small32-map", "--weighting", "likelihood"]),
        ("first-stage", ["--kind", "vq", "--preset", "small32", "--perceptual-weight", 0.5]),
    ],
)
def test_what_is_printed_asks_for_the_same_again(
    rdm: Rdm, faces: Path, tmp_path: Path, around: dict[str, list[object]], method: str, words: list[object]
) -> None:
    file = tmp_path / "run.toml"
    needed = around.get(method, [])
    file.write_text(printed(rdm, method, faces, "-o", tmp_path / "out", *needed, *words, "--device", "cpu"))
    assert printed(rdm, method, "--config", file) == file.read_text()
    values = tomllib.loads(file.read_text())
    assert {"preset", "batch-size", "lr", "ema", "flip", "seed", "folder", "output"} <= values.keys()
    assert not (tmp_path / "out").exists() and not Path("runs").exists()


def test_the_same_file_trains_the_same_weights(
    rdm: Rdm, faces: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """Once by options, once by the file that they print; then on from it, to more steps than it says."""
    words = [
        "diffae", faces, "--init-from", tiny_bundle, "--batch-size", 2, "--steps", 3, "--sheet-minutes", 0,
        "--threads", 1, "--seed", 5, "--run", tmp_path / "run", "-o", tmp_path / "out",
    ]  # fmt: skip
    file = tmp_path / "run.toml"
    file.write_text(printed(rdm, *words))
    assert "images = 6\n" in file.read_text() and "# steps is not set\n" in file.read_text()
    assert rdm("train", *words).code == 0
    other = ["-o", tmp_path / "other", "--run", tmp_path / "run2"]
    assert rdm("train", "diffae", "--config", file, *other).code == 0
    assert open_bundle(str(tmp_path / "out")).digest == open_bundle(str(tmp_path / "other")).digest

    assert rdm("train", "diffae", "--config", file, *other, "--resume", "--steps", 4).code == 0
    longer = rdm("train", *words[:-4], "--steps", 4, "-o", tmp_path / "four", "--run", tmp_path / "run4")
    assert longer.code == 0
    assert open_bundle(str(tmp_path / "other")).digest == open_bundle(str(tmp_path / "four")).digest


def test_a_run_that_goes_on_is_a_file_too(
    rdm: Rdm, faces: Path, tmp_path: Path, around: dict[str, list[object]]
) -> None:
    """What only the checkpoint knows stands in it: what it began with, and what it is to be at its end."""
    words = [
        "pdae", faces, *around["pdae"], "-o", tmp_path / "out", "--run", tmp_path / "run", "--threads", 1,
        "--sheet-minutes", 0,
    ]  # fmt: skip
    begun = ["--preset", "small32", "--gamma", 0.3, "--steps", 1, "--batch-size", 2, "--lr", 1e-3]
    assert rdm("train", *words, *begun).code == 0
    file = tmp_path / "run.toml"
    file.write_text(printed(rdm, *words, "--resume"))
    values = tomllib.loads(file.read_text())
    assert (values["resume"], values["gamma"], values["lr"], values["images"]) == (True, 0.3, 1e-3, 2)
    assert printed(rdm, "pdae", "--config", file) == file.read_text()
    again = rdm("train", "pdae", "--config", file)
    assert again.code == 0 and "nothing is left to train: 2 images were seen already" in again.err


def test_the_command_line_wins_over_the_file(rdm: Rdm, faces: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('batch_size = 4\nlr = 1\nflip = true\nimages = 99\npreset = "small32"\n')
    words = ["diffae", faces, "-o", tmp_path / "out", "--config", file, "--lr", 0.5, "--no-flip"]
    (found,) = rdm("train", *words, "--minutes", 2, "--print-config", "--json").objects
    assert (found["batch-size"], found["lr"], found["flip"]) == (4, 0.5, False)
    assert (found["images"], found["steps"], found["minutes"]) == (None, None, 2.0)
    assert found["preset"] == "small32" and found["output"] == str(tmp_path / "out")
    (found,) = rdm("train", *words, "--print-config", "--json").objects
    assert found["images"] == 99
    clash = rdm("train", *words, "--minutes", 2, "--images", 3)
    assert clash.code == 2 and "--images, --steps and --minutes exclude each other" in clash.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batchsize = 3", "rdm train diffae has no option 'batchsize'; did you mean batch-size?"),
        ("gamma = 1.0", "rdm train diffae has no option 'gamma'"),
        ("config = 'x'", "rdm train diffae has no option 'config'"),
        ("batch-size = '3'", "batch-size = '3': a whole number is needed"),
        ("batch-size = 3.5", "batch-size = 3.5: a whole number is needed"),
        ("batch-size = true", "batch-size = True: a whole number is needed"),
        ("batch-size = 0", "batch-size = 0: Input should be greater than or equal to 1"),
        ("lr = 'fast'", "lr = 'fast': a number is needed"),
        ("flip = 'yes'", "flip = 'yes': true or false is needed"),
        ("preset = 64", "preset = 64: text in quotes is needed"),
        ("fit = 'squeeze'", "fit = 'squeeze': 'squeeze' is not one of 'crop', 'pad', 'stretch'"),
        ("[optimiser]\nlr = 1", "rdm train diffae has no option 'optimiser'"),
        ("[lr]\nx = 1", "lr = {'x': 1}: a number is needed"),
        ("range = '9,1'", "--range 9,1: two numbers are needed"),
        ("lr = ", "not a TOML file (Invalid value"),
        (None, "No such file"),
    ],
)
def test_a_bad_file_is_one_line(rdm: Rdm, faces: Path, tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "run.toml"
    if text is not None:
        file.write_text(text)
    result = rdm("train", "diffae", faces, "-o", tmp_path / "out", "--config", file)
    assert result.code == 2 and len(result.err.splitlines()) == 1
    assert said in result.err and (str(file) in result.err or "--range" in said)
    assert [path.name for path in tmp_path.iterdir() if path != file] == ["faces"]


def test_names_that_toml_has_to_escape(rdm: Rdm, faces: Path, tmp_path: Path) -> None:
    odd = tmp_path / 'a "b"\\c\x7f\u202e d'
    (odd / "x").mkdir(parents=True)
    text = printed(rdm, "diffae", faces, "-o", odd / "out", "--run", odd / "run")
    assert tomllib.loads(text)["output"] == str(odd / "out")
    assert all(character.isprintable() or character == "\n" for character in text)
    told = rdm("train", "diffae", faces, "-o", "\udc80", "--print-config")
    assert told.code == 2 and "this name is no Unicode text" in told.err
