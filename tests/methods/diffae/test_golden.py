"""Parity with the authors' implementation: every tensor of golden/diffae, through the converted files.

Tolerances are those at which the authors' code agreed with itself in another process (golden/README.md):
1e-5 for z and eps, 2e-4 for x_T, 5e-5 for images in [0, 1].
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rdm_cli.kernels.ddim import ddim_decode, ddim_encode, last
from rdm_cli.kernels.interpolation import angle, lerp, slerp
from rdm_cli.kernels.parameterization import add_noise, to_x_0
from rdm_cli.kernels.schedules import LATENT_CONSTANT, LINEAR, respace, stride_timesteps
from rdm_cli.kernels.spec import EpsFn, SamplingSpec
from rdm_cli.metrics.reconstruction import mse, psnr, ssim
from rdm_cli.training.ema import WeightAverage
from rdm_cli.training.loop import Settings, make_optimizer

pytestmark = pytest.mark.golden


def close(actual: Tensor, expected: Tensor, atol: float, rtol: float = 0.0) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=rtol)


Z, EPS, X_T, IMAGE = 1e-5, 1e-5, 2e-4, 5e-5


def test_config_is_the_one_the_weights_were_made_with(g: Any) -> None:
    unet, encoder, latent = g.notes["unet"], g.notes["encoder"], g.notes["latent"]
    ours = g.official.config
    assert ours.unet.image_size == unet["image_size"]
    assert ours.unet.model_channels == unet["model_channels"]
    assert list(ours.unet.channel_mult) == unet["channel_mult"]
    assert ours.unet.num_res_blocks == unet["num_res_blocks"]
    assert list(ours.unet.attention_resolutions) == unet["attention_resolutions"]
    assert ours.unet.dropout == unet["dropout"] and ours.unet.num_heads == unet["num_heads"]
    assert list(ours.encoder.channel_mult) == encoder["channel_mult"]
    assert ours.encoder.num_res_blocks == encoder["num_res_blocks"]
    assert list(ours.encoder.attention_resolutions) == encoder["attention_resolutions"]
    assert ours.encoder.z_width == encoder["out_channels"]
    prior = g.official.prior_config
    assert prior is not None
    assert (prior.hidden_width, prior.num_layers) == (latent["num_hid_channels"], latent["num_layers"])
    in_model = sum(p.numel() for p in g.model.parameters())
    in_prior = sum(p.numel() for p in g.prior.network.parameters())
    assert (in_model, in_prior) == (g.notes["params"], g.notes["params_latent"])


@torch.no_grad()
def test_z(g: Any) -> None:
    close(g.model.encode(g["x"])["z"], g["z_sem"], Z)
    close(g.raw_model().encode(g["x"])["z"], g["z_sem_nonema"], Z)


@torch.no_grad()
def test_eps_at_every_t(g: Any) -> None:
    eps_fn = g.model.denoiser({"z": g["z_sem"]})
    for t in g["unet.t"].tolist():
        close(eps_fn(g[f"unet.x_t.{t}"], torch.full((2,), t)), g[f"unet.eps.{t}"], EPS)
        # their x_t is our noising of x: q(x_t | x_0)
        noised = add_noise(g["x"], g["noise"], LINEAR.alpha_bar()[torch.full((2,), t)])
        close(noised, g[f"unet.x_t.{t}"], 1e-6)
    close(eps_fn(g["unet.mixed_x_t"], g["unet.mixed_t"]), g["unet.mixed_eps"], EPS)


@torch.no_grad()
def test_style_space_is_the_z_scales_of_all_blocks(g: Any) -> None:
    """StyleSpace in the reference: the projections of SiLU(z), block after block, side by side."""
    scales = g.model.unet.condition(g["z_sem"])
    close(torch.cat([scale for scale in scales if scale is not None], dim=1), g["stylespace"], EPS)


def test_schedules(g: Any) -> None:
    exact = {"rtol": 1e-12, "atol": 0.0}
    close(LINEAR.alpha_bar(), g["sched.linear.alphas_cumprod"], **exact)
    close(LATENT_CONSTANT.alpha_bar(), g["sched.const0.008.alphas_cumprod"], **exact)
    linear, constant = (respace(s, stride_timesteps(20)) for s in (LINEAR, LATENT_CONSTANT))
    close(linear.alpha_bar, g["sched.linear.T20.alphas_cumprod"], **exact)
    close(linear.alpha_bar_next, g["sched.linear.T20.alphas_cumprod_next"], **exact)
    close(constant.alpha_bar, g["sched.const0.008.T20.alphas_cumprod"], **exact)
    # 1 - ab/ab_prev cancels: the smallest beta is 1e-4, so 1e-16 of the ratio is 1e-12 of it
    close(linear.betas, g["sched.linear.T20.betas"], rtol=1e-11, atol=0.0)


def test_timesteps(g: Any) -> None:
    for num_steps, expected in g.notes["timestep_maps"].items():
        assert stride_timesteps(int(num_steps)) == expected
    for num_steps in range(2, 1001):
        steps = stride_timesteps(num_steps)
        is_a_whole_range = steps == list(range(0, 1000, steps[1]))
        assert is_a_whole_range == (num_steps in g.notes["valid_T"])


@torch.no_grad()
@pytest.mark.parametrize("num_steps", [10, 20, 50])
def test_encoding_then_decoding(g: Any, num_steps: int) -> None:
    x_T = last(ddim_encode(g.model.denoiser({"z": g["z_sem"]}), g["x"], g.spec, num_steps))
    close(x_T, g[f"ddim_encode.x_T.T{num_steps}"], X_T)
    theirs = g[f"ddim_encode.x_T.T{num_steps}"]
    close(g.decode(g["z_sem"], theirs, num_steps), g[f"ddim_decode.img01.T{num_steps}"], IMAGE)


@torch.no_grad()
def test_single_steps(g: Any) -> None:
    eps_fn = g.model.denoiser({"z": g["z_sem"]})
    encoded = list(ddim_encode(eps_fn, g["x"], g.spec, 20))
    close(encoded[0], g["ddim_encode.T20.step1"], X_T)
    close(encoded[9], g["ddim_encode.T20.step10"], X_T)
    decoded = list(ddim_decode(eps_fn, g["ddim_encode.x_T.T20"], g.spec, 20))
    close(decoded[0], g["ddim_decode.T20.step1"], X_T)
    close(decoded[9], g["ddim_decode.T20.step10"], X_T)
    close(decoded[-1], g["ddim_decode.T20.raw"], 2 * IMAGE)  # in [-1, 1], twice the range


@torch.no_grad()
def test_decoding_random_noise_and_across_numbers_of_steps(g: Any) -> None:
    close(g.decode(g["z_sem"], g["x_T_rand"], 20), g["ddim_decode.rand_x_T.img01.T20"], IMAGE)
    close(g.decode(g["z_sem"], g["ddim_encode.x_T.T50"], 20), g["ddim_encode50_decode20.img01"], IMAGE)


def test_reconstruction_figures(g: Any) -> None:
    """Their images are in [0, 1], ours in [-1, 1]; the figures are of the T = 20 reconstruction."""
    x, y = g["x"], 2 * g["ddim_decode.img01.T20"] - 1
    close(mse(x, y), g["metric.mse"], 1e-7, rtol=1e-4)
    close(psnr(x, y), g["metric.psnr"], 1e-3)
    close(ssim(x, y), g["metric.ssim"], 1e-4)


@torch.no_grad()
def test_latent_network(g: Any) -> None:
    for t in (0, 500, 999):
        close(g.prior.network(g["latent_noise"], torch.full((2,), t)), g[f"latent.pred.{t}"], EPS)


@torch.no_grad()
def test_latent_samples_and_their_images(g: Any) -> None:
    spec = SamplingSpec(schedule=LATENT_CONSTANT, clip_x_0=False)
    normed = last(ddim_decode(g.prior.network, g["latent_noise"], spec, 20))
    # unclamped: 1/sqrt(ab) of the first step is 45, which multiplies the noise's last digits
    close(normed, g["latent.sample_normed.T20"], 1e-4, rtol=1e-5)
    z = g.prior.sample(g["latent_noise"], 20)
    close(z, g["latent.sample.T20"], Z)
    close(g.decode(g["latent.sample.T20"], g["x_T_rand"], 20), g["uncond.img01.T20"], IMAGE)


@torch.no_grad()
def test_a_seeded_sample_draws_x_T_before_the_latent_noise(g: Any) -> None:
    generator = torch.Generator().manual_seed(4)
    x_T = torch.randn(2, 3, 32, 32, generator=generator)
    z = g.prior.sample(torch.randn(2, 64, generator=generator), 20)
    close(g.decode(z, x_T, 20), g["uncond.seed4_via_LitModel.sample.img01"], IMAGE)


def test_statistics_and_normalised_z(g: Any) -> None:
    close(g.prior.z_mean, g["conds_mean"][0], 0.0)
    close(g.prior.z_std, g["conds_std"][0], 0.0)
    # an error of z's tolerance, in units of the smallest std
    close(g.prior.normalise(g["z_sem"]), g["z_norm"], 1e-6, rtol=1e-5)


def test_classifier_is_the_raw_one(g: Any) -> None:
    close(g.directions.weight, g["cls.weight"], 0.0)
    close(g.directions.bias, g["cls.bias"], 0.0)
    close(g.directions.logits(g["z_sem"]), g["cls.logits"], 1e-5, rtol=1e-5)


def test_manipulated_z(g: Any) -> None:
    """The reference writes sqrt(512) whatever d is; here d is 64, and rdm's scale is in sqrt(d)."""
    fixed_512 = math.sqrt(512 / g.official.config.encoder.z_width)
    for row, name in ((31, "smiling"), (20, "male")):
        assert g.directions.index(name) == row
        for sign in ("+", "-"):
            moved = g.directions.shift(g["z_sem"], name, float(f"{sign}0.3") * fixed_512)
            close(moved, g[f"manip.z.cls{row}.{sign}0.3"], 1e-6)  # z itself moves by 0.01 to 0.1
    close(g.directions.shift(g["z_sem"], "smiling", 0.3), g["manip.z.cls31.+0.3.sqrt64"], 1e-6)


