"""The loss of a first stage, with and without its perceptual term."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata

import pytest
import torch
from torch import Tensor, nn

from rdm_cli.methods.first_stage.model import FirstStageTraining, FirstStageTrainingConfig
from rdm_cli.metrics.st_lpips import PACKAGE, open_st_lpips
from rdm_cli.models.first_stage import f4
from rdm_cli.training.ema import WeightAverage

try:
    metadata.version(PACKAGE)
except metadata.PackageNotFoundError:
    pytest.skip(f"{PACKAGE} is not installed", allow_module_level=True)

PLAIN = FirstStageTrainingConfig(first_stage=f4("vq", (32, 32, 32), num_codes=16, layers=1), image_size=32)
PERCEPTUAL = replace(PLAIN, perceptual_weight=0.5)


def built(config: FirstStageTrainingConfig) -> FirstStageTraining:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FirstStageTraining(config)


def loss_and_gradient(model: nn.Module, x_0: Tensor) -> tuple[Tensor, Tensor]:
    loss = model(x_0, torch.zeros(len(x_0), dtype=torch.int64), torch.zeros(len(x_0), 1))
    loss.mean().backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_the_term_is_the_distance_times_its_weight_and_moves_the_gradient() -> None:
    x_0 = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    plain, perceptual = built(PLAIN), built(PERCEPTUAL)
    for a, b in zip(plain.parameters(), perceptual.parameters(), strict=True):
        assert torch.equal(a, b)  # opening the distance draws nothing: runs differ by their loss alone
    loss, gradient = loss_and_gradient(plain, x_0)
    loss_with, gradient_with = loss_and_gradient(perceptual, x_0)
    decoded = plain.picture_rows(x_0)["reconstruction"]
    torch.testing.assert_close(loss_with - loss, 0.5 * open_st_lpips()(decoded, x_0), rtol=1e-3, atol=1e-5)
    assert float((gradient_with - gradient).norm()) > 1e-3 * float(gradient.norm())


def test_the_distance_is_no_part_of_what_is_trained_averaged_or_stored() -> None:
    plain, perceptual = built(PLAIN), built(PERCEPTUAL)
    assert perceptual.state_dict().keys() == plain.state_dict().keys()
    assert WeightAverage(perceptual, 0.9).averages.keys() == WeightAverage(plain, 0.9).averages.keys()
    assert len(list(perceptual.modules())) == len(list(plain.modules()))


def test_latents_are_drawn_narrowly_at_first() -> None:
    stage = f4("kl", (8, 8, 16), layers=1, latent_channels=4, num_groups=4, attends=False)
    fresh = built(FirstStageTrainingConfig(first_stage=stage, image_size=32)).first_stage
    with torch.no_grad():
        spread = fresh.encode(torch.rand(2, 3, 32, 32) * 2 - 1).latent_dist.std
    assert float(spread.max()) < 0.3  # diffusers': about 1


def test_the_squared_error_is_added_by_its_weight() -> None:
    x_0 = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    plain, squared = built(PLAIN), built(replace(PLAIN, squared_weight=5.0))
    error = (plain.picture_rows(x_0)["reconstruction"] - x_0).square().mean(dim=(1, 2, 3))
    added = loss_and_gradient(squared, x_0)[0] - loss_and_gradient(plain, x_0)[0]
    torch.testing.assert_close(added, 5 * error, rtol=1e-4, atol=1e-5)
