"""LRDM through every command, on first stages that diffusers saved."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from rdm_cli import open_pipeline
from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.codes.code import Codes
from rdm_cli.pipeline import explaining

Rdm = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("fresh_accelerate", "short_sheets")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, dtype=int)


def make_first_stage(kind: str, folder: Path) -> Path:
    """A random tiny autoencoder of a shape that people have."""
    import diffusers

    def blocks(num: int) -> dict[str, Any]:
        return {
            "down_block_types": ("DownEncoderBlock2D",) * num, "up_block_types": ("UpDecoderBlock2D",) * num,
            "block_out_channels": (8,) * (num - 1) + (16,), "norm_num_groups": 4,
        }  # fmt: skip

    settings: dict[str, dict[str, Any]] = {
        "AutoencoderKL": blocks(4) | {"latent_channels": 4, "scaling_factor": 0.18215},
        "VQModel": blocks(3) | {"latent_channels": 3, "num_vq_embeddings": 16},
        "AutoencoderTiny": {
            "encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4,
            "num_encoder_blocks": (1,) * 4, "num_decoder_blocks": (1,) * 4,
        },
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        getattr(diffusers, kind)(**settings[kind]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of Stable Diffusion's shape, f8."""
    return make_first_stage("AutoencoderKL", tmp_path_factory.mktemp("first-stage") / "vae")


@pytest.fixture
def train(rdm: Rdm, faces: Path, first_stage: Path, tmp_path: Path) -> Rdm:
    """``train("--steps", 2)`` trains a small LRDM on five pictures."""

    def run(*arguments: object, stage: Path | None = first_stage) -> Any:
        named = () if stage is None else ("--first-stage", stage)
        return rdm(
            "train", "lrdm", faces, "-o", tmp_path / "mine", "--run", tmp_path / "run", *named,
            "--preset", "small32", "--batch-size", 2, "--warmup", 0, "--decay", 0, "--threads", 1,
            "--ema", 0.5, *arguments,
        )  # fmt: skip

    return run


def test_from_a_first_stage_to_samples(
    train: Rdm,
    rdm: Rdm,
    first_stage: Path,
    faces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = train("--steps", 4, "--kl-weight", 0.001)
    assert trained.code == 0 and "loss with own -> swapped z" in trained.err
    mine = tmp_path / "mine"
    assert_kept(first_stage, mine)
    model = cast(Any, open_bundle(str(mine)).model)
    assert model.config.representation.kl_weight == 0.001
    latents = model.enter(torch.stack([torch.rand(3, 32, 32) * 2 - 1]))
    assert latents.shape[1:] == model.x_T_shape and float(model.unet.scale_factor) != 1.0
    assert rdm("bundles", "check", mine).code == 0

    codes, made = tmp_path / "codes", tmp_path / "made"
    assert rdm("encode", faces, "-o", codes, "-b", mine, "--steps", 4).code == 0
    exact = rdm("encode", faces, "-o", tmp_path / "exact", "-b", mine, "--steps", 4, "--inversion", "exact")
    told = [line for line in exact.err.splitlines() if "no more than its first stage does" in line]
    assert exact.code == 0 and len(told) == 1  # what exact loses nothing of are latents
    code = Codes.load(codes / "a.safetensors")
    assert code.z.shape[1:] == model.z_shape and code.x_T is not None
    assert code.x_T.shape[1:] == model.x_T_shape
    assert rdm("decode", codes, "-o", made / "d", "-b", mine).code == 0
    again = rdm("reconstruct", faces / "a.png", "-o", made, "--variations", 1, "-b", mine, "--steps", 4)
    assert again.code == 0
    ends = (faces / "a.png", faces / "b.png")
    walked = rdm("interpolate", *ends, "--frames", 3, "-o", made / "walk", "-b", mine, "--steps", 4)
    assert walked.code == 0
    drawn = rdm("sample", "-n", 2, "-o", made / "s", "-b", mine, "--steps", 4)  # z from N(0, I), untrained
    assert drawn.code == 0 and (made / "s" / "000001.png").exists()
    missing = rdm("sample", "-n", 1, "-o", made / "p", "-b", mine, "--prior", "latent-ddim")
    assert missing.code == 1 and "has no latent prior" in missing.err
    small = ("--samples", 64, "--batch-size", 8, "--layers", 2, "--hidden-width", 16)
    assert rdm("train", "prior", codes, "-b", mine, *small).code == 0
    other = ("--prior", "latent-ddim", "--steps", 4)
    assert rdm("sample", "-n", 1, "-o", made / "p", "-b", mine, *other).code == 0
    learned = type(open_bundle(str(mine)).prior_named(None)).__name__
    assert learned == "LatentDDIM"  # what was trained goes before N(0, I), which --prior gaussian still names
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="") as file:
        rows = [["file_name", "dark"], *([f"{n}.png", i % 2] for i, n in enumerate("abcd"))]
        csv.writer(file).writerows([*rows, ["sub/e.png", 0]])
    attributes = rdm("train", "attributes", codes, "--labels", labels, "-b", mine, "--held-out", 0.5)
    assert attributes.code in (0, 1)  # five pictures may be too few for held-out scores
    if attributes.code == 0:
        moved = ("--attr", "dark", "-o", made / "e", "-b", mine, "--steps", 4)
        assert rdm("manipulate", faces / "a.png", *moved).code == 0

    monkeypatch.setattr(explaining, "MOST_PROBES", 2)
    monkeypatch.setattr(explaining, "GENERATIONS", 1)
    brighter = open_pipeline(mine).explain(faces / "a.png", lambda x: 5 * x.mean(dim=(1, 2, 3)), target=0.5)
    assert brighter[0].num_decodes > 8 and all(answer.holds for answer in brighter[0].answers)