@torch.no_grad()
def test_manipulated_image(g: Any) -> None:
    image = g.decode(g["manip.z.cls31.+0.3"], g["ddim_encode.x_T.T20"], 20)
    close(image, g["manip.img01.cls31.+0.3.T20"], IMAGE)


@torch.no_grad()
def test_interpolation(g: Any) -> None:
    alpha, z, x_T = g["interp.alpha"], g["z_sem"], g["ddim_encode.x_T.T20"]
    close(angle(x_T[0], x_T[1]).float(), g["interp.theta"][0], 1e-6)
    close(lerp(z[0], z[1], alpha), g["interp.z"], Z)
    close(slerp(x_T[0], x_T[1], alpha), g["interp.x_T"], X_T)
    close(g.decode(g["interp.z"], g["interp.x_T"], 20), g["interp.img01.T20"], IMAGE)


@torch.no_grad()
def test_loss_and_predicted_x_0(g: Any) -> None:
    model = g.raw_model()
    x, noise, t = g["x"], g["noise"], g["train.t"]
    close(model.loss(x, t, noise), g["train.loss_per_sample"], 1e-6)
    alpha_bar = LINEAR.alpha_bar()[t]
    x_t = add_noise(x, noise, alpha_bar)
    eps_fn: EpsFn = model.denoiser(model.encode(x))
    # the reference's training keeps x_0 unclamped; at t = 700 1/sqrt(ab) multiplies eps's error by 10
    close(to_x_0(eps_fn(x_t, t), x_t, alpha_bar), g["train.pred_xstart"], 10 * EPS)


