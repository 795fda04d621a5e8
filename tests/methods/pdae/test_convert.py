"""The PDAE authors' files: told by their content in any order, and refused by name where they do not fit."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rdm_cli.cli import main
from rdm_cli.errors import CheckpointError
from rdm_cli.methods.pdae.convert import read_pdae

pytestmark = pytest.mark.golden
NEEDED = ("representation.pt", "pretrained_dpm.yml")


@pytest.fixture
def copies(folder: Path, tmp_path: Path) -> Path:
    """The authors' files, to be damaged."""
    for path in folder.iterdir():
        if path.suffix in (".pt", ".yml"):
            shutil.copy(path, tmp_path / path.name)
    return tmp_path


@pytest.fixture
def edit(copies: Path) -> Callable[[str, Callable[[dict[str, Any]], None]], Path]:
    """Change what a checkpoint holds."""

    def run(name: str, change: Callable[[dict[str, Any]], None]) -> Path:
        content = torch.load(copies / name, weights_only=True)
        change(content)
        torch.save(content, copies / name)
        return copies / name

    return run


def test_two_files_are_enough_in_any_order(copies: Path, official: Any) -> None:
    for order in itertools.permutations(NEEDED):
        read = read_pdae([copies / name for name in order])
        assert read.config == official.config
        assert read.prior_state is None and read.classifier is None and read.z_mean is None
        assert all(torch.equal(read.state[name], official.state[name]) for name in official.state)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((), "no files: the autoencoder is missing"),
        (("pretrained_dpm.yml",), "pretrained_dpm.yml: the autoencoder is missing"),
        (("representation.pt",), "representation.pt: the settings of its frozen DPM are missing"),
        (("representation.pt", "representation.yml"), "the settings of its frozen DPM are missing"),
        ((*NEEDED, "representation.pt"), "are both of kind 'autoencoder'"),
        ((*NEEDED, "latent.pt", "latent.yml"), "latent.pt: works on standardised codes"),
        ((*NEEDED, "classifier.pt"), "classifier.pt: works on standardised codes"),
    ],
)
def test_what_is_missing_is_said(copies: Path, names: tuple[str, ...], told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        read_pdae([copies / name for name in names])


def drop(part: str, name: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[part].pop(name)


def rename(part: str, name: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content[part][f"{name}_other"] = content[part].pop(name)

    return change


def reshape(part: str, name: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content[part][name] = content[part][name][:-1]

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop("ema_encoder", "encoder.14.bias"), "nothing for proj_out.bias"),
        (drop("ema_decoder", "shift_out.2.bias"), "nothing for"),
        (drop("ema_decoder", "label_emb.weight"), "label_emb.weight"),
        (rename("ema_encoder", "encoder.0.weight"), "its ema_encoder is not made of strided convolutions"),
        (rename("ema_decoder", "out.2.bias"), "out.2.bias_other"),
        (reshape("ema_decoder", "shift_out.2.weight"), "has shape"),
        (reshape("ema_decoder", "middle_block.0.out_layers.3.weight"), "has shape"),
        (lambda content: content.update(ema_encoder={}), "its ema_encoder is empty"),
        (lambda content: content["ema_encoder"].update(step=3), "ema_encoder.step is a int, not a tensor"),
        (lambda content: content.pop("ema_encoder"), "holds none of what PDAE's files hold"),
    ],
)
def test_weights_that_do_not_fit(edit: Any, copies: Path, change: Any, told: str) -> None:
    path = edit("representation.pt", change)
    with pytest.raises(CheckpointError, match=told) as caught:
        read_pdae([copies / name for name in NEEDED])
    assert str(path) in caught.value.message


def test_files_of_other_models(edit: Any, copies: Path) -> None:
    everything = [p for p in sorted(copies.iterdir()) if p.suffix in (".pt", ".yml")]
    read_pdae(everything)

    def other(content: dict[str, Any]) -> None:
        content["ema_denoise_fn"]["out.2.bias"] = content["ema_denoise_fn"]["out.2.bias"] + 1

    edit("pretrained_dpm.pt", other)
    with pytest.raises(CheckpointError, match=r"pretrained_dpm\.pt"):
        read_pdae(everything)


def test_widths_of_z_must_agree(edit: Any, copies: Path) -> None:
    everything = [p for p in sorted(copies.iterdir()) if p.suffix in (".pt", ".yml")]

    def narrower(content: dict[str, Any]) -> None:
        content["mean"], content["std"] = content["mean"][..., :-1], content["std"][..., :-1]

    path = edit("latents.pt", narrower)
    with pytest.raises(CheckpointError) as caught:
        read_pdae(everything)
    assert str(path) in caught.value.message


def test_settings_that_say_nothing(copies: Path) -> None:
    (copies / "other.yml").write_text("lr: 0.1\n")
    with pytest.raises(CheckpointError, match=r"other\.yml: settings with neither denoise_fn_config"):
        read_pdae([*(copies / name for name in NEEDED), copies / "other.yml"])
    (copies / "broken.yml").write_text("a: [1\n")
    with pytest.raises(CheckpointError, match=r"broken\.yml"):
        read_pdae([*(copies / name for name in NEEDED), copies / "broken.yml"])


def test_a_refusal_leaves_nothing(copies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bundle"
    assert main(["bundles", "convert", "pdae", str(copies / "representation.pt"), "-o", str(out)]) == 1
    told = capsys.readouterr().err
    assert len(told.strip().splitlines()) == 1 and "add the pretrained DPM's .yml" in told
    assert not out.exists()