def assert_kept(stage: Path, bundle: Path) -> None:
    """The bundle has the first stage's weights, every bit."""
    name = "diffusion_pytorch_model.safetensors"
    before, after = load_file(stage / name), load_file(bundle / "first_stage" / name)
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)


@pytest.mark.parametrize("kind", ["VQModel", "AutoencoderTiny"])
def test_first_stages_of_other_kinds(
    train: Rdm, rdm: Rdm, faces: Path, tmp_path: Path, kind: str, pixels_of: Callable[[Path], bytes]
) -> None:
    """Trained on, kept as they were, and both ways through them: a code, a decode, a sample."""
    stage = make_first_stage(kind, tmp_path / "vae")
    assert train("--steps", 2, "--sheet-minutes", 0, stage=stage).code == 0
    mine, made = tmp_path / "mine", tmp_path / "made"
    assert_kept(stage, mine)
    model = cast(Any, open_bundle(str(mine)).model)
    latents = model.enter(torch.stack([torch.rand(3, 32, 32) * 2 - 1]))
    assert latents.shape[1:] == model.x_T_shape and float(model.unet.scale_factor) != 1.0
    assert rdm("bundles", "check", mine).code == 0
    some = ("-b", mine, "--steps", 3)
    assert rdm("encode", faces / "a.png", faces / "b.png", "-o", made, *some).code == 0
    code = Codes.load(made / "a.safetensors")
    assert code.z.shape[1:] == model.z_shape
    assert code.x_T is not None and code.x_T.shape[1:] == model.x_T_shape
    assert rdm("decode", made / "a.safetensors", made / "b.safetensors", "-o", made, "-b", mine).code == 0
    assert pixels_of(made / "a.png") != pixels_of(made / "b.png")
    assert rdm("sample", "-n", 1, "-o", made / "s", *some).code == 0
    assert (made / "s" / "000000.png").exists()


def test_what_is_predicted_and_how_the_loss_is_weighed(train: Rdm, tmp_path: Path) -> None:
    words = ("--preset", "small32-map", "--predict", "eps", "--weighting", "likelihood")
    assert train("--steps", 1, *words, "--sheet-minutes", 0).code == 0
    model = cast(Any, open_bundle(str(tmp_path / "mine")).model)
    assert model.prediction == "eps" and model.config.unet.weighting == "likelihood"
    places = ("-o", tmp_path / "other", "--run", tmp_path / "other-run")
    other = ("--steps", 1, *places, "--preset", "small32-map", "--predict", "v", "--weighting", "other")
    refused = train(*other)
    assert refused.code == 2 and "v is no other one's counterpart" in refused.err
    around = train("--steps", 1, *places, "--predict", "eps")
    assert around.code == 2 and "around a generator's guess the UNet predicts v" in around.err


