"""PDAE against the authors' implementation, tensor by tensor; tolerances as golden/README.md argues."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.cli import main
from rdm_cli.codes.code import Codes
from rdm_cli.kernels.ancestral import ancestral_step
from rdm_cli.kernels.ddim import ddim_decode, ddim_encode, ddim_step, last
from rdm_cli.kernels.interpolation import slerp
from rdm_cli.kernels.parameterization import add_noise, to_x_0
from rdm_cli.kernels.schedules import LATENT_CONSTANT, LINEAR, ScheduleConfig
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.dpm.convert import dpm_state
from rdm_cli.methods.dpm.model import DPMConfig
from rdm_cli.methods.official.names import latent_name, shift_name, strided_encoder_names
from rdm_cli.methods.official.reading import load_official
from rdm_cli.methods.pdae.coefficients import loss_weight, mean_shift, score_shift
from rdm_cli.methods.pdae.config import PDAEConfig
from rdm_cli.methods.pdae.convert import OfficialPDAE, shift_state
from rdm_cli.methods.pdae.model import PDAE
from rdm_cli.models.latent_mlp import LatentMLP, LatentMLPConfig
from rdm_cli.models.shift_branch import ShiftConfig
from rdm_cli.models.strided_encoder import StridedEncoder, StridedEncoderConfig, published_channels
from rdm_cli.models.unet import UNetConfig
from rdm_cli.priors.latent_ddim import LatentDDIM, LatentDDIMConfig
from rdm_cli.training.ema import WeightAverage

pytestmark = pytest.mark.golden
Tensors = dict[str, Tensor]
STEP = {"atol": 1e-4}  # single forwards and steps
DECODE = {"atol": 1e-2}  # a whole decode: random weights amplify


def close(actual: Tensor, expected: Tensor, *, atol: float, rtol: float = 0.0) -> None:
    torch.testing.assert_close(actual.to(expected.dtype), expected, atol=atol, rtol=rtol)


def test_coefficients_and_weights(tensors: Tensors) -> None:
    """Float32 roundings of float64 tables."""
    close(mean_shift(LINEAR), tensors["schedule.shift_coef"], atol=6e-8)
    close(-score_shift(LINEAR), tensors["schedule.sqrt_one_minus_alphas_cumprod"], atol=6e-8)
    close(loss_weight(LINEAR, 0.1), tensors["schedule.loss_weight"], atol=1e-6)
    cosine = ScheduleConfig(beta_kind="cosine")
    close(mean_shift(cosine), tensors["cosine.shift_coef"], atol=1e-6)
    # where alpha_bar is 2e-9, its float32 rounding moves SNR^0.1 by a millionth of itself
    close(loss_weight(cosine, 0.1), tensors["cosine.loss_weight"], atol=1e-5, rtol=1e-5)
    assert torch.equal(loss_weight(LINEAR, None), torch.ones(1000, dtype=torch.float64))


def test_z(pdae: PDAE, tensors: Tensors) -> None:
    close(pdae.encode(tensors["x0_64"])["z"], tensors["z"], **STEP)


@pytest.mark.parametrize("size", [32, 64])
def test_frozen_eps_and_shift(pdae: PDAE, tensors: Tensors, size: int) -> None:
    x_t = add_noise(tensors[f"x0_{size}"], tensors[f"noise_{size}"], pdae.alpha_bar[tensors["t"]])
    close(x_t, tensors[f"x_t_{size}"], atol=1e-6)
    eps, g = pdae.predict(tensors[f"x_t_{size}"], tensors["t"], pdae._condition(tensors["z"]))
    close(eps, tensors[f"eps_{size}"], **STEP)
    close(g, tensors[f"grad_{size}"], **STEP)


def test_losses(pdae: PDAE, tensors: Tensors) -> None:
    g = tensors
    close(pdae.loss(g["x0_64"], g["t"], g["noise_64"]).mean(), g["loss_ema"], atol=1e-5, rtol=1e-5)
    given = pdae.loss(g["x0_32"], g["t"], g["noise_32"], {"z": g["z"]}).mean()
    close(given, g["loss_ema_32"], atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def raw(folder: Path, official: OfficialPDAE) -> PDAE:
    """The weights in training, where the others are their average."""
    content = load_official(folder / "representation.pt")
    model = PDAE(official.config)
    model.load_state_dict(official.state)
    names = strided_encoder_names(content["encoder"])
    model.encoder.load_state_dict({names[name]: t for name, t in content["encoder"].items()})
    trained = {shift_name(name): t for name, t in content["decoder"].items()}
    model.shift.load_state_dict({name: t for name, t in trained.items() if name is not None})
    return model.train()


def test_a_training_step(raw: PDAE, pdae: PDAE, tensors: Tensors) -> None:
    """Loss, gradients, one Adam step and the average after it; nothing reaches the frozen half."""
    g = tensors
    close(raw.encode(g["x0_64"])["z"].detach(), g["z_raw"], **STEP)
    loss = raw.loss(g["x0_64"], g["t"], g["noise_64"]).mean()
    close(loss.detach(), g["loss_raw"], atol=1e-5, rtol=1e-5)
    loss.backward()
    trained = [p for p in raw.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)
    assert all(p.grad is None for p in raw.unet.parameters())
    grads = [p.grad for p in trained if p.grad is not None]
    close(cast(Tensor, raw.shift.label_embed.weight.grad), g["grad.label_emb.weight"], atol=1e-5, rtol=1e-3)
    norm = cast(Tensor, raw.encoder.proj_out.weight.grad).norm()
    close(norm, g["grad.encoder.14.weight_norm"], atol=1e-6, rtol=1e-4)
    total = torch.stack([grad.norm() for grad in grads]).norm()
    close(total, g["grad.total_norm"], atol=1e-6, rtol=1e-4)
    average = WeightAverage(raw, 0.9999)
    average.load(
        [(n, p.detach().clone()) for n, p in pdae.named_parameters() if n in average.averages], 10**9
    )
    torch.optim.Adam(trained, lr=1e-4).step()
    average.update(raw)
    close(raw.shift.conv_out.bias.detach(), g["after_step.decoder.shift_out.2.bias"], atol=1e-6)
    close(average.averages["shift.conv_out.bias"], g["after_step.ema_decoder.shift_out.2.bias"], atol=1e-7)


def test_single_steps(pdae: PDAE, tensors: Tensors) -> None:
    """One step of DDIM each way, from t = 499."""
    eps_fn = pdae.denoiser({"z": tensors["z"]})
    path = pdae.sampling.trajectory(20)
    down, up = path.decoding()[10], path.encoding()[10]
    assert down.t == up.t == 499
    close(ddim_step(eps_fn, tensors["x_t_32"], *down, clip=True), tensors["ddim_step_i10_32"], **STEP)
    close(ddim_step(eps_fn, tensors["x_t_32"], *up, clip=True), tensors["ddim_encode_step_i10_32"], **STEP)


def test_encode_and_decode(pdae: PDAE, tensors: Tensors) -> None:
    eps_fn = pdae.denoiser({"z": tensors["z"]})
    x_T = last(ddim_encode(eps_fn, tensors["x0_32"], pdae.sampling, 20))
    close(x_T, tensors["xT_encoded_32"], **STEP)
    close(
        last(ddim_decode(eps_fn, tensors["xT_encoded_32"], pdae.sampling, 20)), tensors["recon_32"], **DECODE
    )
    random = tensors["xT_random_32"]
    close(last(ddim_decode(eps_fn, random, pdae.sampling, 20)), tensors["decode_random_32"], **DECODE)
    stopping = pdae.denoiser({"z": tensors["z"]}, stop_below=pdae.sampling.stop_below(0.3, 20))
    close(
        last(ddim_decode(stopping, random, pdae.sampling, 20)), tensors["decode_random_stop0.3_32"], **DECODE
    )


def test_interpolation(pdae: PDAE, tensors: Tensors) -> None:
    ends = tensors["xT_encoded_32"]
    close(slerp(ends[0], ends[1], torch.tensor([0.3])), tensors["slerp_0.3"], atol=1e-5)
    z_first, z_second = tensors["z"].split(1)
    eps_fn = pdae.path_denoiser({"z": z_first}, {"z": z_second}, torch.tensor([0.3]))
    walked = last(ddim_decode(eps_fn, tensors["xT_random_32"][:1], pdae.sampling, 20))
    close(walked, tensors["traj_interp_0.3_32"], **DECODE)


def test_one_step_denoising_takes_the_other_coefficient(pdae: PDAE, tensors: Tensors) -> None:
    t = torch.tensor([400, 800])
    alpha_bar = pdae.alpha_bar[t]
    x_t = add_noise(tensors["x0_32"], tensors["noise_32"], alpha_bar)
    eps, g = pdae.predict(x_t, t, pdae._condition(tensors["z"]))
    close(to_x_0(eps, x_t, alpha_bar), tensors["one_step_dpm_32"], atol=1e-3, rtol=1e-4)
    shifted = pdae.shifted(eps, g, t, pdae.mean_shift)
    close(to_x_0(shifted, x_t, alpha_bar), tensors["one_step_pdae_32"], atol=1e-3, rtol=1e-4)


def test_an_ancestral_step_with_the_shift(pdae: PDAE, tensors: Tensors) -> None:
    """With training's coefficient, unclamped, and the posterior's own variance; each image at its own t."""
    g = tensors
    alpha_bar = pdae.sampling.schedule.alpha_bar()
    for i, t in enumerate(g["t"].tolist()):
        condition = pdae._condition(g["z"][i : i + 1])

        def eps_fn(x_t: Tensor, t_batch: Tensor, condition: Any = condition) -> Tensor:
            eps, shift = pdae.predict(x_t, t_batch, condition)
            return pdae.shifted(eps, shift, t_batch, pdae.mean_shift)

        x_t, noise = g["x_t_32"][i : i + 1], g["noise_32"][i : i + 1]
        stepped = ancestral_step(eps_fn, x_t, t, alpha_bar[t], alpha_bar[t - 1], noise, clip=False)
        close(stepped, g["ddpm_step_32"][i : i + 1], atol=1e-5)


@pytest.fixture(scope="module")
def prior(official: OfficialPDAE) -> LatentDDIM:
    assert official.prior_config is not None and official.prior_state is not None
    assert official.z_mean is not None and official.z_std is not None
    model = LatentDDIM(LatentDDIMConfig(network=official.prior_config, spacing="linspace"))
    cast(LatentMLP, model.network).load_state_dict(official.prior_state)
    model.z_mean.copy_(official.z_mean)
    model.z_std.copy_(official.z_std)
    return model.eval().requires_grad_(False)


def test_latent_prior(prior: LatentDDIM, pdae: PDAE, tensors: Tensors) -> None:
    """The authors clamp z_T and every predicted z_0 to [-1, 1], by mistake; rdm does so for parity alone."""
    g = tensors
    close(LATENT_CONSTANT.alpha_bar(), g["latent.alphas_cumprod"], atol=6e-8)
    close(prior.network(g["latent.z_t"], g["t"]), g["latent.eps"], **STEP)
    loss = prior.loss(prior.normalise(g["z"]), g["t"], g["latent.noise"]).mean()
    close(loss, g["latent.loss"], atol=1e-5)
    clamped = SamplingSpec(schedule=LATENT_CONSTANT, spacing="linspace", clip_x_0=True)
    z = last(ddim_decode(prior.network, g["latent.z_T"].clamp(-1, 1), clamped, 20))
    close(z, g["latent.sample_clamped"], **STEP)
    drawn = prior.sample(g["latent.z_T"].clamp(-1, 1), 20)
    free = prior.normalise(drawn)
    close(free, g["latent.sample_unclamped"], atol=1e-3, rtol=1e-3)
    stopping = pdae.denoiser({"z": prior.denormalise(z)}, stop_below=pdae.sampling.stop_below(0.3, 20))
    decoded = last(ddim_decode(stopping, g["xT_random_32"], pdae.sampling, 20))
    close(decoded, g["latent.decoded_32"], **DECODE)


def directions(official: OfficialPDAE) -> Directions:
    assert official.classifier is not None and official.z_mean is not None and official.z_std is not None
    names = tuple(f"attribute_{i}" for i in range(40))
    weight, bias = official.classifier
    return Directions(
        names=names, weight=weight, bias=bias, z_mean=official.z_mean, z_std=official.z_std, scores={}
    )


def test_classifier_and_manipulation(official: OfficialPDAE, pdae: PDAE, tensors: Tensors) -> None:
    found = directions(official)
    logits = found.logits(tensors["z"])
    target = (tensors["manip.label"] > 0).float()
    close(F.binary_cross_entropy_with_logits(logits, target), tensors["manip.bce"], atol=1e-5)
    # the reference writes sqrt(512) whatever the width of z; here z has 8 values, and the scale says so
    scale = 0.3 * (512 / 8) ** 0.5
    z = found.shift(tensors["z"], "attribute_31", scale)
    close(z, tensors["manip.z"], **STEP)
    edited = last(ddim_decode(pdae.denoiser({"z": z}), tensors["xT_encoded_32"], pdae.sampling, 20))
    close(edited, tensors["manip.image_32"], **DECODE)


def test_the_command_line_converts_and_encodes(files: list[Path], tensors: Tensors, tmp_path: Path) -> None:
    """``bundles convert pdae`` and ``encode``: z of the golden images, from PNGs of them."""
    import numpy as np
    from PIL import Image

    out = tmp_path / "converted"
    assert main(["bundles", "convert", "pdae", *map(str, files), "-o", str(out)]) == 0
    assert main(["bundles", "check", str(out)]) == 0
    bundle = open_bundle(str(out))
    assert bundle.model.sampling == SamplingSpec(spacing="linspace")
    assert bundle.directions.names[31] == "smiling" and bundle.prior.config.spacing == "linspace"
    for i, x_0 in enumerate(tensors["x0_64"]):
        pixels = ((x_0 + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{i}.png")
        command = ["encode", str(tmp_path / f"{i}.png"), "--steps", "2", "-b", str(out), "-q"]
        assert main(command) == 0
        code = Codes.load(tmp_path / f"{i}.safetensors")
        rounded = torch.from_numpy(np.array(Image.open(tmp_path / f"{i}.png"))).permute(2, 0, 1) / 127.5 - 1
        expected = cast(Any, bundle.model).encode(rounded[None].float())["z"]
        close(code.z, expected, atol=1e-5)
        # 8 bits move an image by half a level, and z by little
        assert float((code.z - tensors["z"][i : i + 1]).norm() / tensors["z"][i].norm()) < 0.02


@pytest.mark.parametrize(("new_order", "kind"), [(True, ""), (False, "_legacy_attn")])
def test_shift_branch_with_heads(
    tensors: Tensors, shift_unet_b: Tensors, unet_b: UNetConfig, new_order: bool, kind: str
) -> None:
    """Three levels, four heads, both layouts of q, k and v, in both halves."""
    unet = replace(unet_b, image_size=32, attention_resolutions=(16, 8))  # encoders take no 16 pixels
    encoder = StridedEncoderConfig(image_size=32, channels=published_channels(32), z_width=16)
    config = PDAEConfig(unet=unet, encoder=encoder, shift=ShiftConfig(unet=unet, z_width=16))
    frozen = {n: w for n, w in shift_unet_b.items() if not n.startswith(("shift_", "label_emb"))}
    trained = {n: w for n, w in shift_unet_b.items() if n not in frozen}
    settings = {"denoise_fn_config": {"use_new_attention_order": new_order}}
    model = PDAE(config)
    state = dpm_state(frozen, settings, DPMConfig(unet=unet))
    state |= {f"shift.{n}": w for n, w in shift_state(trained, settings, config.shift).items()}
    model.load_state_dict(state | {f"encoder.{n}": w for n, w in model.encoder.state_dict().items()})
    model.eval()
    eps, g = model.predict(tensors["B.x"], tensors["t"], model._condition(tensors["B.z"]))
    close(eps, tensors[f"B.eps{kind}"], **STEP)
    close(g.detach(), tensors[f"B.grad{kind}"], **STEP)


def test_encoder_at_128_pixels(tensors: Tensors, generated: Any) -> None:
    config = StridedEncoderConfig(image_size=128, channels=published_channels(128), z_width=16)
    encoder = StridedEncoder(config).eval().requires_grad_(False)
    numbers = ((0, 1), (3, 4), (6, 8), (10, 11), (13, 14))
    official = {f"encoder.{c}": f"convs.{i}" for i, (c, _) in enumerate(numbers)}
    official |= {f"encoder.{n}": f"norms.{i}" for i, (_, n) in enumerate(numbers)}
    official |= {f"encoder.7.{part}": f"attention.{part}" for part in ("norm", "qkv", "proj_out")}
    official |= {"encoder.17": "proj_out"}
    expected = {f"{o}.{k}": f"{ours}.{k}" for o, ours in official.items() for k in ("weight", "bias")}
    assert strided_encoder_names(expected) == expected
    shapes = {o: tuple(encoder.state_dict()[ours].shape) for o, ours in expected.items()}
    encoder.load_state_dict({expected[o]: w for o, w in generated(shapes, 5000).items()})
    x_0 = F.interpolate(tensors["B.x128_src"], scale_factor=8, mode="nearest")
    close(encoder(x_0), tensors["B.z128"], **STEP)


def test_latent_network_of_ten_layers(tensors: Tensors, generated: Any) -> None:
    network = LatentMLP(LatentMLPConfig(z_width=16, hidden_width=64, num_layers=10, time_channels=64))
    network.eval().requires_grad_(False)
    official: dict[str, str] = {}
    for name in network.state_dict():
        layer = name.replace("time_embed.linear_1", "time_embed.0").replace(
            "time_embed.linear_2", "time_embed.2"
        )
        layer = layer.replace("linear_out", "layers.9.linear").replace("time_proj", "linear_emb")
        official[layer] = name
    twins = {n.replace("linear_emb", "cond_layers.1"): n for n in official if "linear_emb" in n}
    shapes = {n: tuple(network.state_dict()[ours].shape) for n, ours in official.items()}
    weights = generated(shapes | {twin: shapes[n] for twin, n in twins.items()}, 9000)
    expected = {name: latent_name(name, 10) for name in official}
    assert expected == official
    network.load_state_dict({official[n]: weights[n] for n in official})
    close(network(tensors["B.z"], tensors["t"]), tensors["B.latent_eps"], **STEP)
