"""Few-shot classifiers on synthetic codes, and the statistics of accept and reject."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from rdm_cli.errors import RdmError, UsageError
from rdm_cli.kernels.randomness import keyed_noise
from rdm_cli.methods.few_shot import FewShotClassifier, _half_whitening, accept_reject, fit_few_shot
from rdm_cli.metrics.ranking import auroc

WIDTH = 64


def population(num: int, seed: int, share: float = 0.2, gap: float = 1.5) -> tuple[Tensor, Tensor]:
    """Codes of which ``share`` are positive: further by ``gap`` in a quarter of the dimensions."""
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(num, generator=generator) < share
    z = torch.randn(num, WIDTH, generator=generator)
    z[:, : WIDTH // 4] += gap * positive[:, None]
    return z, positive


def fitted(positive_unlabelled: bool, num_positive: int = 5) -> FewShotClassifier:
    z, positive = population(2000, seed=1)
    other = z[1000:] if positive_unlabelled else z[1000:][~positive[1000:]]
    return fit_few_shot(
        z[:1000][positive[:1000]][:num_positive],
        other,
        z.mean(0),
        z.std(0),
        positive_unlabelled=positive_unlabelled,
        seed=0,
    )


@pytest.mark.parametrize("positive_unlabelled", [False, True])
def test_five_examples_separate_new_codes(positive_unlabelled: bool) -> None:
    classifier = fitted(positive_unlabelled)
    z, positive = population(4000, seed=2)
    chance = classifier.probability(z)
    assert chance.shape == (4000,)
    assert 0 <= chance.min() and chance.max() <= 1
    assert auroc(classifier.logits(z), positive) > 0.9
    # The population has 20 % of positives. By probability more of what is kept is positive, and by the
    # threshold of a typical example more still.
    kept = float((chance * positive).sum() / chance.sum())
    clear = chance >= classifier.typical_probability
    assert clear.any()
    assert float(positive[clear].float().mean()) > max(kept, 0.4)
    assert kept > 0.22


def test_unlabelled_odds_are_a_density_ratio() -> None:
    """p(z|+)/p(z) is 1/share among clear positives and 0 among clear negatives."""
    classifier = fitted(positive_unlabelled=True, num_positive=150)
    z, positive = population(4000, seed=3)
    chance = classifier.probability(z)
    assert chance[positive].mean() > 0.8
    assert chance[~positive].mean() < 0.15


def test_positives_that_are_like_the_rest_learn_nothing() -> None:
    z, _ = population(1000, seed=4, share=0.0)
    classifier = fit_few_shot(
        z[:5], z[5:], torch.zeros(WIDTH), torch.ones(WIDTH), positive_unlabelled=False, seed=0
    )
    chance = classifier.probability(population(2000, seed=5, share=0.0)[0])
    # 5 points in 64 dimensions separate perfectly; the chosen penalty must not believe it.
    assert classifier.log_loss > 0.6
    assert (chance - 0.5).abs().mean() < 0.15


def test_shared_variation_costs_more() -> None:
    """An isotropic penalty on u with w = M u is w'(S + I)w on w: M M' is the inverse of S + I."""
    z, _ = population(300, seed=8)
    x = z.double()
    matrix = _half_whitening(x)
    inverse = torch.linalg.inv(x.T.cov(correction=0) + torch.eye(WIDTH))
    torch.testing.assert_close(matrix @ matrix.T, inverse)


def test_fit_repeats_and_takes_maps() -> None:
    z, positive = population(200, seed=6)
    maps = z.reshape(200, 4, 4, 4)
    arguments = (torch.zeros(WIDTH), torch.ones(WIDTH))
    flat = fit_few_shot(z[positive], z[~positive], *arguments, positive_unlabelled=False, seed=3)
    same = fit_few_shot(maps[positive], maps[~positive], *arguments, positive_unlabelled=False, seed=3)
    assert torch.equal(flat.weight, same.weight)
    assert torch.equal(flat.probability(z), same.probability(maps))


@pytest.mark.parametrize(("num_positive", "num_other"), [(1, 50), (5, 1)])
def test_too_few_examples_are_refused(num_positive: int, num_other: int) -> None:
    with pytest.raises(UsageError, match="at least 2"):
        fit_few_shot(
            torch.randn(num_positive, WIDTH),
            torch.randn(num_other, WIDTH),
            torch.zeros(WIDTH),
            torch.ones(WIDTH),
            positive_unlabelled=False,
            seed=0,
        )


def draw(numbers: Sequence[int]) -> Tensor:
    return keyed_noise(7, list(numbers), (1,), "draw")


def gaussian_bump(z: Tensor) -> Tensor:
    """exp(-(z-1)^2/2): times N(0, 1) that is N(1/2, 1/2) scaled by exp(-1/4)/sqrt(2)."""
    return torch.exp(-((z[:, 0] - 1) ** 2) / 2)


def test_rejection_sampling_gives_the_product_distribution() -> None:
    found = accept_reject(draw, gaussian_bump, 3000, seed=0, max_draws=20_000)
    rate = math.exp(-0.25) / math.sqrt(2)
    # Four standard errors of a proportion, a mean and a variance.
    assert abs(found.acceptance_rate - rate) < 4 * math.sqrt(rate * (1 - rate) / found.num_drawn)
    z = draw(found.draws)
    assert abs(float(z.mean()) - 0.5) < 4 * math.sqrt(0.5 / 3000)
    assert abs(float(z.var()) - 0.5) < 4 * 0.5 * math.sqrt(2 / 3000)
    assert found.num_accepted == 3000 == len(z)


@pytest.mark.parametrize("batch_size", [1, 17, 500])
def test_the_batch_changes_nothing(batch_size: int) -> None:
    whole = accept_reject(draw, gaussian_bump, 40, seed=0, max_draws=1000)
    parts = accept_reject(draw, gaussian_bump, 40, seed=0, max_draws=1000, batch_size=batch_size)
    assert whole.draws == parts.draws
    assert whole.num_drawn == parts.num_drawn == whole.draws[-1] + 1


def test_another_seed_accepts_other_draws() -> None:
    first = accept_reject(draw, gaussian_bump, 40, seed=0, max_draws=1000)
    assert accept_reject(draw, gaussian_bump, 40, seed=1, max_draws=1000).draws != first.draws


def test_a_threshold_takes_every_code_above_it() -> None:
    found = accept_reject(draw, gaussian_bump, 30, seed=0, max_draws=1000, threshold=0.5)
    expected = [i for i in range(found.num_drawn) if gaussian_bump(draw([i])) >= 0.5]
    assert list(found.draws) == expected


def test_a_hopeless_search_says_so_in_one_line() -> None:
    with pytest.raises(RdmError) as caught:
        accept_reject(draw, lambda z: torch.zeros(len(z)), 4, seed=0, max_draws=500)
    message = str(caught.value)
    assert "only 0 of 4 samples in 500 draws (0.00%)" in message
    assert "more example images" in message and "--attr" in message
    assert "\n" not in message
