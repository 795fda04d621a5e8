"""LRDM against the authors' implementation, tensor by tensor: 1e-4 of the largest value, as argued there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rdm_cli.kernels.ancestral import ancestral_sample
from rdm_cli.kernels.ddim import ddim_decode, ddim_encode, last
from rdm_cli.kernels.interpolation import lerp, slerp
from rdm_cli.kernels.parameterization import add_noise
from rdm_cli.kernels.schedules import LINEAR, ScheduleConfig
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.kernels.warp import moved, tps_warp
from rdm_cli.methods.lrdm.losses import loss_weights
from rdm_cli.methods.lrdm.model import LRDM
from rdm_cli.models.latent_blocks import sinusoid
from rdm_cli.models.representation import draw, kl_to_normal
from rdm_cli.training.ema import WeightAverage

pytestmark = pytest.mark.golden
Tensors = dict[str, Tensor]
Raw = Callable[..., LRDM]
NUM_STEPS = 50
FIFTY = SamplingSpec(
    schedule=ScheduleConfig(beta_start=0.1 / NUM_STEPS, beta_end=20 / NUM_STEPS, num_train_steps=NUM_STEPS),
    spacing="ahead",
    clip_x_0=False,
    steps=NUM_STEPS,
    variance="beta",
)
"""The reference, told to use 50 steps, builds its betas anew and shows the network 0 to 49."""
SEEN = (1, 10, 25, 50)  # the steps of a sampler whose states are kept


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Within ``tolerance`` of the largest value."""
    bound = tolerance * float(expected.abs().max())
    torch.testing.assert_close(actual.to(expected.dtype), expected, atol=bound, rtol=0.0)


def pyramid(g: Tensors, name: str = "lrdm", num: int = 3) -> list[Tensor]:
    return [g[f"{name}.repr.decoded.{i}"] for i in range(num)]


def at(t: int, num: int = 2) -> Tensor:
    return torch.full((num,), t, dtype=torch.int64)


def test_schedule(tensors: Tensors) -> None:
    """beta_i = linspace(.1 / N, 20 / N, N): at N = 1000 the usual linear betas."""
    close(LINEAR.betas(), tensors["sde.VP1000.discrete_betas"], 1e-6)
    close(LINEAR.alpha_bar(), tensors["sde.VP1000.alphas_cumprod"], 1e-6)
    close((1 - LINEAR.alpha_bar()).sqrt(), tensors["sde.VP1000.sqrt_1m_alphas_cumprod"], 2e-6)
    path = [leg.t for leg in FIFTY.trajectory(NUM_STEPS).decoding()]
    assert path == tensors["lrdm.N50.timestep_index"].tolist()


def test_first_stage(raw: Raw, tensors: Tensors) -> None:
    model, g = raw("lrdm_tiny"), tensors
    close(model.unet.scale_factor, g["lrdm.scale_factor"], 1e-7)
    network: Any = model.first_stage
    latents = network.encode(g["lrdm.image"]).latents
    close(latents, g["lrdm.ae.pre_quant"])
    quantised, _, (_, _, indices) = network.quantize(g["lrdm.ae.pre_quant"])
    close(quantised, g["lrdm.ae.quantised"])
    assert torch.equal(indices.reshape(2, 16, 16), g["lrdm.ae.indices"])
    close(network.decode(g["lrdm.ae.pre_quant"]).sample, g["lrdm.ae.decode"])
    free = network.decode(g["lrdm.ae.pre_quant"], force_not_quantize=True).sample
    close(free, g["lrdm.ae.decode_noquant"])
    close(model.enter(g["lrdm.image"]), g["lrdm.z0"])
    close(model.leave(g["lrdm.z0"]), g["lrdm.decode_z0"])


def test_representation(raw: Raw, tensors: Tensors) -> None:
    model, g = raw("lrdm_tiny"), tensors
    mean, logvar = model.posterior(g["lrdm.z0"])
    close(mean, g["lrdm.repr.mean"])
    close(logvar, g["lrdm.repr.logvar"])
    close(model.representation.to_z(model.representation.encoder(g["lrdm.z0"])), g["lrdm.repr.moments"])
    close(kl_to_normal(mean, logvar), g["lrdm.repr.kl"])
    close(draw(mean, logvar, g["lrdm.repr.noise"]), g["lrdm.repr.sample"])
    for ours, theirs in zip(model.pyramid(g["lrdm.repr.sample"]), pyramid(g), strict=True):
        close(ours, theirs)


