"""PDAE with a generator: what z alone says, and the frozen model's second way up that corrects it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.config_json import from_json, to_json
from rdm_cli.bundles.writing import save_bundle
from rdm_cli.kernels.ddim import ddim_decode, ddim_encode, last
from rdm_cli.kernels.parameterization import Prediction, add_noise, to_x_0, training_target
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.diffae.presets import PRESETS as DIFFAE_PRESETS
from rdm_cli.methods.dpm.model import DPM, DPMConfig
from rdm_cli.methods.dpm.presets import PRESETS as DPM_PRESETS
from rdm_cli.methods.pdae.config import PDAEConfig, pdae_config, published_encoder
from rdm_cli.methods.pdae.method import METHOD, adopt
from rdm_cli.methods.pdae.model import PDAE
from rdm_cli.methods.pdae.presets import PRESETS
from rdm_cli.models.encoder import EncoderConfig
from rdm_cli.models.generator import GeneratorConfig
from rdm_cli.models.shift_branch import Shown
from rdm_cli.models.strided_encoder import StridedEncoderConfig
from rdm_cli.models.unet import UNetConfig, map_sides, map_widths
from rdm_cli.models.unet2d_config import UNet2DConfig

UNET = UNetConfig(
    image_size=32, model_channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(),
    time_width=32, z_width=None, dropout=0.0, patch_size=2,
)  # fmt: skip
UNETS: dict[str, UNetConfig | UNet2DConfig] = {
    "patches": UNET,
    "pixels": replace(UNET, patch_size=1, channel_mult=(1, 1, 2, 2, 2)),  # sides 32 to 2, most without a map
    "diffusers": UNet2DConfig(
        class_name="UNet2DModel",
        values={
            "sample_size": 32, "block_out_channels": [16, 32], "layers_per_block": 2, "norm_num_groups": 8,
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        },
    ),
}  # fmt: skip
ENCODER = EncoderConfig(
    image_size=32, model_channels=32, channel_mult=(1, 1, 1), num_res_blocks=1, attention_resolutions=(),
    z_width=8, patch_size=2, pool="flatten",
)  # fmt: skip
GENERATOR = GeneratorConfig(image_size=32, channels=(64, 32, 32), num_res_blocks=(1, 1, 1), z_width=8)
PREDICTIONS: tuple[Prediction, ...] = ("eps", "v", "x_0")


def config_on(unet: UNetConfig | UNet2DConfig, prediction: Prediction = "v", **changes: Any) -> PDAEConfig:
    given: dict[str, Any] = {
        "z_width": 8, "gamma": None, "encoder": ENCODER, "sees_prediction": True, "generator": GENERATOR,
        "sampling": SamplingSpec(spacing="log-snr"),
    }  # fmt: skip
    return pdae_config(unet, prediction=prediction, **given | changes)


def made(config: PDAEConfig) -> PDAE:
    """One whose last convolutions say something, as those that start at zero do not."""
    torch.manual_seed(0)
    model = PDAE(config)
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(std=0.05)
    return model.eval()


def batch(num: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(num, 3, 4, 4, generator=generator) * 2 - 1
    x_0 = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear")
    return x_0, torch.linspace(3, 999, num).long(), torch.randn(num, 3, 32, 32, generator=generator)


def answered(model: PDAE, x_t: Tensor, t: Tensor, z: Tensor) -> Tensor:
    """x_0 as the model has it, float64, put together by hand from the formulas in coefficients.py."""
    guess = cast(Any, model).generator(z)
    alpha_bar = model.alpha_bar[t][:, None, None, None]
    sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
    seen: list[Tensor] = []

    def note(_: int, h: Tensor) -> Tensor:
        seen.append(h)
        return h

    features = model.unet.features(x_t, t, model.unet.condition(None))
    prediction = model.unet.upward(features, model.unet.condition(None), note)
    frozen = to_x_0(model.as_eps(prediction, x_t, t).double(), x_t.double(), model.alpha_bar[t])
    c_skip = 0.06**2 / (0.06**2 + (0.3 * sigma) ** 2)
    of_x_t = (x_t / alpha_bar.sqrt() - guess.picture) * 0.06 / (0.06**2 + sigma**2)
    of_frozen = (frozen - guess.picture) * c_skip / 0.06
    beside = torch.cat([of_x_t, of_frozen], dim=1).float()
    shown = Shown(guess, beside, c_skip.sqrt().float())
    answer = model.shift(features, model.shift.condition(z), seen, shown)
    c_out = 0.06 * 0.3 * sigma / (0.06**2 + (0.3 * sigma) ** 2).sqrt()
    made: Tensor = guess.picture + c_skip * (frozen - guess.picture) - c_out * answer
    return made


def seen_in(model: PDAE, eps: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """x_0 that ``eps`` says, float64; where little can be said about it, about as much of it."""
    return to_x_0(eps.double(), x_t.double(), model.alpha_bar[t])


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("kind", UNETS)
def test_the_shift_leads_from_what_the_frozen_model_says_to_the_answer(
    kind: str, prediction: Prediction
) -> None:
    model = made(config_on(UNETS[kind], prediction))
    x_0, t, eps = batch()
    x_t, z = add_noise(x_0, eps, model.alpha_bar[t]), model.encode(x_0)["z"]
    with torch.no_grad():
        frozen, shift = model.predict(x_t, t, model._condition(z))
        expected = answered(model, x_t, t, z)
        plain = DPM(DPMConfig(unet=UNETS[kind], prediction=prediction, sampling=model.sampling)).eval()
        plain.unet.load_state_dict(model.unet.state_dict())
        alone = plain.denoiser({"z": torch.zeros(3, 0)})(x_t, t)
        both = model.one_step(x_t, t, {"z": z})
        walk = model.path_denoiser({"z": z}, {"z": z.roll(1, 0)}, torch.zeros(3))
        denoised = model.denoiser({"z": z})(x_t, t)
        for found in (model.as_eps(frozen + shift, x_t, t), denoised, both["with z"], walk(x_t, t)):
            torch.testing.assert_close(seen_in(model, found, x_t, t), expected, rtol=0, atol=2e-3)
        assert torch.equal(both["without z"], alone)
        assert torch.equal(model.denoiser({"z": z}, stop_below=1000)(x_t, t), alone)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_pictures_of_one_z_hardly_differ_whatever_x_T_is(prediction: Prediction) -> None:
    model = made(config_on(UNET, prediction))
    z = model.encode(batch()[0])["z"]
    with torch.no_grad():
        first, second = (
            last(ddim_decode(model.denoiser({"z": z}), torch.randn(3, 3, 32, 32), model.sampling, 1))
            for _ in range(2)
        )
        guess = cast(Any, model).generator(z).picture.clamp(-1, 1)
    assert 0 < (first - second).std() < GENERATOR.spread / 20
    assert (first - guess).std() < 2 * GENERATOR.spread


def test_the_whole_code_brings_any_image_back() -> None:
    """Even where the guess is nothing like it, as before training."""
    model, (x_0, _, _) = made(config_on(UNET)), batch()
    with torch.no_grad():
        z = model.encode(x_0)["z"]
        x_T = last(ddim_encode(model.denoiser({"z": z}), x_0, model.sampling, 100))
        again = last(ddim_decode(model.denoiser({"z": z}), x_T, model.sampling, 100))
        guess = cast(Any, model).generator(z).picture
    assert (again - x_0).square().mean() < 0.02 * (guess - x_0).square().mean()


@pytest.mark.parametrize("gamma", [None, 0.25])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_is_the_weighed_one_of_v_and_that_of_the_guess(
    prediction: Prediction, gamma: float | None
) -> None:
    model, (x_0, t, eps) = made(config_on(UNET, prediction, gamma=gamma)), batch()
    alpha_bar = model.alpha_bar[t]
    z = model.encode(x_0)["z"]
    target = training_target("v", x_0, eps, alpha_bar)
    x_t = add_noise(x_0, eps, alpha_bar)
    signal, noise = alpha_bar.sqrt()[:, None, None, None], (1 - alpha_bar).sqrt()[:, None, None, None]
    v = (signal * x_t - answered(model, x_t, t, z)) / noise
    loss = (model.loss_weight[t] * (v - target).square().mean(dim=(1, 2, 3))).float()
    torch.testing.assert_close(model.loss(x_0, t, eps), loss, rtol=1e-4, atol=0)
    guess = (cast(Any, model).generator(z).picture - x_0).square().mean(dim=(1, 2, 3))
    weight = (1 - alpha_bar + 0.06**2 * alpha_bar).float() if gamma is None else 1
    torch.testing.assert_close(model(x_0, t, eps), weight * loss + guess, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", UNETS)
@pytest.mark.parametrize("bf16", [False, True])
def test_every_parameter_but_the_frozen_ones_is_trained(kind: str, bf16: bool) -> None:
    model, (x_0, t, eps) = made(config_on(UNETS[kind])).train(), batch()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model(x_0, t, eps)
    assert loss.dtype == torch.float32 and loss.shape == (3,) and loss.isfinite().all()
    loss.mean().backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith("unet.")
        assert (parameter.grad is None) is frozen, name
        assert frozen or parameter.grad.abs().max() > 0, name  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["small32", "small64"])
def test_a_fresh_model_answers_the_untrained_guess(name: str) -> None:
    """Finite at every t; the second way up starts at nothing."""
    torch.manual_seed(0)
    model = PDAE(PRESETS[name].config).eval()
    size = model.image_size
    t = torch.tensor([0, 1, 500, 999])
    x_0, eps = torch.rand(4, 3, size, size) * 2 - 1, torch.randn(4, 3, size, size)
    with torch.no_grad():
        assert model(x_0, t, eps).isfinite().all()
        z = model.encode(x_0)["z"]
        made_eps = model.denoiser({"z": z})(eps, torch.full((4,), 999))
        alpha_bar = model.alpha_bar[torch.tensor([999])].float()
        x_0_seen = (eps - (1 - alpha_bar).sqrt() * made_eps) / alpha_bar.sqrt()
        guess = cast(Any, model).generator(z).picture
    assert (x_0_seen - guess).abs().max() < 1e-3


@pytest.mark.parametrize("kind", UNETS)
def test_a_bundle_keeps_the_generator(kind: str, tmp_path: Path) -> None:
    saved, (x_0, t, eps) = made(config_on(UNETS[kind])), batch()
    save_bundle(tmp_path / "b", METHOD, saved, card="#\n")
    opened = open_bundle(str(tmp_path / "b")).model
    assert opened.config == saved.config  # type: ignore[attr-defined]
    assert torch.equal(opened.loss(x_0, t, eps), saved.loss(x_0, t, eps))


def test_a_bundle_without_one_is_the_published_network(tmp_path: Path) -> None:
    published = config_on(UNET, encoder=None, generator=None)
    save_bundle(tmp_path / "b", METHOD, PDAE(published), card="#\n")
    assert not (tmp_path / "b" / "generator").exists()
    assert "generator" not in (tmp_path / "b" / "shift" / "config.json").read_text()
    opened = cast(Any, open_bundle(str(tmp_path / "b")).model)
    assert opened.generator is None and opened.config == published


def test_a_checkpoint_of_before_is_of_the_papers_encoder() -> None:
    """Its settings name neither the encoder's class nor a generator."""
    for config in (config_on(UNET, encoder=None, generator=None), config_on(UNET)):
        assert from_json(PDAEConfig, to_json(config)) == config
    values = to_json(config_on(UNET, encoder=None, generator=None))
    assert "generator" not in values and "generator" not in values["shift"]
    del values["encoder"]["_class_name"]
    assert from_json(PDAEConfig, values) == config_on(UNET, encoder=None, generator=None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"generator": None}, "built for another generator"),
        ({"generator": replace(GENERATOR, spread=0.1)}, "built for another generator"),
        ({"encoder": replace(ENCODER, z_width=4)}, "width of z"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(config_on(UNET), **change)


@pytest.mark.parametrize(
    ("change", "said"), [({"z_width": 4}, "width of z"), ({"image_channels": 1}, "about the image")]
)
def test_a_generator_of_other_pictures_is_refused(change: dict[str, Any], said: str) -> None:
    config = config_on(UNET)
    generator = replace(GENERATOR, **change)
    with pytest.raises(ValueError, match=said):
        replace(config, generator=generator, shift=replace(config.shift, generator=generator))


def test_a_run_of_before_keeps_its_networks_when_it_is_resumed() -> None:
    """Wider than the paper's encoder, as the small presets had it; without a generator."""
    encoder = StridedEncoderConfig(image_size=32, channels=(64, 96, 96), z_width=8)
    before = config_on(UNET, encoder=encoder, generator=None)
    with torch.device("meta"):
        dpm = DPM(DPMConfig(unet=UNET, prediction="v", sampling=before.sampling))
        assert adopt(before, dpm) == before
        larger = DPM(DPMConfig(unet=replace(UNET, image_size=64), prediction="v"))
        assert adopt(before, larger).encoder == published_encoder(larger.config.unet, 8)


@pytest.mark.parametrize("size", [32, 64, 128, 512])
def test_presets_fit_a_dpm_of_any_size(size: int) -> None:
    """Encoder and generator go down to, and come up from, 4 x 4."""
    for name in ("small32", "small64"):
        with torch.device("meta"):
            dpm = DPM(DPMConfig(unet=replace(UNET, image_size=size, image_channels=1), prediction="eps"))
            model = cast(Any, PDAE(adopt(PRESETS[name].config, dpm)))
            assert model.generator.config.sides[0] == 4 and model.generator.config.sides[-1] == size // 2
            assert model.encoder.proj_out.kernel_size == (4, 4)
            x_0 = torch.zeros(2, 1, size, size)
            assert model.generator(model.encode(x_0)["z"]).picture.shape == x_0.shape
        assert model.config.shift.gamma is None, "errors are of v, of one size at every t"


def test_the_small_presets_are_those_of_their_dpm_and_are_trained_alike() -> None:
    for name in ("small32", "small64"):
        dpm, pdae, diffae = DPM_PRESETS[name], PRESETS[name], DIFFAE_PRESETS[name]
        assert pdae.config.unet == dpm.config.unet
        assert pdae.recipe == dpm.recipe == diffae.recipe
        assert pdae.config.generator == diffae.config.generator


def test_the_small_presets_fit_a_bundle_of_24_mb() -> None:
    """In fp16, with the prior; no file is larger than 16 MB."""
    from rdm_cli.models.latent_mlp import LatentMLP

    for name in ("small32", "small64"):
        preset = PRESETS[name]
        with torch.device("meta"):
            model, prior = PDAE(preset.config), LatentMLP(preset.prior)  # type: ignore[arg-type]
        parts = [model.unet, model.encoder, model.shift, model.generator, prior]
        sizes = [2 * sum(p.numel() for p in part.parameters()) for part in parts]  # type: ignore[union-attr]
        assert max(sizes) < 16e6 and sum(sizes) < 23.5e6


def test_sides_and_widths_are_those_of_the_maps() -> None:
    """Of our own UNet; with a guess, a wrong one of diffusers' fails above."""
    for unet in (UNETS["patches"], UNETS["pixels"]):
        assert isinstance(unet, UNetConfig)
        model = made(config_on(unet))
        x_t, t = torch.zeros(1, 3, 32, 32), torch.zeros(1, dtype=torch.int64)
        maps = model.unet.features(x_t, t, model.unet.condition(None)).maps
        assert [m.shape[2] for m in maps] == map_sides(unet)
        assert [m.shape[1] for m in maps] == map_widths(unet)
