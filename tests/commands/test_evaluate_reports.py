"""rdm evaluate: tables, JSON and reports, on bundles of every kind and on folders with and without labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rdm_cli.bundles.writing import save_bundle
from rdm_cli.evaluation import distances
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.dpm.method import METHOD as DPM_METHOD
from rdm_cli.methods.dpm.model import DPM, DPMConfig
from rdm_cli.metrics import features
from rdm_cli.metrics.features import FeatureExtractor, open_random_network
from rdm_cli.models.unet import UNetConfig
from rdm_cli.training import pixel_judge

Rdm = Callable[..., Any]


@pytest.fixture(scope="module")
def dpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain DPM of 32 px, large enough for every perceptual distance."""
    unet = UNetConfig(
        image_size=32, model_channels=32, channel_mult=(1, 1), num_res_blocks=1, z_width=None,
        attention_resolutions=(), time_width=32,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DPM(DPMConfig(unet=unet, sampling=SamplingSpec(steps=4)))
    folder = tmp_path_factory.mktemp("dpm") / "dpm"
    save_bundle(folder, DPM_METHOD, model, card="# dpm\n")
    return folder


def figures(done: Any) -> list[dict[str, Any]]:
    """The lines of --json, which must have gone well."""
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def only(found: list[dict[str, Any]], name: str, **condition: Any) -> list[dict[str, Any]]:
    return [
        f
        for f in found
        if f["figure"] == name and all(f["condition"].get(k) == v for k, v in condition.items())
    ]


def test_reconstruction_of_two_bundles(
    rdm: Rdm, tiny_bundle: Path, dpm: Path, faces: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = rdm("evaluate", "reconstruction", tiny_bundle, dpm, faces, "-o", out, "--steps", "2,4")
    assert done.code == 0
    assert "tiny" in done.lines[1] and "dpm" in done.lines[1] and "PSNR (dB)" in done.out
    assert "dpm: a plain DPM has no z" in done.err
    assert "tiny: ST-LPIPS-alex needs 21 px, and its images have 16" in done.err or "left out" in done.err
    content = json.loads((out / "reconstruction.json").read_text())
    assert content["settings"]["num_images"] == 5 and content["settings"]["seed"] == 0
    found = content["figures"]
    assert {f["condition"]["x_T"] for f in found if f["bundle"] == "tiny"} == {"inferred", "random"}
    assert {f["condition"]["x_T"] for f in found if f["bundle"] == "dpm"} == {"inferred"}
    for figure in found:
        assert figure["low"] <= figure["value"] <= figure["high"] and figure["num"] == 5
        assert figure["interval"] == "Student's t" and figure["num_resamples"] == 0
        assert figure["computed_with"]
    html = (out / "reconstruction.html").read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>") and "T=2, random x_T" in html
    assert content["settings"]["data_sha256"] in html
    # the implementation behind the papers' tables pads SSIM, which scores higher: every report says so
    assert all("padded with zeros" in f["computed_with"]["border"] for f in only(found, "SSIM"))
    assert "border padded with zeros as in the papers" in html
    assert "padded with zeros" in " ".join(done.out.split())


def test_reconstruction_says_what_reconstruct_says(
    rdm: Rdm, tiny_bundle: Path, faces: Path, tmp_path: Path
) -> None:
    words = ("evaluate", "reconstruction", tiny_bundle, faces, "--json", "--steps", 3, "-n", 2)
    done = rdm(*words)
    (mse,) = only(figures(done), "MSE", x_T="inferred")
    words_of_one = ("--bundle", tiny_bundle, "--steps", 3, "--json", "-o", tmp_path / "each")
    each = rdm("reconstruct", faces / "a.png", faces / "b.png", *words_of_one)
    measured = [o["mse"] for o in each.objects if "mse" in o]
    assert len(measured) == 2
    assert mse["value"] == pytest.approx(sum(measured) / 2, rel=1e-4)
    assert rdm(*words).out == done.out
    assert rdm(*words, "--seed", 1).out != done.out


def test_words_that_make_no_sense(rdm: Rdm, tiny_bundle: Path, faces: Path) -> None:
    alone = rdm("evaluate", "reconstruction", faces)
    assert alone.code == 2 and "one or more bundles, and then a folder" in alone.err
    soon = rdm("evaluate", "reconstruction", tiny_bundle, faces, "--steps", "soon")
    assert soon.code == 2 and "--steps soon" in soon.err
    none = rdm("evaluate", "reconstruction", tiny_bundle, faces, "--steps", "0")
    assert none.code == 2 and "at least one step" in none.err
    twice = rdm("evaluate", "reconstruction", tiny_bundle, tiny_bundle, faces)
    assert twice.code == 2 and "named twice" in twice.err


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    """A folder of twelve smooth pictures of 32 px."""
    return smooth_pictures(tmp_path / "twelve", 12)


def smooth_pictures(folder: Path, num: int) -> Path:
    """``num`` smooth pictures of 32 px, the same every time."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for i in range(num):
        corners = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        corners.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{i:03d}.png")
    return folder


def few_features() -> FeatureExtractor:
    """A network small enough for a test in the place of EffNet-Lite0."""
    return replace(open_random_network(seed=0, num_features=16), name="random")


def test_generation_from_each_prior(
    rdm: Rdm, tiny_bundle: Path, dpm: Path, twelve: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(features, "open_effnet_lite0", few_features)
    words = ("evaluate", "generation", tiny_bundle, dpm, twelve, "--steps", "2,3", "--json")
    found = figures(rdm(*words, "-o", tmp_path / "out"))
    name = "FD-random (1 of 16 dimensions)"
    seen = [(f["bundle"], f["condition"]["prior"], f["condition"]["T"]) for f in only(found, name)]
    assert seen == [(b, p, t) for b, p in (("tiny", "latent-ddim"), ("dpm", "x_T alone")) for t in (2, 3)]
    assert {f["figure"] for f in found} >= {"KD-random x 1000", "precision", "recall", "density", "coverage"}
    for figure in found:
        assert figure["num"] == 12 and len(figure["computed_with"]["sha256"]) == 64
        assert figure["computed_with"]["num_reference"] == 12
        assert figure["settings"]["num_samples"] == 12
    assert "none picked" in (tmp_path / "out" / "generation.html").read_text(encoding="utf-8")


def test_generation_says_what_it_lacks(
    rdm: Rdm, tiny_bundle: Path, dpm: Path, faces: Path, twelve: Path, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(features, "open_effnet_lite0", few_features)
    few = rdm("evaluate", "generation", dpm, faces)
    assert few.code == 2 and "5 images: a distance of distributions needs 10" in few.err
    without = tmp_path / "without"
    shutil.copytree(tiny_bundle, without)
    shutil.rmtree(without / "prior")
    alone = rdm("evaluate", "generation", without, twelve, "--steps", 2)
    assert alone.code == 2 and "without: no prior over z, and so no samples; train one" in alone.err
    monkeypatch.undo()
    missing = rdm("evaluate", "generation", dpm, twelve, "--inception-weights", tmp_path / "none.pth")
    assert missing.code == 2 and "none.pth: no such file of weights" in missing.err


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Forty pictures of 16 px, and CelebA's list beside them: bright ones smile, red ones wear a hat."""
    folder = tmp_path / "img_align_celeba"
    folder.mkdir()
    rng = np.random.default_rng(2)
    lines = ["40", "Smiling Wearing_Hat Rare"]
    for i in range(40):
        smiling, hat = i % 2, i // 2 % 2
        colour = np.array([120 + 100 * hat, 40 + 80 * smiling, 40 + 80 * smiling])
        pixels = colour + rng.integers(-20, 20, (4, 4, 3))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize(
            (16, 16), Image.Resampling.BICUBIC
        )
        image.save(folder / f"{i:06d}.png")
        rare = 1 if i == 0 else -1
        lines.append(f"{i:06d}.jpg {2 * smiling - 1} {2 * hat - 1} {rare}")
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_attributes_on_celebas_list(
    rdm: Rdm, tiny_bundle: Path, dpm: Path, labelled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = rdm("evaluate", "attributes", tiny_bundle, dpm, labelled, "--json", "-o", out)
    found = figures(done)
    assert {f["condition"]["attribute"] for f in found} == {"mean", "smiling", "wearing_hat"}
    assert "attributes left out: rare (" in done.err and "dpm: a plain DPM has no z to probe" in done.err
    assert {f["bundle"] for f in found} == {"tiny"}
    # the colours are in the pixels, so their components must tell them
    for attribute in ("smiling", "wearing_hat"):
        (pixels,) = only(found, "AUROC", attribute=attribute, features="PCA of pixels")
        assert pixels["value"] > 0.95 and pixels["num"] == 10
        assert pixels["computed_with"]["num_train"] == 30 and pixels["computed_with"]["num_features"] == 8
    (random,) = only(found, "F1", attribute="mean", features="random network")
    assert len(random["computed_with"]["sha256"]) == 64
    html = (out / "attributes.html").read_text(encoding="utf-8")
    assert "wearing_hat" in html and "list_attr_celeba.txt" in html


def test_disentanglement_on_celebas_list(rdm: Rdm, tiny_bundle: Path, labelled: Path) -> None:
    words = ("evaluate", "disentanglement", tiny_bundle, labelled, "--json")
    found = figures(rdm(*words))
    (pixels,) = only(found, "DCI informativeness", features="PCA of pixels")
    assert pixels["value"] > 0.9
    for name in ("DCI disentanglement", "DCI completeness", "MIG", "TAD"):
        assert len(only(found, name)) == 2  # of z and of pixels
        assert all(0 <= f["value"] <= 1 for f in only(found, name))
    assert len(only(found, "lead in AUROC", features="z")) == 2
    for name in ("MIG", "TAD"):
        (chance,) = only(found, f"{name}, labels shuffled", features="PCA of pixels")
        assert chance["computed_with"]["num_shuffles"] == 5
    one = rdm(*words, "--attr", "smiling")
    assert one.code == 2 and "two attributes or more are needed" in one.err


@pytest.mark.parametrize("verb", ["attributes", "disentanglement", "edit"])
def test_without_labels_one_line_says_so(rdm: Rdm, tiny_bundle: Path, faces: Path, verb: str) -> None:
    done = rdm("evaluate", verb, tiny_bundle, faces)
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert "no labels, and " in done.err and "--labels" in done.err


@pytest.mark.parametrize("verb", ["attributes", "disentanglement"])
def test_a_plain_dpm_alone_has_no_z(rdm: Rdm, dpm: Path, labelled: Path, verb: str) -> None:
    done = rdm("evaluate", verb, dpm, labelled)
    assert done.code == 2 and len(done.err.splitlines()) == 1 and "a plain DPM has no z" in done.err


def test_edits_on_celebas_list(
    rdm: Rdm, tiny_bundle: Path, dpm: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_judge, "FEWEST_STEPS", 20)
    out = tmp_path / "out"
    words = (tiny_bundle, dpm, labelled, "--scales=-0.5,0.5", "-n", 3, "--steps", 2, "--json", "-o", out)
    done = rdm("evaluate", "edit", *words)
    found = figures(done)
    assert "dpm: a plain DPM has no z to move" in done.err
    # of the bundle's attributes smiling, glasses and hat the table has one
    assert {f["condition"]["attribute"] for f in found} == {"smiling"}
    assert {f["condition"].get("scale") for f in found} == {None, 0.0, -0.5, 0.5}
    for figure in found:
        if figure["figure"] != "judge's AUROC":
            edit, scale = figure["condition"]["edit"], figure["condition"]["scale"]
            assert scale == 0 or edit == ("removed" if scale < 0 else "added")
    (changed,) = only(found, "others changed", scale=0.5)
    assert changed["computed_with"]["num_attributes"] == 2 and changed["computed_with"]["trained_on"] == 30
    assert len(changed["computed_with"]["sha256"]) == 64
    (background,) = only(found, "background change", scale=0.5)
    assert background["value"] > 0 and background["unit"] == "levels of 255"
    unknown = rdm("evaluate", "edit", tiny_bundle, labelled, "--attr", "smilng")
    assert unknown.code == 2 and "did you mean 'smiling'?" in unknown.err
    assert "smiling, images that lack it" in (out / "edit.html").read_text(encoding="utf-8")


def test_interpolation_through_codes_noise_and_pixels(
    rdm: Rdm, tiny_bundle: Path, dpm: Path, twelve: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "open_distances", lambda paths: ([], ["no perceptual distance"]))
    words = ("evaluate", "interpolation", tiny_bundle, dpm, twelve, "--steps", 2, "-n", 4, "--json")
    done = rdm(*words, "-o", tmp_path / "out")
    found = figures(done)
    assert "no perceptual distance" in done.err
    ways = {(f["bundle"], f["condition"]["way"]) for f in found}
    of_tiny = {("tiny", way) for way in ("z and x_T", "z alone", "pixels")}
    assert ways == of_tiny | {("dpm", "DDIM noise"), ("dpm", "pixels")}
    # by the mean squared error, fading is the even way: nine frames, eight equal steps
    for bundle in ("tiny", "dpm"):
        pixels = {
            f["figure"]: f for f in found if f["bundle"] == bundle and f["condition"]["way"] == "pixels"
        }
        assert pixels["smoothness"]["value"] == pytest.approx(1, abs=1e-4)
        assert pixels["largest step"]["value"] == pytest.approx(1, abs=1e-3)
        assert pixels["detour"]["value"] == pytest.approx(1 / 8, rel=1e-3)
        # |x - y|^2 epsilon^2 / epsilon^2, and the length is eight times an eighth squared of that
        assert pixels["PPL (MSE)"]["value"] == pytest.approx(8 * pixels["length"]["value"], rel=1e-2)
    assert (tmp_path / "out" / "interpolation.html").read_text(encoding="utf-8").count("pair 1, ") > 3
    alone = rdm("evaluate", "interpolation", tiny_bundle, twelve, "--steps", 2, "-n", 1)
    assert alone.code == 0 and "no DDIM noise: that needs a plain DPM" in alone.err


def test_fifty_pngs_without_labels(
    rdm: Rdm, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs no labels works on a folder of nothing but pictures."""
    monkeypatch.setattr(features, "open_effnet_lite0", few_features)
    fifty = smooth_pictures(tmp_path / "fifty", 50)
    for verb, more in (("reconstruction", ()), ("generation", ()), ("interpolation", ("-n", 25))):
        done = rdm("evaluate", verb, tiny_bundle, fifty, "--steps", 2, "-o", tmp_path / "out", *more)
        assert done.code == 0, done.err
        assert "num_images 50" in done.out and "tiny" in done.out
    assert len(list((tmp_path / "out").iterdir())) == 6


@pytest.mark.slow
@pytest.mark.golden
def test_a_z_of_certain_steps_is_said_to_be_one(
    rdm: Rdm, twelve: Path, monkeypatch: pytest.MonkeyPatch, golden: Callable[[str], Path], tmp_path: Path
) -> None:
    """A t-LRDM's draws hold one z a step: what cannot be decoded is told, and the rest is measured."""
    monkeypatch.setattr(features, "open_effnet_lite0", few_features)
    files = (golden("lrdm") / "tlrdm_tiny.ckpt", golden("lrdm") / "tlrdm_tiny-project.yaml")
    assert rdm("bundles", "convert", "lrdm", *files, "-o", tmp_path / "t").code == 0
    done = rdm("evaluate", "generation", tmp_path / "t", twelve, "--steps", "2,100", "--json", "-n", 10)
    assert {f["condition"]["T"] for f in figures(done)} == {100}
    assert "t: T=2: the code holds z at the 100 steps" in done.err


@pytest.mark.parametrize("ending", ["json", "html"])
def test_a_report_takes_no_other_files_place(
    rdm: Rdm, tiny_bundle: Path, faces: Path, tmp_path: Path, ending: str
) -> None:
    """A file of the user's stays, before any work; a report of rdm's own may be made again."""
    output = tmp_path / "report"
    output.mkdir()
    theirs = output / f"reconstruction.{ending}"
    theirs.write_text('{"mine": 1}')
    words = ("evaluate", "reconstruction", tiny_bundle, faces, "--steps", 1, "-o", output)
    refused = rdm(*words)
    assert refused.code == 1 and "is there already, and rdm did not write it" in refused.err
    assert theirs.read_text() == '{"mine": 1}'
    theirs.unlink()
    assert rdm(*words).code == 0 and rdm(*words).code == 0