def test_one_training_step(g: Any) -> None:
    model = g.raw_model()
    average = WeightAverage(g.model, 0.9999, warm_up=False)
    settings = Settings(
        batch_size=2,
        lr=1e-4,
        weight_decay=0.0,
        warmup_steps=0,
        decay_fraction=0.0,
        ema_decay=0.9999,
        flip=False,
    )
    optimizer = make_optimizer(model, settings)
    model.loss(g["x"], g["train.t"], g["noise"]).mean().backward()
    grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
    close(grad_norm, g["train.grad_norm"][0], 1e-6, rtol=1e-5)

    first, head = model.unet.conv_in.weight, model.encoder.proj_out
    assert first.grad is not None and head.weight.grad is not None
    close(first.grad, g["train.grad.input_blocks.0.0.weight(clipped)"], 1e-7, rtol=1e-4)
    close(head.weight.grad, g["train.grad.encoder.out.3.weight(clipped)"], 1e-7, rtol=1e-4)

    optimizer.step()
    average.update(model)
    # Adam's first step moves every weight by lr = 1e-4; only the sign of its gradient enters
    close(first, g["train.after1.input_blocks.0.0.weight"], 1e-6)
    close(head.bias, g["train.after1.encoder.out.3.bias"], 1e-6)
    # the average moves by 1e-4 of the distance (up to 0.03), so by 3e-6: compare much finer
    close(average.averages["unet.conv_in.weight"], g["train.after1.ema.input_blocks.0.0.weight"], 5e-8)


@torch.no_grad()
def test_latent_loss(g: Any) -> None:
    loss = g.raw_prior().loss(g["z_norm"], g["train.t"], g["latent_noise"])
    close(loss, g["latent.train.loss_per_sample_l1"], 1e-6)
