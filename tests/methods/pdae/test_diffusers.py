"""PDAE on diffusers' own UNets: the frozen half to the bit, the shift branch in every kind of block."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.writing import save_bundle
from rdm_cli.kernels.parameterization import Prediction, to_eps
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.dpm.model import DPM, DPMConfig
from rdm_cli.methods.pdae.config import pdae_config
from rdm_cli.methods.pdae.method import METHOD
from rdm_cli.methods.pdae.model import PDAE
from rdm_cli.models.unet2d import ShiftedResnet
from rdm_cli.models.unet2d_config import CLASS_LABEL, UNet2DConfig

PLAIN: dict[str, Any] = {
    "sample_size": 32, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8,
    "attention_head_dim": 8, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
OLD_DDPM = PLAIN | {
    # google/ddpm-cifar10-32 and its like
    "flip_sin_to_cos": False, "freq_shift": 1, "downsample_padding": 0, "attention_head_dim": None,
    "norm_eps": 1e-6, "layers_per_block": 2,
}  # fmt: skip
KINDS: dict[str, tuple[dict[str, Any], int | None, Prediction]] = {
    "plain": (PLAIN, None, "eps"),
    "old": (OLD_DDPM, None, "eps"),
    "scale-shift, resnet resampling, classes": (
        PLAIN
        | {
            "resnet_time_scale_shift": "scale_shift", "downsample_type": "resnet", "upsample_type": "resnet",
            "num_class_embeds": 5,
        },
        3,
        "eps",
    ),
    "learned variance, resampling blocks, v": (
        PLAIN
        | {
            "out_channels": 6, "down_block_types": ("ResnetDownsampleBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "ResnetUpsampleBlock2D"), "dropout": 0.3,
        },
        None,
        "v",
    ),
    "timestep classes, learned time, centred, x_0": (
        PLAIN
        | {
            "class_embed_type": "timestep", "center_input_sample": True, "mid_block_scale_factor": 2.0,
            "attn_norm_num_groups": 4, "time_embedding_dim": 48, "act_fn": "gelu",
        },
        7,
        "x_0",
    ),
    "no middle, learned times, no attention": (
        PLAIN
        | {
            "mid_block_type": None, "time_embedding_type": "learned", "num_train_timesteps": 1000,
            "down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
        },
        None,
        "eps",
    ),
}  # fmt: skip


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[UNet2DModel, UNet2DConfig, Prediction]:
    """diffusers' own network, our view of its configuration, and what it predicts."""
    settings, label, prediction = KINDS[request.param]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = UNet2DModel(**settings).eval()
    values = dict(network.config) | ({} if label is None else {CLASS_LABEL: label})
    return network, UNet2DConfig(class_name="UNet2DModel", values=values), prediction