def test_unet(raw: Raw, tensors: Tensors) -> None:
    model, g = raw("lrdm_tiny"), tensors
    embedding = model.unet.embedding
    assert embedding.linear_1 is not None and embedding.linear_2 is not None
    known = embedding.linear_1(sinusoid(torch.tensor([0, 1, 250, 999]), 8))
    close(embedding.linear_2(torch.nn.functional.silu(known)), g["lrdm.unet.time_emb"])
    for t in (0, 1, 250, 500, 999):
        close(model.predict(g["lrdm.unet.x"], at(t), pyramid(g)), g[f"lrdm.unet.out_t{t}"])
    mixed = model.predict(g["lrdm.unet.x"], torch.tensor([3, 998]), pyramid(g))
    close(mixed, g["lrdm.unet.out_mixed"])
    averaged = raw("lrdm_tiny", averaged=True)
    close(averaged.predict(g["lrdm.unet.x"], at(500), pyramid(g)), g["lrdm.unet_ema.out_t500"])


@pytest.mark.parametrize(
    ("theirs", "prediction", "weighting"),
    [
        ("DDPMImageLoss.plain", "x_0", "none"),
        ("DDPMImageLoss.likelihood_weighting", "x_0", "likelihood"),
        ("DDPMImageLoss.eps_weighting", "x_0", "other"),
        ("DDPMNoiseLoss.plain", "eps", "none"),
        ("DDPMNoiseLoss.likelihood_weighting", "eps", "likelihood"),
        ("DDPMNoiseLoss.x0_weighting", "eps", "other"),
    ],
)
def test_losses_and_their_weights(
    raw: Raw, tensors: Tensors, theirs: str, prediction: Any, weighting: Any
) -> None:
    """The same network, taken to predict either; the reference also sums where ours takes means."""
    model, g = raw("lrdm_tiny"), tensors
    t = g["lrdm.loss.t"]
    close(add_noise(g["lrdm.z0"], g["lrdm.loss.noise"], model.alpha_bar[t]), g["lrdm.loss.zt"])
    answer = model.predict(g["lrdm.loss.zt"], t, pyramid(g))
    target = g["lrdm.z0"] if prediction == "x_0" else g["lrdm.loss.noise"]
    error = (answer - target).square().flatten(1)
    weight = loss_weights(LINEAR, prediction, weighting)[t].float()
    close((weight * error.mean(dim=1)).mean(), g[f"lrdm.loss.{theirs}.mean"])
    total = (weight * error.sum(dim=1)).mean()
    ratio = float(g[f"lrdm.loss.{theirs}.sum"] / total)
    assert ratio == pytest.approx(1.0, rel=1e-4) or ratio == pytest.approx(0.5, rel=1e-4)


def test_a_training_step(raw: Raw, tensors: Tensors) -> None:
    """The joint loss, gradients of both halves, one Adam step, and the average of the UNet alone."""
    model, g = raw("lrdm_tiny").requires_grad_(True), tensors
    model.first_stage.requires_grad_(False)
    averaged = raw("lrdm_tiny", averaged=True)
    loss = model.loss(g["lrdm.z0"], g["lrdm.loss.t"], g["lrdm.loss.noise"], noise=g["lrdm.repr.noise"]).mean()
    close(loss.detach(), g["lrdm.loss.total"])
    loss.backward()
    for part, name in ((model.unet, "diff_model"), (model.representation, "repr_ae")):
        grads = [p.grad for p in part.parameters()]
        assert all(grad is not None for grad in grads)
        norm = torch.stack([grad.norm() for grad in grads if grad is not None]).norm()
        close(norm, g[f"lrdm.grad.{name}_norm"])
    to_z, head = model.representation.to_z, model.unet.head[2]
    assert to_z.weight.grad is not None and head.weight.grad is not None
    close(to_z.weight.grad, g["lrdm.grad.repr_ae.quant_conv.weight"])
    close(head.weight.grad, g["lrdm.grad.diff_model.conv_out.2.weight"])
    first = model.unet.middle.block_1.conv_1.bias.grad
    assert first is not None
    close(first, g["lrdm.grad.diff_model.mid.0.in_layers.2.bias"])
    average = WeightAverage(model.unet, 0.9999)
    average.load(dict(averaged.unet.named_parameters()).items(), 4)  # three were; the reference counts from 1
    torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3).step()
    average.update(model.unet)
    close(to_z.weight.detach(), g["lrdm.step.repr_ae.quant_conv.weight"])
    close(head.weight.detach(), g["lrdm.step.diff_model.conv_out.2.weight"])
    close(average.averages["head.2.weight"], g["lrdm.step.ema.conv_out2weight"])


