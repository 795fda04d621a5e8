"""LRDM with a generator: latents of z alone, and the UNet that corrects them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.pretrained import FirstStage
from rdm_cli.bundles.writing import save_bundle
from rdm_cli.kernels.ddim import ddim_decode, ddim_encode, last
from rdm_cli.kernels.parameterization import add_noise, training_target
from rdm_cli.methods.first_stage.presets import PRESETS as FIRST_STAGES
from rdm_cli.methods.lrdm.config import LRDM_SAMPLING, LRDMConfig
from rdm_cli.methods.lrdm.method import METHOD, adopt
from rdm_cli.methods.lrdm.model import LRDM
from rdm_cli.methods.lrdm.presets import PRESETS
from rdm_cli.models.first_stage import f4
from rdm_cli.models.generator import GeneratorConfig
from rdm_cli.models.latent_unet import LatentUNetConfig
from rdm_cli.models.representation import FIRST_LOGVAR, RepresentationConfig, draw, kl_to_normal

LATENTS: dict[str, Any] = {"latent_size": 8, "latent_channels": 4}
SPREAD = 0.3
GENERATOR = GeneratorConfig(
    image_size=8, channels=(64, 32), num_res_blocks=(1, 1), z_width=8, spread=SPREAD, image_channels=4,
    patch_size=1,
)  # fmt: skip
REPRESENTATION = RepresentationConfig(
    **LATENTS, model_channels=32, channel_mult=(1, 2), z_channels=1, hidden_channels=16, num_encoder_blocks=1,
    dropout=0.0, z_width=8, kl_weight=1e-3, generator=GENERATOR,
)  # fmt: skip
UNET = LatentUNetConfig(
    **LATENTS, model_channels=32, channel_mult=(1, 2), num_res_blocks=1, dropout=0.0, map_channels=(32, 64),
    sees_guess=True,
)  # fmt: skip
CONFIG = LRDMConfig(
    unet=UNET,
    representation=REPRESENTATION,
    first_stage=f4("kl", (8, 8, 16), layers=1, latent_channels=4, num_groups=4, attends=False),
    prediction="v",
    sampling=LRDM_SAMPLING.spaced("log-snr"),
)


def model(config: LRDMConfig = CONFIG) -> LRDM:
    """One whose last convolutions say something, as those that start at zero do not."""
    torch.manual_seed(0)
    made = LRDM(config)
    for weight in made.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    return made.eval()


def latents(num: int = 3) -> Tensor:
    coarse = torch.randn(num, 4, 4, 4, generator=torch.Generator().manual_seed(7))
    return torch.nn.functional.interpolate(coarse, size=8, mode="bilinear")


def drawn(num: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.tensor([3, 300, 950])[:num], torch.randn(num, 4, 8, 8, generator=generator)


def test_latents_of_one_z_differ_by_no_more_than_the_spread_whatever_x_T_is() -> None:
    described = model()
    z = described.encode(latents())["z"]
    denoise = described.denoiser({"z": z})
    first, second = (
        last(ddim_decode(denoise, torch.randn(3, 4, 8, 8), described.sampling, 1)) for _ in range(2)
    )
    guess = described.representation.guess(z).picture
    assert 0 < (first - second).square().mean().sqrt() < 2 * SPREAD
    assert (first - guess).square().mean().sqrt() < 2 * SPREAD


def test_the_whole_code_brings_any_latents_back() -> None:
    """Even where the guess is nothing like them, as before training."""
    described, z_0 = model(), latents()
    z = described.encode(z_0)["z"]
    denoise = described.denoiser({"z": z})
    x_T = last(ddim_encode(denoise, z_0, described.sampling, 100))
    again = last(ddim_decode(denoise, x_T, described.sampling, 100))
    guess = described.representation.guess(z).picture
    assert (again - z_0).square().mean() < 0.02 * (guess - z_0).square().mean()


def test_the_loss_that_trains_is_the_weighed_one_that_of_the_guess_and_the_kl() -> None:
    described, z_0 = model(), latents()
    (t, eps), noise = drawn(), torch.randn(3, 8)
    alpha_bar = described.alpha_bar[t]
    mean, logvar = described.posterior(z_0)
    z = draw(mean, logvar, noise)
    condition = described.condition(z)
    assert condition.guess is not None
    answer = described._answer(add_noise(z_0, eps, alpha_bar), t, condition, None)
    loss = (answer - training_target("v", z_0, eps, alpha_bar)).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(described.loss(z_0, t, eps, {"z": z}), loss)
    weight = (1 - alpha_bar + SPREAD**2 * alpha_bar).float()
    whole = weight * loss + (condition.guess - z_0).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(
        described.loss(z_0, t, eps, noise=noise), whole + 1e-3 * kl_to_normal(mean, logvar)
    )


def test_z_is_drawn_narrowly_at_first() -> None:
    torch.manual_seed(0)
    _, logvar = LRDM(CONFIG).posterior(latents())
    assert (logvar - FIRST_LOGVAR).abs().max() < 2


def test_every_weight_learns_under_bf16() -> None:
    described = model().train()
    x_0 = torch.rand(3, 3, 32, 32) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        loss = described(x_0, *drawn()).mean()
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    for name, p in described.named_parameters():
        assert (p.grad is not None and bool(p.grad.any())) == p.requires_grad, name


def test_the_loss_is_one_graph() -> None:
    """torch.compile cuts a graph where Python looks at a value; nothing of the loss does."""
    described, z_0 = model(), latents()
    t, eps = drawn()
    found = torch._dynamo.explain(described.loss)(z_0, t, eps, noise=torch.zeros(3, 8))
    assert found.graph_break_count == 0, found.break_reasons


def test_a_bundle_keeps_the_generator(tmp_path: Path) -> None:
    saved, z_0 = model(), latents()
    save_bundle(tmp_path / "b", METHOD, saved, card="#\n")
    opened: Any = open_bundle(str(tmp_path / "b")).model
    t, eps = drawn()
    assert opened.config == CONFIG
    z = saved.encode(z_0)["z"]
    assert torch.equal(opened.encode(z_0)["z"], z)
    assert torch.equal(opened.loss(z_0, t, eps, {"z": z}), saved.loss(z_0, t, eps, {"z": z}))


def test_a_bundle_without_one_says_nothing_of_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_bundle(tmp_path / "b", METHOD, LRDM(PRESETS["small32-map"].config), card="#\n")
    for part in ("unet", "representation"):
        said = (tmp_path / "b" / part / "config.json").read_text()
        assert "guess" not in said and "generator" not in said


def test_a_first_stage_of_other_channels_is_adopted_by_the_generator_too() -> None:
    stage = f4("kl", (32, 32), layers=1, latent_channels=6)
    adopted = adopt(PRESETS["small32"].config, FirstStage(config=stage, network=None))
    generator = adopted.representation.generator  # type: ignore[union-attr]
    assert (generator.image_size, generator.image_channels) == (16, 6)  # type: ignore[union-attr]
    assert adopted.unet.latent_channels == 6 and adopted.unet.sees_guess


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unet": replace(UNET, sees_guess=None)}, "goes with a generator"),
        ({"unet": replace(UNET, map_channels=(64, 32))}, "finest maps"),
        ({"unet": replace(UNET, weighting="likelihood")}, "the loss has its own weights"),
        ({"prediction": "eps"}, "predicts v"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(CONFIG, **change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"time": True}, "no z that is a function of t"),
        ({"z_width": None}, "width of z"),
        ({"generator": replace(GENERATOR, z_width=4)}, "width of z"),
        ({"generator": replace(GENERATOR, image_channels=3)}, "about the latents"),
        ({"generator": replace(GENERATOR, patch_size=2)}, "about the latents"),
    ],
)
def test_a_generator_that_does_not_fit_the_encoder_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(REPRESENTATION, **change)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_small_presets_fit_a_bundle_of_24_mb(size: int) -> None:
    """In fp16, with the prior; no file is larger than 16 MB. The first stage is that of its own preset."""
    from rdm_cli.models.latent_mlp import LatentMLP

    preset = PRESETS[f"small{size}"]
    assert preset.config.image_size == size
    stage = FIRST_STAGES[f"kl-small{size}"].config
    assert preset.config.first_stage == stage.first_stage and stage.image_size == size
    with torch.device("meta"):
        made, prior = LRDM(preset.config), LatentMLP(preset.prior)  # type: ignore[arg-type]
    parts = [made.first_stage, made.unet, made.representation, prior]
    sizes = [2 * sum(p.numel() for p in part.parameters()) for part in parts]
    assert max(sizes) < 16e6 and sum(sizes) < 24e6 and sizes[0] < 5e6
