"""Pretrained DPMs' files: what is read from them, and what is refused, by name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rdm_cli.errors import CheckpointError
from rdm_cli.methods.dpm.convert import head_by_head, read_dpm
from rdm_cli.methods.dpm.model import DPM, DPMConfig
from rdm_cli.models.blocks import SelfAttention
from rdm_cli.models.unet import UNetConfig

OWN: dict[str, Any] = {
    "base_channel": 32, "channel_multiplier": [1], "num_residual_blocks_of_a_block": 1,
    "attention_resolutions": [], "num_heads": 1, "head_channel": 16, "use_new_attention_order": False,
}  # fmt: skip
SETTINGS: dict[str, Any] = {"train_dataset_config": {"image_size": 16}, "denoise_fn_config": OWN}
OFFICIAL = {
    "time_embed.linear_1": "time_embed.0", "time_embed.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "down.0.res": "input_blocks.1.0", "middle_1": "middle_block.0",
    "middle_attention": "middle_block.1", "middle_2": "middle_block.2", "up.0.res": "output_blocks.0.0",
    "up.1.res": "output_blocks.1.0", "norm_out": "out.0", "conv_out": "out.2",
    "norm_1": "in_layers.0", "conv_1": "in_layers.2", "time_proj": "emb_layers.1",
    "norm_2": "out_layers.0", "conv_2": "out_layers.3", "skip": "skip_connection",
}  # fmt: skip


@pytest.fixture
def model() -> DPM:
    torch.manual_seed(0)
    unet = UNetConfig(
        image_size=16, model_channels=32, channel_mult=(1,), num_res_blocks=1, attention_resolutions=(),
        head_channels=16, time_width=128, z_width=None, dropout=0.0,
    )  # fmt: skip
    model = DPM(DPMConfig(unet=unet))
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.1)
    return model.eval().requires_grad_(False)


def official(model: DPM) -> dict[str, Tensor]:
    state = {}
    for name, tensor in model.unet.state_dict().items():
        for ours, theirs in OFFICIAL.items():
            name = f".{name}.".replace(f".{ours}.", f".{theirs}.").strip(".")
        state[name] = tensor
    return state


def write(folder: Path, weights: Any, settings: Any = SETTINGS) -> list[Path]:
    torch.save(weights, folder / "weights.pt")
    (folder / "settings.yml").write_text(json.dumps(settings))
    return [folder / "weights.pt", folder / "settings.yml"]


def eps(model: DPM) -> Tensor:
    x_t = torch.linspace(-1, 1, 3 * 256).reshape(1, 3, 16, 16)
    return model.denoiser({"z": torch.zeros(1, 0)})(x_t, torch.tensor([300]))


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("learned_variance", [True, False])
def test_round_trip(model: DPM, tmp_path: Path, bare: bool, learned_variance: bool) -> None:
    """Bare weights or a trainer's, with or without a variance to split off: the same network."""
    weights = official(model)
    if learned_variance:
        for name in ("out.2.weight", "out.2.bias"):
            weights[name] = torch.cat([weights[name], torch.full_like(weights[name], 7.0)])
    files = write(tmp_path, weights if bare else {"step": 3, "ema_denoise_fn": weights, "scaler": None})
    for order in (files, files[::-1]):
        read = read_dpm(order)
        assert read.config.unet == model.config.unet and read.config.sampling.spacing == "linspace"
        again = DPM(read.config)
        again.load_state_dict(read.state)
        torch.testing.assert_close(eps(again.eval()), eps(model), rtol=0, atol=0)


def test_cosine_schedule_is_read(model: DPM, tmp_path: Path) -> None:
    settings = SETTINGS | {"diffusion_config": {"timesteps": 500, "betas_type": "cosine"}}
    schedule = read_dpm(write(tmp_path, official(model), settings)).config.sampling.schedule
    assert (schedule.beta_kind, schedule.num_train_steps) == ("cosine", 500)