def states(g: Tensors, name: str, path: list[Tensor]) -> None:
    for k, step in enumerate(SEEN):
        close(path[step - 1], g[f"{name}.states"][k])


def test_ddim_and_its_inverse(raw: Raw, tensors: Tensors) -> None:
    model, g = raw("lrdm_tiny", FIFTY), tensors
    eps_fn = model.denoiser(model.encode(g["lrdm.z0"]))
    path = list(ddim_decode(eps_fn, g["lrdm.zT"], FIFTY))
    states(g, "lrdm.N50.ddim_x0_sampling", path)
    close(path[-1], g["lrdm.N50.ddim_x0_sampling.final"])
    encoded = list(ddim_encode(eps_fn, g["lrdm.z0"], FIFTY))
    assert len(encoded) == NUM_STEPS - 1
    close(encoded[-1], g["lrdm.N50.ddim_encode.xT"])
    close(last(ddim_decode(eps_fn, encoded[-1], FIFTY)), g["lrdm.N50.ddim_encode_decode.z0"])


def test_ancestral(raw: Raw, tensors: Tensors) -> None:
    """Its kept states are the steps' means: the noise of a step enters the next."""
    model, g = raw("lrdm_tiny", FIFTY), tensors
    eps_fn = model.denoiser(model.encode(g["lrdm.z0"]))
    noise = g["lrdm.N50.ddpm_x0_sampling.step_noise"]
    path = list(ancestral_sample(eps_fn, g["lrdm.zT"], FIFTY, noise_fn=lambda step: noise[step]))
    close(path[-1], g["lrdm.N50.ddpm_x0_sampling.final"])
    betas = FIFTY.schedule.betas()
    for k, step in enumerate(SEEN[:-1]):
        mean = path[step - 1] - betas[NUM_STEPS - step].sqrt().float() * noise[step - 1]
        close(mean, g["lrdm.N50.ddpm_x0_sampling.states"][k])


@pytest.mark.slow
def test_reconstruction_in_a_thousand_steps(raw: Raw, tensors: Tensors) -> None:
    g = tensors
    for averaged, name in ((False, "final"), (True, "final_ema")):
        model = raw("lrdm_tiny", averaged=averaged)
        eps_fn = model.denoiser(model.encode(g["lrdm.z0"]))
        z_0 = last(ddim_decode(eps_fn, g["lrdm.zT"], model.sampling, 1000))
        close(z_0, g[f"lrdm.N1000.ddim_x0_sampling.{name}"])
        if not averaged:
            close(model.leave(z_0), g["lrdm.N1000.reconstruct_image"])


def test_interpolation(raw: Raw, tensors: Tensors) -> None:
    g = tensors
    first, second = g["lrdm.repr.mean"]
    weights = torch.tensor([0.25, 0.5, 0.75])
    close(lerp(first, second, weights), g["lrdm.interp.lerp"][:, 0])
    close(slerp(first, second, weights), g["lrdm.interp.slerp"][:, 0])


def test_t_lrdm(raw: Raw, tensors: Tensors) -> None:
    """Encoder and pyramid are functions of t: a reconstruction encodes at every step."""
    model, g = raw("tlrdm_tiny"), tensors
    close(model.enter(g["tlrdm.image"]), g["tlrdm.z0"])
    for t in (0, 1, 250, 500, 999):
        mean, logvar = model.posterior(g["tlrdm.z0"], at(t))
        close(torch.cat([mean, logvar], dim=1), g[f"tlrdm.repr.moments_t{t}"])
        maps = model.pyramid(g["tlrdm.r"], at(t))
        for i in range(3) if t in (0, 999) else ():
            close(maps[i], g[f"tlrdm.repr.decoded_t{t}.{i}"])
        close(model.predict(g["tlrdm.unet.x"], at(t), maps), g[f"tlrdm.unet.out_t{t}"])
    loss = model.loss(
        g["tlrdm.z0"], g["tlrdm.loss.t"], g["tlrdm.loss.noise"], noise=g["tlrdm.loss.repr_noise"]
    )
    close(loss.mean(), g["tlrdm.loss.total"])
    fifty = raw("tlrdm_tiny", FIFTY)
    eps_fn = fifty.denoiser_of_time(lambda t: fifty.posterior(g["tlrdm.z0"], t)[0])
    close(last(ddim_decode(eps_fn, g["tlrdm.zT"], FIFTY)), g["tlrdm.N50.reconstruct"])
    drawn = iter(g["tlrdm.N50.rnoise"])

    def mixed(t: Tensor) -> Tensor:
        """The image's z in the noisier half, then draws from N(0, I), one a step."""
        return fifty.posterior(g["tlrdm.z0"], t)[0] if int(t[0]) >= NUM_STEPS // 2 else next(drawn)

    z_0 = last(ddim_decode(fifty.denoiser_of_time(mixed), g["tlrdm.zT"], FIFTY))
    close(z_0, g["tlrdm.N50.reconstruct_use_r_above_0.5"])


