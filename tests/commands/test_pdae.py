"""PDAE through every command: a plain DPM gets an encoder, and all that works on a Diff-AE works on it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

from rdm_cli import open_pipeline
from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.writing import save_bundle
from rdm_cli.codes.code import Codes
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.dpm.method import METHOD
from rdm_cli.methods.dpm.model import DPM, DPMConfig
from rdm_cli.models.unet import UNetConfig
from rdm_cli.pipeline import explaining

Rdm = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("fresh_accelerate", "short_sheets")


def dpm_bundle(folder: Path, size: int) -> Path:
    unet = UNetConfig(
        image_size=size, model_channels=32, channel_mult=(1, 1), num_res_blocks=1,
        attention_resolutions=(), time_width=32, z_width=None, dropout=0.1, patch_size=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DPM(DPMConfig(unet=unet, prediction="v", sampling=SamplingSpec(steps=4)))
        with torch.no_grad():
            for weight in model.parameters():
                if not weight.any():
                    weight.normal_(std=0.05)
    save_bundle(folder, METHOD, model, card="# plain\n")
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dpm_bundle(tmp_path_factory.mktemp("bundles") / "plain", 32)


@pytest.fixture
def train(rdm: Rdm, faces: Path, plain: Path, tmp_path: Path) -> Rdm:
    """``train("--steps", 2)`` trains a small encoder and shift branch on five pictures."""

    def run(*arguments: object, dpm: Path | None = plain) -> Any:
        named = () if dpm is None else ("--dpm", dpm)
        return rdm(
            "train", "pdae", faces, "-o", tmp_path / "mine", "--run", tmp_path / "run", *named,
            "--preset", "small32", "--batch-size", 2, "--warmup", 0, "--decay", 0, "--threads", 1,
            "--ema", 0.5, *arguments,
        )  # fmt: skip

    return run


def test_from_a_dpm_to_edits(
    train: Rdm, rdm: Rdm, plain: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = train("--steps", 6)
    assert trained.code == 0 and "loss with own -> swapped z" in trained.err
    mine = tmp_path / "mine"
    # the DPM is stored once, as it was, and nothing of it was trained
    before, after = (load_file(b / "unet" / "diffusion_pytorch_model.safetensors") for b in (plain, mine))
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    assert open_bundle(str(mine)).model.sampling == open_bundle(str(plain)).model.sampling
    assert rdm("bundles", "check", mine).code == 0

    codes, made = tmp_path / "codes", tmp_path / "made"
    assert rdm("encode", faces, "-o", codes, "-b", mine).code == 0
    code = Codes.load(codes / "a.safetensors")
    assert code.z.shape == (1, 256) and code.x_T is not None and code.x_T.shape == (1, 3, 32, 32)
    assert rdm("decode", codes, "-o", made / "d", "-b", mine).code == 0
    assert rdm("reconstruct", faces / "a.png", "-o", made, "--variations", 1, "-b", mine).code == 0
    ends = (faces / "a.png", faces / "b.png")
    assert rdm("interpolate", *ends, "--frames", 3, "-o", made / "walk", "-b", mine).code == 0
    small = ("--samples", 64, "--batch-size", 8, "--layers", 2, "--hidden-width", 16)
    assert rdm("train", "prior", codes, "-b", mine, *small).code == 0
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="") as file:
        rows = [["file_name", "dark"], *([f"{name}.png", i % 2] for i, name in enumerate("abcd"))]
        csv.writer(file).writerows([*rows, ["sub/e.png", 0]])
    attributes = rdm("train", "attributes", codes, "--labels", labels, "-b", mine, "--held-out", 0.5)
    assert attributes.code in (0, 1)  # five pictures may be too few for held-out scores
    assert rdm("sample", "-n", 2, "-o", made / "s", "-b", mine).code == 0
    if attributes.code == 0:
        edited = rdm("manipulate", faces / "a.png", "--attr", "dark", "-o", made / "e", "-b", mine)
        assert edited.code == 0

    monkeypatch.setattr(explaining, "MOST_PROBES", 2)
    monkeypatch.setattr(explaining, "GENERATIONS", 1)
    brighter = open_pipeline(mine).explain(faces / "a.png", lambda x: 5 * x.mean(dim=(1, 2, 3)), target=0.5)
    assert brighter[0].num_decodes > 8 and all(answer.holds for answer in brighter[0].answers)


def test_a_killed_run_goes_on_with_its_dpm(train: Rdm, plain: Path, tmp_path: Path) -> None:
    assert train("--steps", 2, "--sheet-minutes", 0).code == 0
    resumed = train("--resume", "--steps", 4, "--sheet-minutes", 0, dpm=None)
    assert resumed.code == 0 and "resuming at step 2" in resumed.err
    whole = ("-o", tmp_path / "whole", "--run", tmp_path / "run-whole")
    assert train("--steps", 4, "--sheet-minutes", 0, *whole).code == 0
    kept, undisturbed = (cast(Any, open_bundle(str(tmp_path / n)).model) for n in ("mine", "whole"))
    given = cast(DPM, open_bundle(str(plain)).model).unet.state_dict()
    assert kept.generator is not None
    ours, theirs = kept.state_dict(), undisturbed.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(torch.equal(ours[f"unet.{name}"], given[name]) for name in given)


def test_what_is_no_dpm_is_refused(train: Rdm, rdm: Rdm, tiny_bundle: Path, tmp_path: Path) -> None:
    without = train("--steps", 1, dpm=None)
    assert without.code == 2 and "name it with --dpm BUNDLE" in without.err
    other = train("--steps", 1, dpm=tiny_bundle)
    assert other.code == 2 and f"--dpm {tiny_bundle}: not a plain DPM" in other.err
    small = train("--steps", 1, dpm=dpm_bundle(tmp_path / "small", 16))
    assert small.code == 2 and "images of 32, 64, 128, 256, 512 pixels, not of 16" in small.err
    missing = train("--steps", 1, dpm=tmp_path / "none")
    assert missing.code != 0 and len(missing.err.splitlines()) == 1
    assert not (tmp_path / "mine").exists()
    for method in ("diffae", "dpm"):
        refused = rdm("train", method, tmp_path, "-o", tmp_path / "x", "--dpm", tiny_bundle)
        assert refused.code == 2 and "No such option" in refused.err


@pytest.fixture(scope="module")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DDPMPipeline with random weights, saved by diffusers itself."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    folder = tmp_path_factory.mktemp("diffusers") / "ddpm"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=32, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder)
    return folder


def test_any_diffusers_model_gets_an_encoder(
    train: Rdm, rdm: Rdm, pipeline_folder: Path, faces: Path, tmp_path: Path
) -> None:
    """As the issue has it: a random DDPMPipeline, some steps of training, and the main commands."""
    trained = train("--steps", 4, "--sheet-minutes", 0, dpm=pipeline_folder)
    assert trained.code == 0
    mine = tmp_path / "mine"
    before, after = (
        load_file(b / "unet" / "diffusion_pytorch_model.safetensors") for b in (pipeline_folder, mine)
    )
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    model = cast(Any, open_bundle(str(mine)).model)
    assert model.prediction == "eps" and model.config.shift.gamma is None  # a generator's errors are of v
    assert float(model.shift.conv_out.weight.abs().max()) > 0
    assert rdm("encode", faces / "a.png", "-o", tmp_path, "-b", mine, "--steps", 4).code == 0
    assert rdm("decode", tmp_path / "a.safetensors", "-o", tmp_path / "d", "-b", mine).code == 0
    again = rdm("reconstruct", faces / "a.png", "-o", tmp_path / "r", "-b", mine, "--steps", 4)
    assert again.code == 0 and rdm("bundles", "check", mine).code == 0


def test_a_diffusers_pipeline_works_as_it_lies(
    rdm: Rdm, pipeline_folder: Path, faces: Path, tmp_path: Path
) -> None:
    encoded = rdm("encode", faces / "a.png", "-o", tmp_path, "-b", pipeline_folder, "--steps", 2)
    assert encoded.code == 0
    assert rdm("decode", tmp_path / "a.safetensors", "-o", tmp_path / "d", "-b", pipeline_folder).code == 0
    shown = rdm("bundles", "show", pipeline_folder)
    assert shown.code == 0 and "plain diffusion model" in shown.out
    pictures = rdm("sample", "-n", 1, "-o", tmp_path / "s", "-b", pipeline_folder, "--steps", 2)
    assert pictures.code == 0 and (tmp_path / "s" / "000000.png").exists()


def test_gamma_is_a_setting_of_a_new_run(train: Rdm, tmp_path: Path) -> None:
    given = ("--sheet-minutes", 0, "--gamma", 0.25)
    assert train("--steps", 1, *given).code == 0
    assert cast(Any, open_bundle(str(tmp_path / "mine")).model).config.shift.gamma == 0.25
    again = train("--steps", 2, "--resume", *given)  # as the line that an interrupted run prints has it
    assert again.code == 0 and "resuming at step 1" in again.err
    resumed = train("--steps", 3, "--resume", "--gamma", 0.5)
    assert resumed.code == 2 and "--gamma: what is resumed or started from keeps its own" in resumed.err


@pytest.mark.long
def test_samples_stop_shifting(
    train: Rdm, rdm: Rdm, faces: Path, tmp_path: Path, pixels_of: Callable[[Path], bytes]
) -> None:
    """The paper's 0.3 unless told otherwise; a sample's code decodes to the same picture again."""
    assert train("--steps", 8, "--lr", 0.02, "--sheet-minutes", 0).code == 0
    mine, codes = tmp_path / "mine", tmp_path / "codes"
    assert rdm("encode", faces, "-o", codes, "-b", mine, "--no-x-t").code == 0
    small = ("--samples", 64, "--batch-size", 8, "--layers", 2, "--hidden-width", 16)
    assert rdm("train", "prior", codes, "-b", mine, *small).code == 0
    pictures = {}
    for given in (None, 0.0, 0.3, 1.0):
        words = () if given is None else ("--stop-shift", given)
        folder = tmp_path / f"stop-{given}"
        assert rdm("sample", "-n", 1, "-o", folder, "-b", mine, "--steps", 10, *words).code == 0
        pictures[given] = pixels_of(folder / "000000.png")
        assert Codes.load(folder / "000000.safetensors").infos[0].stop_shift == (given if words else 0.3)
        again = tmp_path / f"again-{given}"
        assert rdm("decode", folder / "000000.safetensors", "-o", again, "-b", mine).code == 0
        assert pixels_of(again / "000000.png") == pictures[given]
    assert pictures[None] == pictures[0.3]
    assert len({pictures[0.0], pictures[0.3], pictures[1.0]}) == 3


def test_stop_shift_needs_a_shift(rdm: Rdm, plain: Path, tmp_path: Path) -> None:
    refused = rdm("sample", "-n", 1, "-o", tmp_path / "s", "-b", plain, "--stop-shift", 0.3)
    assert refused.code == 2 and "--stop-shift: there is no shift" in refused.err