def test_newer_attention_is_laid_out_head_by_head() -> None:
    """Attention by its definition, with all q before all k before all v, is ours after reordering."""
    torch.manual_seed(0)
    heads, width = 4, 8
    ours = SelfAttention(heads * width, heads)
    for weight in ours.parameters():
        nn.init.normal_(weight, std=0.3)
    newer = ours.qkv.weight.detach().clone()
    ours.qkv.weight.data = head_by_head(newer, heads)
    bias = ours.qkv.bias.detach().clone()
    ours.qkv.bias.data = head_by_head(bias, heads)
    x = torch.randn(2, heads * width, 3, 3)
    flat = ours.norm(x).flatten(2)
    q, k, v = (torch.einsum("oc,bcn->bon", newer[..., 0], flat) + bias[:, None]).chunk(3, dim=1)
    pieces = []
    for h in range(heads):
        rows = slice(h * width, (h + 1) * width)
        weight = torch.softmax(torch.einsum("bcn,bcm->bnm", q[:, rows], k[:, rows]) / width**0.5, dim=-1)
        pieces.append(torch.einsum("bnm,bcm->bcn", weight, v[:, rows]))
    expected = x + ours.proj_out(torch.cat(pieces, dim=1)).reshape(x.shape)
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-5)


def without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def test_what_is_missing_is_said(model: DPM, tmp_path: Path) -> None:
    weights, settings = write(tmp_path, official(model))
    for files, words in (
        ([weights], "its settings are missing.*add its .yml"),
        ([settings], "the checkpoint is missing"),
        ([weights, weights], "both hold weights"),
        ([settings, settings, weights], "both hold settings"),
        ([tmp_path / "none.pt"], "none.pt: No such file"),
    ):
        with pytest.raises(CheckpointError) as caught:
            read_dpm(files)
        assert re.search(words, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "no denoise_fn_config"),
        ({"denoise_fn_config": OWN}, "image_size"),
        (SETTINGS | {"denoise_fn_config": without(OWN, "num_heads")}, "does not say num_heads"),
        (SETTINGS | {"diffusion_config": {"betas_type": "warp"}}, "betas_type is 'warp'"),
        (SETTINGS | {"denoise_fn_config": OWN | {"channel_multiplier": "wide"}}, "not the settings of"),
        (SETTINGS | {"denoise_fn_config": OWN | {"base_channel": 64}}, "has shape"),
        (
            SETTINGS | {"denoise_fn_config": OWN | {"channel_multiplier": [1, 2]}},
            "belongs to no layer|has shape|nothing for",
        ),
    ],
)
def test_settings_that_do_not_fit(model: DPM, tmp_path: Path, settings: Any, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        read_dpm(write(tmp_path, official(model), settings))
    assert str(tmp_path) in str(caught.value)


def test_files_of_another_kind(model: DPM, tmp_path: Path) -> None:
    files = write(tmp_path, {"encoder": official(model)})
    with pytest.raises(CheckpointError, match="holds neither ema_denoise_fn nor the bare weights"):
        read_dpm(files)
    files = write(tmp_path, official(model) | {"input_blocks.0.0.weight": "text"})
    with pytest.raises(CheckpointError, match="is a str, not a tensor"):
        read_dpm(files)
    files = write(tmp_path, official(model))
    files[1].write_text("a: [1")
    with pytest.raises(CheckpointError, match="nor readable as YAML"):
        read_dpm(files)


def test_one_class_of_a_class_conditional_model(model: DPM, tmp_path: Path) -> None:
    """ADM adds the class's embedding to the time's, before the blocks' SiLU."""
    classes = torch.randn(5, 128, generator=torch.Generator().manual_seed(1))
    files = write(tmp_path, official(model) | {"label_emb.weight": classes})
    read = read_dpm(files, 3)
    again = DPM(read.config)
    again.load_state_dict(read.state)
    t = torch.tensor([300])
    embedded = again.unet.time_embed(t)
    torch.testing.assert_close(embedded, model.unet.time_embed(t) + classes[3])
    for label, told in ((None, "class-conditional; the last of its 5 classes is 4"), (5, "no class 5")):
        with pytest.raises(CheckpointError, match=f"weights.pt: .*{told}"):
            read_dpm(files, label)
    with pytest.raises(CheckpointError, match="the model knows none"):
        read_dpm(write(tmp_path, official(model)), 0)