def test_class_conditional(raw: Raw, tensors: Tensors) -> None:
    model, g = raw("lrdm_class_tiny"), tensors
    y = g["lrdm_class.y"]
    close(model.enter(g["lrdm_class.image"]), g["lrdm_class.z0"])
    mean, logvar = model.posterior(g["lrdm_class.z0"], y=y)
    close(torch.cat([mean, logvar], dim=1), g["lrdm_class.repr.moments"])
    maps = model.pyramid(mean)
    for ours, theirs in zip(maps, pyramid(g, "lrdm_class"), strict=True):
        close(ours, theirs)
    x = g["lrdm_class.unet.x"]
    for t in (0, 500, 999):
        close(model.predict(x, at(t), maps, y), g[f"lrdm_class.unet.out_t{t}"])
    close(model.predict(x, at(500), maps, torch.ones_like(y)), g["lrdm_class.unet.out_t500_y1"])
    noise = g["lrdm_class.loss.repr_noise"]
    loss = model.loss(
        g["lrdm_class.z0"], g["lrdm_class.loss.t"], g["lrdm_class.loss.noise"], {"class": y}, noise=noise
    )
    close(loss.mean(), g["lrdm_class.loss.total"])
    fifty = raw("lrdm_class_tiny", FIFTY)
    eps_fn = fifty.denoiser(fifty.encode(g["lrdm_class.z0"], {"class": y}))
    path = list(ddim_decode(eps_fn, g["lrdm_class.zT"], FIFTY))
    states(g, "lrdm_class.N50.ddim_x0_sampling", path)
    x_T = last(ddim_encode(eps_fn, g["lrdm_class.z0"], FIFTY))
    close(x_T, g["lrdm_class.N50.ddim_encode.xT"])
    close(last(ddim_decode(eps_fn, x_T, FIFTY)), g["lrdm_class.N50.ddim_encode_decode.z0"])


def test_style_and_shape(raw: Raw, tensors: Tensors) -> None:
    """The spline is solved in float64 here and in float32 there: twice the tolerance for what is warped."""
    model, g = raw("lrdm_warp_tiny"), tensors
    uniform = 2 * g["lrdm_warp.tps.rand"].reshape(2, 2, 64).transpose(1, 2) - 1
    warped = tps_warp(g["lrdm_warp.image"], moved(uniform, 8, 4.0))
    close(warped, g["lrdm_warp.tps.warped"], 2e-4)
    close(model.enter(warped), g["lrdm_warp.zw"], 2e-4)
    style = g["lrdm_warp.zw"]
    mean, logvar = model.posterior(g["lrdm_warp.z0"])
    close(torch.cat([mean, logvar], dim=1), g["lrdm_warp.repr.moments"])
    maps = model.pyramid(mean, style=style)
    for ours, theirs in zip(maps, pyramid(g, "lrdm_warp", 2), strict=True):
        close(ours, theirs)
    for t in (0, 500, 999):
        close(model.predict(g["lrdm_warp.unet.x"], at(t), maps), g[f"lrdm_warp.unet.out_t{t}"])
    loss = model.loss(
        g["lrdm_warp.z0"],
        g["lrdm_warp.loss.t"],
        g["lrdm_warp.loss.noise"],
        {"style": style},
        noise=g["lrdm_warp.loss.repr_noise"],
    )
    close(loss.mean(), g["lrdm_warp.loss.total"])


def test_an_unconditional_model_of_eps(raw: Raw, tensors: Tensors) -> None:
    model, g = raw("ldm_noise_tiny"), tensors
    assert model.prediction == "eps" and model.z_shape == (0,)
    close(model.enter(g["ldm_noise.image"]), g["ldm_noise.z0"])
    for t in (0, 500, 999):
        close(model.predict(g["ldm_noise.unet.x"], at(t), []), g[f"ldm_noise.unet.out_t{t}"])
    noise = g["ldm_noise.N50.step_noise"]
    fifty = raw("ldm_noise_tiny", FIFTY)
    eps_fn = fifty.denoiser(fifty.encode(g["ldm_noise.z0"]))
    path = ancestral_sample(eps_fn, g["ldm_noise.zT"], FIFTY, noise_fn=lambda step: noise[step])
    close(last(path), g["ldm_noise.N50.ddpm_eps_sampling.final"])
