"""diffusers pipelines as plain DPMs: noise schedules against diffusers' own, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from rdm_cli.cli import main
from rdm_cli.core.bundles import open_bundle
from rdm_cli.errors import BundleError, CheckpointError
from rdm_cli.methods.dpm.method import convert
from rdm_cli.methods.dpm.pipelines import find_pipeline, read_pipeline, scheduler_spec

SMALL: dict[str, Any] = {
    "sample_size": 16, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
}  # fmt: skip


def saved(folder: Path, *, safe: bool = True, **changes: Any) -> Path:
    UNet2DModel(**(SMALL | changes)).save_pretrained(folder / "unet", safe_serialization=safe)
    DDPMScheduler().save_pretrained(folder / "scheduler")
    return folder


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_noise_schedules_are_diffusers(kind: str) -> None:
    scheduler = DDPMScheduler(beta_schedule=kind, beta_start=0.0008, beta_end=0.015, num_train_timesteps=700)
    spec, prediction = scheduler_spec(dict(scheduler.config))
    assert prediction == "eps" and spec.clip_x_0 and spec.spacing == "linspace"
    torch.testing.assert_close(
        spec.schedule.alpha_bar().float(), scheduler.alphas_cumprod, atol=2e-6, rtol=2e-5
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"beta_schedule": "laplace"}, "beta_schedule 'laplace'"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr True"),
        ({"thresholding": True}, "thresholding True"),
        ({"clip_sample_range": 2.0}, "clip_sample_range 2.0"),
        ({"prediction_type": "flow"}, "prediction_type 'flow'"),
        ({"beta_start": "small"}, "small"),
    ],
)
def test_schedulers_that_rdm_has_no_word_for(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change(folder / "scheduler" / "scheduler_config.json", **changes)
    with pytest.raises(BundleError, match=named) as caught:
        open_bundle(str(folder))
    assert "scheduler_config.json" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"time_embedding_type": "fourier"}, "time_embedding_type 'fourier'"),
        ({"down_block_types": ("DownBlock2D", "SkipDownBlock2D")}, "down_block_types 'SkipDownBlock2D'"),
        ({"up_block_types": ("AttnSkipUpBlock2D", "UpBlock2D")}, "up_block_types 'AttnSkipUpBlock2D'"),
        ({"sample_size": None}, "sample_size None"),
        ({"sample_size": (16, 32)}, r"sample_size \[16, 32\]"),
        ({"out_channels": 4}, "out_channels 4"),
        ({"num_class_embeds": 3}, "class-conditional, and no class is named"),
        ({"class_embed_type": "identity"}, "class_embed_type 'identity'"),
        ({"mid_block_type": "UNetMidBlock2DCrossAttn"}, "mid_block_type"),
    ],
)
def test_networks_that_are_no_plain_unets(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change(folder / "unet" / "config.json", **changes)
    with pytest.raises(BundleError, match=named) as caught:
        open_bundle(str(folder))
    assert "unet/config.json" in str(caught.value)


def test_damaged_folders(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a")
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(BundleError, match="scheduler_config.json: this part of the pipeline is missing"):
        open_bundle(str(folder))
    folder = saved(tmp_path / "b")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(BundleError, match="not a network that diffusers opens"):
        open_bundle(str(folder))
    weights.unlink()
    with pytest.raises(BundleError, match="the weights are missing"):
        open_bundle(str(folder))
    with pytest.raises(CheckpointError, match="no diffusers pipeline"):
        convert([tmp_path])


def test_pickled_weights_are_read_by_convert_alone(tmp_path: Path) -> None:
    folder = saved(tmp_path / "old", safe=False)
    with pytest.raises(BundleError, match="these weights are pickled.*rdm bundles convert dpm"):
        open_bundle(str(folder))
    assert main(["bundles", "convert", "dpm", str(folder), "-o", str(tmp_path / "new")]) == 0
    model = open_bundle(str(tmp_path / "new")).model
    pickled = torch.load(folder / "unet" / "diffusion_pytorch_model.bin", weights_only=True)
    ours = model.unet.state_dict()  # type: ignore[attr-defined]
    assert ours.keys() == pickled.keys() and all(torch.equal(ours[name], pickled[name]) for name in ours)


def test_one_class_of_a_class_conditional_network(tmp_path: Path) -> None:
    folder = saved(tmp_path / "classes", num_class_embeds=3)
    files = find_pipeline(folder)
    assert files is not None
    with pytest.raises(CheckpointError, match="there is no class 3: they go from 0 to 2"):
        read_pipeline(files, class_label=3)
    words = ["bundles", "convert", "dpm", str(folder), "-o", str(tmp_path / "one"), "--class-label", "2"]
    assert main(words) == 0
    model: Any = open_bundle(str(tmp_path / "one")).model
    x_t, t = torch.randn(1, 3, 16, 16), torch.tensor([500])
    network = UNet2DModel.from_pretrained(folder / "unet").eval()
    with torch.no_grad():
        expected = network(x_t, t, class_labels=torch.tensor([2])).sample
    # not to the bit: how MKL sums depends on where in memory the weights lie
    torch.testing.assert_close(model.denoiser(torch.zeros(1, 0))(x_t, t), expected, atol=1e-5, rtol=1e-4)
    assert (
        main(["bundles", "convert", "pdae", str(folder), "-o", str(tmp_path / "x"), "--class-label", "2"])
        == 2
    )


def test_no_class_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a class is named, and the network knows none"):
        convert([saved(tmp_path)], class_label=1)
