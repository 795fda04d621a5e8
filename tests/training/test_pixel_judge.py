"""The judge of edits: what it learns, that it is the same every time, and what unknown answers teach it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rdm_cli.metrics.ranking import auroc
from rdm_cli.models.pixel_classifier import PixelClassifier, PixelClassifierConfig
from rdm_cli.training.pixel_judge import train_pixel_judge

NAMES = ("bright", "red")


def pictures(num: int, seed: int, size: int = 16) -> tuple[Tensor, Tensor]:
    """Noise (num, 3, size, size), in half of it brighter and in half of it redder than in the rest."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(num, 2, generator=generator) > 0.5).float()
    x = torch.rand(num, 3, size, size, generator=generator) - 0.5
    x = x + 0.3 * (2 * labels[:, :1, None, None] - 1)
    x[:, 0] += 0.3 * (2 * labels[:, 1, None, None] - 1)
    return x, labels


def test_it_learns_what_pixels_show() -> None:
    x, labels = pictures(128, 0)
    judge = train_pixel_judge(x, labels, NAMES, epochs=15)
    y, truth = pictures(100, 1)
    for k in range(2):
        assert auroc(judge.logits(y)[:, k], truth[:, k] > 0) > 0.95
    assert judge.labels(y).dtype == torch.bool and judge.num_images == 128


def test_the_same_words_give_the_same_judge_and_leave_the_dice_alone() -> None:
    x, labels = pictures(20, 0)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = train_pixel_judge(x, labels, NAMES, epochs=1)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(6)
    assert train_pixel_judge(x, labels, NAMES, epochs=1).sha256 == first.sha256
    assert train_pixel_judge(x, labels, NAMES, epochs=1, seed=1).sha256 != first.sha256


def test_unknown_answers_teach_nothing() -> None:
    """Beside a known attribute, one that is never known changes the shared features by nothing."""
    x, labels = pictures(32, 0)
    unknown = labels.clone()
    unknown[:, 1] = math.nan
    judge = train_pixel_judge(x, unknown, NAMES, epochs=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = PixelClassifier(PixelClassifierConfig(num_attributes=2))
    # its own head has moved by the decay of weights alone: 2 steps, each by lr * 0.01 at most
    moved = (judge.network.head.weight[1] / start.head.weight[1] - 1).abs()
    assert float(moved.detach().max()) < 1e-4
    assert not torch.allclose(judge.network.head.weight[0], start.head.weight[0], rtol=1e-3)


def test_at_64_pixels_no_place_is_averaged() -> None:
    network = PixelClassifier(PixelClassifierConfig(num_attributes=1))
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(network(x), network.head(network.features(x).flatten(1)))
    assert network(torch.rand(1, 3, 16, 16)).shape == (1, 1)


def test_shapes_that_disagree() -> None:
    with pytest.raises(ValueError, match=r"labels must be \(3, 2\)"):
        train_pixel_judge(torch.zeros(3, 3, 16, 16), torch.zeros(3, 1), NAMES)
