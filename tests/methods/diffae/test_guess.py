"""Diff-AE with a generator: what z alone says, and the UNet that corrects it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.writing import save_bundle
from rdm_cli.kernels.ddim import ddim_decode, ddim_encode, last
from rdm_cli.kernels.parameterization import add_noise, training_target
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.diffae.config import DiffAEConfig
from rdm_cli.methods.diffae.method import METHOD
from rdm_cli.methods.diffae.model import DiffAE
from rdm_cli.methods.diffae.presets import PRESETS
from rdm_cli.models.encoder import EncoderConfig
from rdm_cli.models.generator import GeneratorConfig
from rdm_cli.models.unet import UNetConfig

SHARED: dict[str, Any] = {
    "image_size": 16, "model_channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1,
    "attention_resolutions": (), "z_width": 8, "patch_size": 2,
}  # fmt: skip
CONFIG = DiffAEConfig(
    encoder=EncoderConfig(**SHARED),
    unet=UNetConfig(**SHARED, time_width=32, dropout=0.0, guess_channels=(32, 64)),
    generator=GeneratorConfig(image_size=16, channels=(64, 32), num_res_blocks=(1, 1), z_width=8),
    prediction="v",
    sampling=SamplingSpec(spacing="log-snr"),
)


def model(seed: int = 0) -> DiffAE:
    """One whose last convolution says something, as those that start at zero do not."""
    torch.manual_seed(seed)
    made = DiffAE(CONFIG)
    for weight in made.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    return made.eval()


def images(num: int = 3) -> Tensor:
    coarse = torch.rand(num, 3, 4, 4, generator=torch.Generator().manual_seed(7)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=16, mode="bilinear")


def test_pictures_of_one_z_hardly_differ_whatever_x_T_is() -> None:
    """The grain: a network that answers noise with noise cannot bring more than the spread of it in."""
    described = model()
    z = described.encode(images())["z"]
    denoise = described.denoiser({"z": z})
    first, second = (
        last(ddim_decode(denoise, torch.randn(3, 3, 16, 16), described.sampling, 1)) for _ in range(2)
    )
    guess = described.generator(z).picture.clamp(-1, 1)  # type: ignore[misc]
    bound = 2 * CONFIG.generator.spread  # type: ignore[union-attr]
    assert 0 < (first - second).abs().max() < bound
    assert (first - guess).abs().max() < bound


def test_the_whole_code_brings_any_image_back() -> None:
    """Even where the guess is nothing like it, as before training."""
    described, x_0 = model(), images()
    z = described.encode(x_0)["z"]
    denoise = described.denoiser({"z": z})
    x_T = last(ddim_encode(denoise, x_0, described.sampling, 100))
    again = last(ddim_decode(denoise, x_T, described.sampling, 100))
    guess = described.generator(z).picture  # type: ignore[misc]
    assert (again - x_0).square().mean() < 0.02 * (guess - x_0).square().mean()


def test_the_loss_that_trains_is_the_weighed_one_and_that_of_the_guess() -> None:
    described, x_0 = model(), images()
    t, eps = torch.tensor([3, 300, 950]), torch.randn(3, 3, 16, 16)
    alpha_bar = described.alpha_bar[t]
    z = described.encode(x_0)["z"]
    target = training_target("v", x_0, eps, alpha_bar)
    answer = described._answer(add_noise(x_0, eps, alpha_bar), t, described._condition(z))
    loss = (answer - target).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(described.loss(x_0, t, eps), loss)
    guess = (described.generator(z).picture - x_0).square().mean(dim=(1, 2, 3))  # type: ignore[misc]
    weight = (1 - alpha_bar + 0.06**2 * alpha_bar).float()
    torch.testing.assert_close(described(x_0, t, eps), weight * loss + guess)


def test_a_bundle_keeps_the_generator(tmp_path: Path) -> None:
    saved, x_0 = model(), images()
    save_bundle(tmp_path / "b", METHOD, saved, card="#\n")
    opened = open_bundle(str(tmp_path / "b")).model
    t, eps = torch.tensor([3, 300, 950]), torch.randn(3, 3, 16, 16)
    assert torch.equal(opened.loss(x_0, t, eps), saved.loss(x_0, t, eps))


def test_a_bundle_without_one_is_the_published_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    unet = replace(CONFIG.unet, guess_channels=None)
    save_bundle(tmp_path / "b", METHOD, DiffAE(replace(CONFIG, unet=unet, generator=None)), card="#\n")
    assert not (tmp_path / "b" / "generator").exists()
    assert "guess" not in (tmp_path / "b" / "unet" / "config.json").read_text()
    assert open_bundle(str(tmp_path / "b")).model.generator is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"generator": None}, "goes with a generator"),
        ({"unet": replace(CONFIG.unet, guess_channels=None)}, "goes with a generator"),
        ({"unet": replace(CONFIG.unet, guess_channels=(64, 32))}, "finest maps"),
        ({"prediction": "eps"}, "predict v"),
        ({"generator": replace(CONFIG.generator, z_width=4)}, "width of z"),  # type: ignore[type-var]
        ({"generator": replace(CONFIG.generator, image_size=32)}, "the image or its patches"),  # type: ignore[type-var]
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(CONFIG, **change)


def test_the_small_presets_fit_a_bundle_of_24_mb() -> None:
    """In fp16, with the prior; no file is larger than 16 MB."""
    from rdm_cli.models.latent_mlp import LatentMLP

    for name in ("small32", "small64"):
        preset = PRESETS[name]
        with torch.device("meta"):
            made, prior = DiffAE(preset.config), LatentMLP(preset.prior)  # type: ignore[arg-type]
        parts = [made.encoder, made.unet, made.generator, prior]
        sizes = [2 * sum(p.numel() for p in part.parameters()) for part in parts]  # type: ignore[union-attr]
        assert max(sizes) < 16e6 and sum(sizes) < 24e6
