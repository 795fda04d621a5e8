"""rdm evaluate gap: the table, the JSON and the report, for every method that there is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rdm_cli.bundles.writing import save_bundle
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.dpm.method import METHOD as DPM_METHOD
from rdm_cli.methods.dpm.model import DPM, DPMConfig
from rdm_cli.methods.pdae.config import pdae_config
from rdm_cli.methods.pdae.method import METHOD
from rdm_cli.methods.pdae.model import PDAE
from rdm_cli.models.unet import UNetConfig
from rdm_cli.reports import plots

Rdm = Callable[..., Any]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A plain DPM and, on it, a PDAE whose shift is still zero."""
    unet = UNetConfig(
        image_size=32, model_channels=32, channel_mult=(1, 1), num_res_blocks=1, z_width=None,
        attention_resolutions=(), time_width=32,
    )  # fmt: skip
    sampling = SamplingSpec(steps=4, spacing="linspace")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dpm = DPM(DPMConfig(unet=unet, sampling=sampling))
        torch.nn.init.normal_(dpm.unet.conv_out.weight, std=0.02)
        pdae = PDAE(pdae_config(unet, z_width=8, prediction="eps", sampling=sampling, gamma=0.1))
    pdae.adopt(dpm)
    folder = tmp_path_factory.mktemp("gap")
    save_bundle(folder / "dpm", DPM_METHOD, dpm, card="# dpm\n")
    save_bundle(folder / "pdae", METHOD, pdae, card="# pdae\n")
    return {name: folder / name for name in ("dpm", "pdae")}


def test_a_table_json_and_a_report_with_plot_and_pictures(
    rdm: Rdm, bundles: dict[str, Path], tiny_bundle: Path, faces: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    names = (bundles["dpm"], bundles["pdae"], tiny_bundle)
    done = rdm("evaluate", "gap", *names, faces, "-o", out, "--every", 300, "--at", "100,700")
    assert done.code == 0
    assert "without z" in done.out and "pdae" in done.out and "tiny" in done.out
    assert sorted(path.name for path in out.iterdir()) == ["gap.html", "gap.json"]
    figures = json.loads((out / "gap.json").read_text())["figures"]
    assert {f["condition"]["t"] for f in figures} == {0, 300, 600, 900, 999}
    assert {f["num"] for f in figures} == {5} and {f["interval"] for f in figures} == {"Student's t"}
    gaps = {(f["bundle"], f["condition"]["predictor"], f["condition"]["t"]): f["value"] for f in figures}
    # a shift of zero leaves the DPM's own gap, with the very same noise
    for t in (0, 300, 999):
        alone = gaps["dpm", "without z", t]
        assert alone > 0 and gaps["pdae", "without z", t] == alone == gaps["pdae", "with z", t]
    # eps of that random network is about zero, so the gap is about beta^2 / (alpha (1 - ab)) E eps^2
    from rdm_cli.kernels.schedules import LINEAR

    beta, alpha_bar = LINEAR.betas()[600], LINEAR.alpha_bar()[600]
    expected = float(beta**2 / ((1 - beta) * (1 - alpha_bar)))
    assert 0.5 < gaps["dpm", "without z", 600] / expected < 2
    page = (out / "gap.html").read_text()
    assert 'alt="squared gap ↓ over t for' in page
    for name, predictors in (("dpm", ["without z"]), ("pdae", ["without z", "with z"])):
        assert f"{name}: one step of denoising" in page
        for t in (100, 700):
            assert all(f"t={t} {predictor}" in page for predictor in predictors)


def test_json_lines_and_the_same_twice(rdm: Rdm, bundles: dict[str, Path], faces: Path) -> None:
    words = ("evaluate", "gap", bundles["pdae"], faces, "--json", "-n", 3, "--every", 500)
    first, second = rdm(*words), rdm(*words)
    assert first.code == 0 and first.out == second.out
    lines = [json.loads(line) for line in first.out.splitlines()]
    assert [line["condition"]["t"] for line in lines] == [0, 0, 500, 500, 999, 999]
    other = rdm(*words, "--seed", 1)
    assert other.out != first.out


def test_bad_words_and_bad_images(rdm: Rdm, bundles: dict[str, Path], faces: Path, tmp_path: Path) -> None:
    alone = rdm("evaluate", "gap", faces)
    assert alone.code == 2 and "one or more bundles, and then a folder" in alone.err
    for verb in ("gap", "reconstruction", "generation", "attributes", "interpolation", "edit"):
        swapped = rdm("evaluate", verb, faces, bundles["pdae"])
        assert swapped.code == 2
        assert f"{bundles['pdae']}: this is a bundle, and the folder of images comes last" in swapped.err
    assert "avatars64-pdae: this is a bundle" in rdm("evaluate", "gap", faces, "avatars64-pdae").err
    beyond = rdm("evaluate", "gap", bundles["pdae"], faces, "--at", "1000", "-o", tmp_path / "o")
    assert beyond.code == 2 and "--at 1000: the timesteps of pdae are 0 to 999" in beyond.err
    words = rdm("evaluate", "gap", bundles["pdae"], faces, "--at", "soon")
    assert words.code == 2 and "--at soon" in words.err
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes((faces / "a.png").read_bytes())
    single = rdm("evaluate", "gap", bundles["pdae"], tmp_path / "one")
    assert single.code == 2 and "one: one image has no interval" in single.err
    for scales in ("nan", "0.1,inf", "0"):
        moved = rdm("evaluate", "edit", bundles["pdae"], faces, f"--scales={scales}")
        assert moved.code == 2 and f"--scales {scales}: a scale is a number" in moved.err
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "b.png").write_bytes((faces / "b.png").read_bytes())
    (broken / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    damaged = rdm("evaluate", "gap", bundles["pdae"], broken)
    assert damaged.code == 1 and "a.png: not an image" in damaged.err and len(damaged.err.splitlines()) == 1


def test_without_matplotlib_there_is_no_plot_and_the_rest_is(
    rdm: Rdm, bundles: dict[str, Path], faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    done = rdm("evaluate", "gap", bundles["pdae"], faces, "-o", tmp_path / "o", "--every", 500, "--at", "500")
    assert done.code == 0 and "pip install 'rdm-cli[evaluate]'" in done.err
    assert (tmp_path / "o" / "gap.json").exists()
    page = (tmp_path / "o" / "gap.html").read_text()
    assert "over t for" not in page and "one step of denoising" in page