def some_batch(num: int = 2) -> tuple[Tensor, Tensor]:
    noise = torch.randn(num, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return noise, torch.tensor([3, 700])[:num]


def as_diffusers_says(network: UNet2DModel, config: UNet2DConfig, x_t: Tensor, t: Tensor) -> Tensor:
    label = config.class_label
    labels = None if label is None else torch.full((len(x_t),), label)
    with torch.no_grad():
        return network(x_t, t, class_labels=labels).sample[:, :3]


def pdae_on(kind: tuple[UNet2DModel, UNet2DConfig, Prediction], *, sees: bool = True) -> PDAE:
    network, config, prediction = kind
    dpm = DPM(DPMConfig(unet=config, prediction=prediction, sampling=SamplingSpec(spacing="linspace")))
    dpm.unet.load_state_dict(network.state_dict())
    settings = pdae_config(
        config, z_width=8, prediction=prediction, sampling=dpm.sampling, gamma=0.1, sees_prediction=sees
    )
    model = PDAE(settings)
    model.adopt(dpm)
    return model


def test_the_frozen_half_is_diffusers_own(kind: Any) -> None:
    network, config, prediction = kind
    model = pdae_on(kind).train()
    x_t, t = some_batch()
    answer, g = model.predict(x_t, t, model._condition(torch.randn(2, 8)))
    expected = as_diffusers_says(network, config, x_t, t)
    assert torch.equal(answer, expected)
    assert g.shape == x_t.shape and not g.any()
    eps = model.denoiser({"z": torch.randn(2, 8)})(x_t, t)
    assert torch.equal(eps, to_eps(prediction, expected, x_t, model.alpha_bar[t]))


def test_every_trained_parameter_gets_a_gradient_and_no_frozen_one(kind: Any) -> None:
    """At the start only the last convolution does, the others being behind its zeros: so a step later."""
    model = pdae_on(kind).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    frozen = {name: p.clone() for name, p in model.unet.state_dict().items()}
    x_0 = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    eps, t = some_batch()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    optimizer = torch.optim.SGD([p for _, p in trained], lr=1.0)
    for _ in range(4):
        optimizer.zero_grad()
        model.loss(x_0.to(memory_format=torch.channels_last), t, eps).mean().backward()
        optimizer.step()
    silent = [name for name, p in trained if p.grad is None or not p.grad.any()]
    # a bias of the keys shifts every score of a row alike, which softmax does not see
    assert [name for name in silent if not name.endswith("to_k.bias")] == []
    assert all(p.grad is None for p in model.unet.parameters())
    assert all(torch.equal(p, frozen[name]) for name, p in model.unet.state_dict().items())


def test_shifted_blocks_are_diffusers_blocks_where_z_says_nothing() -> None:
    for style in ("default", "scale_shift"):
        for how in ({}, {"up": True}, {"down": True}):
            block = ResnetBlock2D(
                in_channels=16, out_channels=32, temb_channels=24, groups=8, time_embedding_norm=style,
                output_scale_factor=1.5, **how,
            ).eval()  # fmt: skip
            weights = {name: value.clone() for name, value in block.state_dict().items()}
            shifted = ShiftedResnet(block, 24, 0).eval()
            block.load_state_dict(weights)
            x, time = torch.randn(2, 16, 8, 8), torch.randn(2, 24)
            nothing = (torch.zeros(2, 32, 1, 1), torch.zeros(2, 32, 1, 1))
            assert torch.equal(shifted(x, (time, [nothing])), block(x, time))
            # z scales by 1 + scale, then shifts, what the time has scaled: told from a block without either
            something = (torch.full((2, 32, 1, 1), 0.5), torch.full((2, 32, 1, 1), 0.25))
            seen: list[Tensor] = []
            hook = block.conv2.register_forward_pre_hook(lambda _, given: seen.append(given[0]))  # noqa: B023
            block.nonlinearity = torch.nn.Identity()
            shifted(x, (time, [nothing]))
            shifted(x, (time, [something]))
            hook.remove()
            torch.testing.assert_close(seen[1], 1.5 * seen[0] + 0.25)


def test_a_bundle_of_it_opens_again_and_in_diffusers(kind: Any, tmp_path: Path) -> None:
    network, config, _ = kind
    model = pdae_on(kind)
    with torch.no_grad():
        for p in model.shift.parameters():
            p.add_(0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))
    folder = tmp_path / "bundle"
    save_bundle(folder, METHOD, model, card="# test\n")
    opened = open_bundle(str(folder))
    again = cast(PDAE, opened.model)
    assert again.config == model.config
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    in_diffusers = UNet2DModel.from_pretrained(str(folder / "unet")).eval()
    x_t, t = some_batch()
    expected = as_diffusers_says(network, config, x_t, t)
    assert torch.equal(as_diffusers_says(in_diffusers, config, x_t, t), expected)


def test_a_pipeline_folder_is_a_plain_dpm(tmp_path: Path) -> None:
    """DDPMPipeline's layout, and the flat one; one digest, and diffusers' own samples to 1e-4."""
    torch.manual_seed(0)
    network = UNet2DModel(**PLAIN)
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    DDPMPipeline(network, scheduler).save_pretrained(tmp_path / "nested")
    network.save_pretrained(tmp_path / "flat")
    scheduler.save_pretrained(tmp_path / "flat")
    nested, flat = open_bundle(str(tmp_path / "nested")), open_bundle(str(tmp_path / "flat"))
    assert nested.method.name == "dpm" and not nested.has_z
    assert nested.digest == flat.digest
    assert nested.model.prediction == "v"
    x_t, t = some_batch()
    eps = nested.model.denoiser({"z": torch.zeros(2, 0)})(x_t, t)
    assert torch.equal(eps, flat.model.denoiser({"z": torch.zeros(2, 0)})(x_t, t))
    # one DDIM step of diffusers' from the last timestep, by its own classes
    theirs = DDIMPipeline(network.eval(), DDIMScheduler.from_config(scheduler.config))
    theirs.scheduler.set_timesteps(1000)
    t_last = torch.full((2,), 999)
    with torch.no_grad():
        stepped = theirs.scheduler.step(network(x_t, t_last).sample, 999, x_t).prev_sample
    from rdm_cli.kernels.ddim import ddim_step

    (leg,) = [leg for leg in nested.model.sampling.trajectory(999).decoding() if leg.t == 999]
    ours = ddim_step(nested.model.denoiser({"z": torch.zeros(2, 0)}), x_t, *leg, clip=True)
    torch.testing.assert_close(ours, stepped, atol=1e-4, rtol=1e-4)
