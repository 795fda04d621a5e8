"""The plain DPM against the PDAE authors' implementation: schedules, eps, DDIM both ways, conversion."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.cli import main
from rdm_cli.kernels.ddim import ddim_decode, ddim_encode, last
from rdm_cli.kernels.parameterization import add_noise, to_x_0
from rdm_cli.kernels.schedules import LINEAR, ScheduleConfig, linspace_timesteps
from rdm_cli.methods.dpm.convert import read_dpm
from rdm_cli.methods.dpm.model import DPM

pytestmark = pytest.mark.golden
Tensors = dict[str, Tensor]
T_OF_B = (37, 812)


def close(actual: Tensor, expected: Tensor, *, atol: float, rtol: float = 0.0) -> None:
    torch.testing.assert_close(actual.to(expected.dtype), expected, atol=atol, rtol=rtol)


@pytest.fixture(scope="module")
def dpm(folder: Path) -> DPM:
    official = read_dpm([folder / "pretrained_dpm.yml", folder / "pretrained_dpm.pt"])
    model = DPM(official.config)
    model.load_state_dict(official.state)
    return model.eval().requires_grad_(False)


def test_schedules(tensors: Tensors) -> None:
    """Tables of float32 roundings of float64 values: half an ulp."""
    close(LINEAR.betas(), tensors["schedule.betas"], atol=1e-9)
    close(LINEAR.alpha_bar(), tensors["schedule.alphas_cumprod"], atol=6e-8)
    close(ScheduleConfig(beta_kind="cosine").alpha_bar(), tensors["cosine.alphas_cumprod"], atol=6e-8)


def test_timesteps(tensors: Tensors) -> None:
    for num_steps in (20, 100):
        expected = tensors[f"schedule.ddim{num_steps}_timestep_map"].tolist()
        assert linspace_timesteps(num_steps) == expected
    for num_steps in range(1, 1000):
        expected = sorted({int(t) for t in np.linspace(0, 999, num_steps + 1)})
        assert linspace_timesteps(num_steps) == expected


def test_forward_noise_and_eps(dpm: DPM, tensors: Tensors) -> None:
    g = tensors
    for size in (32, 64):
        x_t = add_noise(g[f"x0_{size}"], g[f"noise_{size}"], dpm.alpha_bar[g["t"]])
        close(x_t, g[f"x_t_{size}"], atol=1e-6)
        eps = dpm.denoiser({"z": torch.zeros(2, 0)})(g[f"x_t_{size}"], g["t"])
        close(eps, g[f"eps_{size}"], atol=1e-4)


def test_ddim_both_ways(dpm: DPM, tensors: Tensors) -> None:
    eps_fn = dpm.denoiser({"z": torch.zeros(2, 0)})
    x_T = last(ddim_encode(eps_fn, tensors["x0_32"], dpm.sampling, 20))
    close(x_T, tensors["dpm_encode_32"], atol=1e-4)
    # random weights amplify rounding over a whole decode (golden/README.md)
    x_0 = last(ddim_decode(eps_fn, tensors["xT_random_32"], dpm.sampling, 20))
    close(x_0, tensors["dpm_sample_32"], atol=1e-2)


def test_one_step_denoising(dpm: DPM, tensors: Tensors) -> None:
    t = torch.tensor([400, 800])
    alpha_bar = dpm.alpha_bar[t]
    x_t = add_noise(tensors["x0_32"], tensors["noise_32"], alpha_bar)
    eps = dpm.denoiser({"z": torch.zeros(2, 0)})(x_t, t)
    close(to_x_0(eps, x_t, alpha_bar), tensors["one_step_dpm_32"], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("new_order", "name"), [(True, "B.eps"), (False, "B.eps_legacy_attn")])
def test_heads_and_both_orders_of_attention(
    tensors: Tensors, shift_unet_b: Tensors, tmp_path: Path, new_order: bool, name: str
) -> None:
    """Four heads, three levels, both layouts of q, k and v: a checkpoint made by the file's own rule."""
    settings = {
        "base_channel": 32, "channel_multiplier": [1, 2, 2], "num_residual_blocks_of_a_block": 2,
        "attention_resolutions": [2, 4], "num_heads": 4, "head_channel": -1,
        "use_new_attention_order": new_order,
    }  # fmt: skip
    frozen = {n: w for n, w in shift_unet_b.items() if not n.startswith(("shift_", "label_emb"))}
    torch.save({"step": 1, "ema_denoise_fn": frozen}, tmp_path / "b.pt")
    text = json.dumps({"train_dataset_config": {"image_size": 16}, "denoise_fn_config": settings})
    (tmp_path / "b.yml").write_text(text)
    official = read_dpm([tmp_path / "b.pt", tmp_path / "b.yml"])
    model = DPM(official.config)
    model.load_state_dict(official.state)
    eps = model.eval().denoiser({"z": torch.zeros(2, 0)})(tensors["B.x"], torch.tensor(T_OF_B))
    close(eps, tensors[name], atol=1e-4)


def test_command_line_converts(folder: Path, tensors: Tensors, tmp_path: Path) -> None:
    """``bundles convert dpm``, then the sampler that it stored, on the file's own x_T."""
    out = tmp_path / "dpm"
    files = [str(folder / f"pretrained_dpm.{suffix}") for suffix in ("pt", "yml")]
    assert main(["bundles", "convert", "dpm", *files, "-o", str(out)]) == 0
    assert main(["bundles", "check", str(out)]) == 0
    model = open_bundle(str(out)).model
    assert (model.sampling.spacing, model.sampling.steps, model.z_shape) == ("linspace", 100, (0,))
    x_0 = last(
        ddim_decode(model.denoiser({"z": torch.zeros(2, 0)}), tensors["xT_random_32"], model.sampling, 20)
    )
    close(x_0, tensors["dpm_sample_32"], atol=1e-2)