def test_a_killed_run_goes_on_with_its_first_stage(train: Rdm, tmp_path: Path) -> None:
    assert train("--steps", 2, "--sheet-minutes", 0).code == 0
    scale = float(cast(Any, open_bundle(str(tmp_path / "mine")).model).unet.scale_factor)
    resumed = train("--resume", "--steps", 4, "--sheet-minutes", 0, stage=None)
    assert resumed.code == 0 and "resuming at step 2" in resumed.err
    model = cast(Any, open_bundle(str(tmp_path / "mine")).model)
    assert float(model.unet.scale_factor) == scale


def test_the_line_that_an_interrupted_run_prints_goes_on_with_it(train: Rdm, tmp_path: Path) -> None:
    given = ("--kl-weight", 1e-4, "--sheet-minutes", 0)
    assert train("--steps", 1, *given).code == 0
    again = train("--steps", 2, *given, "--resume")
    assert again.code == 0 and "resuming at step 1" in again.err
    other = train("--steps", 3, "--kl-weight", 1e-3, "--resume")
    assert other.code == 2 and "--kl-weight: what is resumed or started from keeps its own" in other.err


def test_what_is_no_first_stage(rdm: Rdm, faces: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    words = (
        "train",
        "lrdm",
        faces,
        "-o",
        tmp_path / "mine",
        "--run",
        tmp_path / "run",
        "--preset",
        "small32",
    )
    without = rdm(*words)
    assert without.code == 2 and "name one with --first-stage FOLDER" in without.err
    other = rdm(*words, "--first-stage", tiny_bundle)
    assert other.code == 1 and "holds no first stage" in other.err
    assert len(other.err.splitlines()) == 1 and not (tmp_path / "mine").exists()


@pytest.mark.parametrize(("kind", "name"), [("kl", "AutoencoderKL"), ("vq", "VQModel")])
def test_a_first_stage_of_one_s_own(rdm: Rdm, faces: Path, tmp_path: Path, kind: str, name: str) -> None:
    """Trained here, opened by diffusers, stood on by LRDM."""
    import diffusers

    stage = tmp_path / "stage"
    places = ("-o", stage, "--run", tmp_path / "stage-run")
    small = ("--preset", "small32", "--batch-size", 2, "--threads", 1, "--warmup", 0, "--decay", 0)
    trained = rdm("train", "first-stage", faces, *places, *small, "--kind", kind, "--steps", 4, "--ema", 0.5)
    assert trained.code == 0 and "PSNR" in trained.err
    theirs = getattr(diffusers, name).from_pretrained(stage / "first_stage").eval()
    tuned = ("-o", tmp_path / "tuned", "--run", tmp_path / "tuned-run", "--init-from", stage)
    once = ("--kind", kind, "--steps", 1, "--lr", 0, "--sheet-minutes", 0)
    more = rdm("train", "first-stage", faces, *tuned, *small, *once)
    assert more.code == 0
    weights = load_file(tmp_path / "tuned" / "first_stage" / "diffusion_pytorch_model.safetensors")
    assert all(torch.allclose(weights[n], value) for n, value in theirs.state_dict().items())
    assert not (stage / "scheduler").exists()

    mine = tmp_path / "mine"
    words = ("train", "lrdm", faces, "-o", mine, "--run", tmp_path / "run", "--first-stage", stage)
    assert rdm(*words, *small, "--steps", 2, "--sheet-minutes", 0).code == 0
    model = cast(Any, open_bundle(str(mine)).model)
    x_0 = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        answer = theirs.encode(x_0)
        latents = answer.latent_dist.mode() if kind == "kl" else answer.latents
        decoded = theirs.decode(latents).sample
    z_0 = model.enter(x_0)
    torch.testing.assert_close(z_0, latents * model.unet.scale_factor, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.leave(z_0), decoded, atol=1e-4, rtol=1e-4)
    assert abs(float(z_0.std()) - 1) < 0.5


def test_a_first_stage_is_no_bundle(rdm: Rdm, faces: Path, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    places = ("-o", stage, "--run", tmp_path / "stage-run")
    small = ("--preset", "small32", "--batch-size", 2, "--threads", 1, "--steps", 1, "--sheet-minutes", 0)
    assert rdm("train", "first-stage", faces, *places, *small).code == 0
    refused = rdm("encode", faces, "-o", tmp_path / "codes", "-b", stage)
    assert refused.code == 1 and "a first stage, which encodes nothing by itself" in refused.err
    card = (stage / "README.md").read_text()
    assert "rdm train lrdm IMAGES -o my-lrdm --first-stage stage" in card and "rdm encode" not in card


@pytest.mark.long
def test_cached_latents_train_the_same(rdm: Rdm, faces: Path, tmp_path: Path) -> None:
    """A VQ's latents are no draw: with and without the cache the losses agree, and the file is used again."""
    import json

    stage = tmp_path / "stage"
    small = ("--preset", "small32", "--batch-size", 4, "--threads", 1, "--sheet-minutes", 0)
    places = ("-o", stage, "--run", tmp_path / "stage-run")
    assert rdm("train", "first-stage", faces, *places, *small, "--kind", "vq", "--steps", 2).code == 0

    def losses(name: str, *words: object) -> tuple[list[float], str]:
        places = ("-o", tmp_path / name, "--run", tmp_path / f"{name}-run", "--first-stage", stage)
        trained = rdm("train", "lrdm", faces, *places, *small, "--steps", 3, *words)
        assert trained.code == 0
        log = (tmp_path / f"{name}-run" / "log.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in log], trained.err

    cached = ("--cache-latents", tmp_path / "latents")
    plain, _ = losses("plain")
    first, told = losses("first", *cached)
    second, told_again = losses("second", *cached)
    assert "computing the latents of 5 images" in told and "the latents are there" in told_again
    assert first == second and first == pytest.approx(plain, rel=0.01)
    assert len(list((tmp_path / "latents").iterdir())) == 1


@pytest.mark.long
def test_t_lrdm_trains(rdm: Rdm, faces: Path, tmp_path: Path) -> None:
    """z is a function of t: the sheet, the diagnostics and a code have one for each timestep."""
    stage, mine = tmp_path / "stage", tmp_path / "mine"
    small = ("--batch-size", 4, "--threads", 1, "--steps", 2)
    places = ("-o", stage, "--run", tmp_path / "stage-run", "--sheet-minutes", 0)
    assert rdm("train", "first-stage", faces, "--preset", "small32", *places, *small).code == 0
    places = ("-o", mine, "--run", tmp_path / "run", "--first-stage", stage, "--preset", "small32-t")
    trained = rdm("train", "lrdm", faces, *places, *small)
    assert trained.code == 0 and "loss with own -> swapped z" in trained.err
    some = ("-o", tmp_path / "made", "-b", mine)
    assert rdm("encode", faces / "a.png", *some, "--steps", 3).code == 0
    code = tmp_path / "made" / "a.safetensors"
    assert Codes.load(code).z.shape == (1, 3, 16, 2, 2)
    again = rdm("decode", code, *some, "--steps", 4, "-b", mine)
    assert again.code == 1 and "holds z at the 3 steps that it was made for, and not at 4" in again.err
    other = rdm("decode", code, *some, "--solver", "heun")  # as many steps, on the same timesteps
    assert other.code == 0
    # z alone is made for some steps, too: done already, and decoded on its own timesteps
    alone = ("encode", faces / "b.png", *some, "--steps", 3, "--no-x-t")
    assert rdm(*alone).code == 0 and "1 already done" in rdm(*alone).err
    assert rdm("decode", tmp_path / "made" / "b.safetensors", *some).code == 0
    solved = ("--inversion", "fixed-point", "--variations", 1, "--steps", 3)
    assert rdm("reconstruct", faces / "a.png", *some, *solved).code == 0
    # a sample has one z, at however many steps it is decoded in
    assert rdm("sample", "-n", 2, *some, "--steps", 4).code == 0
    drawn = Codes.load(tmp_path / "made" / "000001.safetensors").z
    assert drawn.shape == (1, 4, 16, 2, 2) and torch.equal(drawn, drawn[:, :1].expand_as(drawn))
    again = ("-b", tmp_path / "mine", "-o", tmp_path / "again")
    assert rdm("decode", tmp_path / "made" / "000001.safetensors", *again).code == 0
    refused = rdm("sample", "-n", 2, *some, "--like", faces)
    assert refused.code == 2 and "--like: its z is one for each timestep" in refused.err


@pytest.mark.long
def test_style_and_shape(rdm: Rdm, faces: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """A code has its image's style; another image's can be taken instead, and a sample needs one."""
    stage, mine, made = tmp_path / "stage", tmp_path / "mine", tmp_path / "made"
    small = ("--batch-size", 4, "--threads", 1)
    places = ("-o", stage, "--run", tmp_path / "stage-run", "--sheet-minutes", 0, "--steps", 2)
    assert rdm("train", "first-stage", faces, "--preset", "small32", *places, *small).code == 0
    places = ("-o", mine, "--run", tmp_path / "run", "--first-stage", stage, "--preset", "small32-style")
    trained = rdm(
        "train", "lrdm", faces, *places, *small, "--steps", 8, "--lr", 0.003, "--warmup", 0, "--ema", 0.5
    )
    assert trained.code == 0 and "loss with own -> swapped z" in trained.err
    assert rdm("bundles", "check", mine).code == 0
    some = ("-b", mine, "--steps", 4)
    assert rdm("encode", faces / "a.png", faces / "b.png", "-o", tmp_path, *some).code == 0
    code = Codes.load(tmp_path / "a.safetensors")
    model = cast(Any, open_bundle(str(mine)).model)
    assert code.style is not None and code.style.shape[1:] == model.x_T_shape == (8, 8, 8)
    assert code.z.shape == (1, 16, 4, 4)

    assert rdm("decode", tmp_path / "a.safetensors", "-o", made / "own", "-b", mine).code == 0
    styled = ("--style", faces / "b.png")
    assert rdm("decode", tmp_path / "a.safetensors", "-o", made / "other", "-b", mine, *styled).code == 0
    same = ("--style", faces / "a.png")
    assert rdm("decode", tmp_path / "a.safetensors", "-o", made / "same", "-b", mine, *same).code == 0
    own, other, same_again = (pixels(made / name / "a.png") for name in ("own", "other", "same"))
    # the style of the code was read in a batch of two, which rounds differently
    assert abs(own - same_again).max() <= 1 < abs(own - other).max()
    assert rdm("reconstruct", faces / "a.png", "-o", made / "r", *some, *styled).code == 0
    ends = (tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert rdm("interpolate", *ends, "-o", made / "walk", "--frames", 3, *some).code == 0
    walked = ("--frames", 3, *some, "--path", "trajectory")
    assert rdm("interpolate", *ends, "-o", made / "trajectory", *walked).code == 0
    for frame in ("frame-0000.png", "frame-0002.png"):  # each end in its own style
        assert abs(pixels(made / "walk" / frame) - pixels(made / "trajectory" / frame)).max() <= 1
    without = rdm("sample", "-n", 1, "-o", made / "s", *some)
    assert without.code == 1 and "name an image that has one with --style" in without.err
    assert rdm("sample", "-n", 2, "-o", made / "s", *some, *styled).code == 0
    again = rdm("decode", made / "s" / "000001.safetensors", "-o", made / "again", "-b", mine)
    assert again.code == 0  # a sample's code has the style that it was drawn in
    shown = abs(pixels(made / "again" / "000001.png") - pixels(made / "s" / "000001.png"))
    assert shown.max() <= 1  # it was drawn in a batch of two
    (tmp_path / "broken.png").write_text("no picture")
    broken = rdm("decode", *ends, "-o", made / "x", "-b", mine, "--style", tmp_path / "broken.png")
    assert broken.code == 1 and "broken.png: not an image" in broken.err and not (made / "x").exists()
    wrong = rdm("decode", tmp_path / "a.safetensors", "-o", made / "x", "-b", tiny_bundle, *styled)
    assert wrong.code == 2 and "--style: this is no model of style and shape" in wrong.err
    words = ("--first-stage", stage, "--preset", "small32-style", "--cache-latents", tmp_path / "latents")
    places = ("-o", tmp_path / "new", "--run", tmp_path / "new-run")
    for more in ((), ("--dry-run",)):
        refused = rdm("train", "lrdm", faces, *places, *words, *small, *more)
        assert refused.code == 2 and "trained on the images themselves" in refused.err
