"""The looks into a run: whether z is used, and the rows of a sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.methods.conditions import Conditions
from rdm_cli.methods.diffae.model import DiffAE
from rdm_cli.training.diagnostics import TIMESTEPS, averaged_copy, picture_rows, swapped_z_losses


@pytest.fixture
def model(tiny_bundle: Path) -> DiffAE:
    return cast(DiffAE, open_bundle(str(tiny_bundle)).model)


def pictures(num: int = 3) -> Tensor:
    return torch.rand(num, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_network_that_ignores_z_loses_nothing_by_a_swap(model: DiffAE) -> None:
    with torch.no_grad():
        for name, parameter in model.unet.named_parameters():
            if ".z_proj." in name:
                parameter.zero_()
    losses = swapped_z_losses(model, pictures())
    assert tuple(losses) == TIMESTEPS
    assert all(own == other > 0 for own, other in losses.values())


class MeanIsAll:
    """z is the mean of the image, and the loss how far z is from it."""

    def enter(self, x_0: Tensor) -> Tensor:
        return x_0

    def training_conditions(self, x_0: Tensor) -> dict[str, Tensor]:
        return {}

    def encode(self, x_0: Tensor, given: Conditions, *, timesteps: list[int]) -> dict[str, Tensor]:
        return {"z": x_0.mean(dim=(1, 2, 3))[:, None]}

    def loss(self, x_0: Tensor, t: Tensor, eps: Tensor, conditions: Conditions) -> Tensor:
        return t / 1000 * (x_0.mean(dim=(1, 2, 3)) - conditions["z"][:, 0]).square()


def test_a_network_that_uses_z_loses_what_the_neighbour_s_z_gets_wrong() -> None:
    x_0 = torch.tensor([0.0, 0.5, -1.0])[:, None, None, None].expand(3, 3, 2, 2)
    losses = swapped_z_losses(cast(Any, MeanIsAll()), x_0, timesteps=(500, 1000))
    # neighbours differ by 1, 0.5 and 1.5: squares 1, 0.25 and 2.25
    expected = (1 + 0.25 + 2.25) / 3
    assert losses[500] == (0.0, pytest.approx(expected / 2))
    assert losses[1000] == (0.0, pytest.approx(expected))


def test_the_noise_is_the_same_every_time(model: DiffAE) -> None:
    first, again = (swapped_z_losses(model, pictures(), timesteps=(100, 900)) for _ in range(2))
    assert first == again
    assert first != swapped_z_losses(model, pictures(), timesteps=(100, 900), seed=1)
    assert any(own != other for own, other in first.values())


def test_rows_of_a_sheet(model: DiffAE) -> None:
    x_0 = pictures(2)
    named = picture_rows(model, x_0, num_steps=3)
    rows = list(named.values())
    assert list(named) == ["image", "reconstruction", "z, another x_T", "z, a third x_T"]
    assert [row.shape for row in rows] == [x_0.shape] * 4
    assert torch.equal(rows[0], x_0)
    assert not torch.equal(rows[2], rows[3])
    again = picture_rows(model, x_0, num_steps=3).values()
    assert all(torch.equal(a, b) for a, b in zip(rows, again, strict=True))


def test_the_averaged_copy_is_another_network(model: DiffAE) -> None:
    model.requires_grad_(True).train()
    weights = {name: value + 1 for name, value in model.state_dict().items()}
    twin = averaged_copy(model, weights)
    assert not twin.training and model.training
    assert not any(p.requires_grad for p in twin.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(twin.state_dict()[name], value + 1)
