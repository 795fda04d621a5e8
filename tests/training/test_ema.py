"""The average of weights against its closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rdm_cli.training.ema import WeightAverage


def one_weight(value: float) -> nn.Linear:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, value)
    return module


def test_the_reference_s_average_has_the_closed_form() -> None:
    """Start 1, then always 5: after n updates 5 - 4 d^n."""
    module = one_weight(1.0)
    average = WeightAverage(module, 0.9, warm_up=False)
    nn.init.constant_(module.weight, 5.0)
    for n in range(1, 30):
        average.update(module)
        assert float(average.averages["weight"]) == pytest.approx(5 - 4 * 0.9**n, abs=1e-5)


def test_the_warm_up_forgets_the_start_at_once() -> None:
    module = one_weight(1.0)
    average = WeightAverage(module, 0.999)
    nn.init.constant_(module.weight, 5.0)
    remaining = 1.0
    for n in range(200):
        average.update(module)
        remaining *= min(0.999, (1 + n) / (10 + n))
        assert float(average.averages["weight"]) == pytest.approx(5 - 4 * remaining, abs=1e-5)
    # without the warm-up, 0.999^200 = 82 % of the random start would still be there
    assert remaining < 1e-10


def test_the_warm_up_ends_at_the_given_decay() -> None:
    module = one_weight(0.0)
    average = WeightAverage(module, 0.5)
    average.load([("weight", torch.tensor([[8.0]]))], num_updates=100)
    average.update(module)
    assert float(average.averages["weight"]) == 4.0
    assert average.num_updates == 101


def test_an_average_of_equal_weights_is_exactly_those() -> None:
    torch.manual_seed(0)
    module = nn.Linear(50, 50)
    average = WeightAverage(module, 0.999)
    for _ in range(5):
        average.update(module)
    assert torch.equal(average.averages["weight"], module.weight)


def test_frozen_parameters_have_no_average_and_the_module_is_left_alone() -> None:
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    before = module.weight.detach().clone()
    average = WeightAverage(module, 0.9)
    assert set(average.averages) == {"weight"}
    nn.init.zeros_(module.weight)
    average.update(module)
    assert not module.weight.any()
    torch.testing.assert_close(average.averages["weight"], before * 0.1)  # the first decay is 1/10
