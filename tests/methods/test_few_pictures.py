"""An attribute from five pictures a side: chosen among what is known, or else by the pictures themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rdm_cli.errors import UsageError
from rdm_cli.methods.concepts import find_concepts
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.domain import Domain, fit_domain
from rdm_cli.methods.few_pictures import fitted_slope, learn_attribute
from rdm_cli.metrics.ranking import auroc

WIDTH, SHARES = 24, (0.5, 0.2, 0.2)


@pytest.fixture(scope="module")
def planted() -> tuple[Tensor, Tensor, Domain]:
    """Codes (N, 24) with three things that some have, who has them (N, 3), and their Gaussian."""
    generator = torch.Generator().manual_seed(0)
    has = torch.rand(8000, 3, generator=generator) < torch.tensor(SHARES)
    x = torch.randn(8000, WIDTH, generator=generator)
    x[:, :3] = x[:, :3] / 6 + has
    z = x @ torch.randn(WIDTH, WIDTH, generator=generator)
    domain = fit_domain(z)
    assert domain is not None
    return z, has, domain


@pytest.fixture(scope="module")
def concepts(planted: tuple[Tensor, Tensor, Domain]) -> Directions:
    return find_concepts(planted[0])


def five(has: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Five rows with it and five without, of the first 4,000."""
    generator = torch.Generator().manual_seed(seed)
    sides = [rows[torch.randperm(len(rows), generator=generator)[:5]] for rows in map(_rows, (has, ~has))]
    return sides[0], sides[1]


def _rows(has: Tensor) -> Tensor:
    return has[:4000].nonzero()[:, 0]


@pytest.mark.parametrize("seed", range(3))
def test_five_a_side_choose_the_planted_concept(
    planted: tuple[Tensor, Tensor, Domain], concepts: Directions, seed: int
) -> None:
    z, has, domain = planted
    for k, share in enumerate(SHARES):
        ours, others = five(has[:, k], seed)
        learned = learn_attribute(
            "cap", z[ours], z[others], population=z[:2000], domain=domain, candidates=concepts
        )
        logits = learned.directions.logits(z[4000:])[:, 0]
        assert auroc(logits, has[4000:, k]) > 0.97
        assert float((logits > 0).float().mean()) == pytest.approx(share, abs=0.1)
        assert learned.auroc.value > 0.9 and not learned.is_chance
        # an edit along it goes where those who have it are
        there = learned.directions.reached(z[4000:4200], "cap", 6.0)
        truth = z[has[:, k]].mean(dim=0) - z[~has[:, k]].mean(dim=0)
        cosine = torch.nn.functional.cosine_similarity((there - z[4000:4200]).mean(dim=0), truth, dim=0)
        assert float(cosine) > 0.8


def test_one_without_candidates_is_the_shrunk_discriminant(planted: tuple[Tensor, Tensor, Domain]) -> None:
    z, has, domain = planted
    rows = [side[:100] for side in (_rows(has[:, 0]), _rows(~has[:, 0]))]
    learned = learn_attribute(
        "cap", z[rows[0]], z[rows[1]], population=z[:2000], domain=domain, candidates=None
    )
    assert auroc(learned.directions.logits(z[4000:])[:, 0], has[4000:, 0]) > 0.9
    assert learned.nearest is None and learned.companions == ()


def test_a_known_attribute_is_named(planted: tuple[Tensor, Tensor, Domain], concepts: Directions) -> None:
    z, has, domain = planted
    scores = [abs(auroc(column, has[:, 1]) - 0.5) for column in concepts.logits(z).T]
    best = concepts.names[scores.index(max(scores))]
    known = concepts.select({best: "hat"})
    candidates = known.updated(concepts)
    ours, others = five(has[:, 1], 0)
    learned = learn_attribute(
        "cap", z[ours], z[others], population=z[:2000], domain=domain, candidates=candidates, num_known=1
    )
    assert learned.nearest == "hat" and abs(learned.agreement) > 0.9
    assert learned.companions == ("hat",)


def test_unlabelled_pictures_do_for_those_without(
    planted: tuple[Tensor, Tensor, Domain], concepts: Directions
) -> None:
    z, has, domain = planted
    ours, _ = five(has[:, 1], 0)
    learned = learn_attribute(
        "cap", z[ours], z[4000:4100], population=z[:2000], domain=domain, candidates=concepts, unlabelled=True
    )
    assert auroc(learned.directions.logits(z[4000:])[:, 0], has[4000:, 1]) > 0.97


def test_pictures_with_nothing_in_common_are_told_by_chance(
    planted: tuple[Tensor, Tensor, Domain], concepts: Directions
) -> None:
    z, _, domain = planted
    chances = []
    for seed in range(5):
        rows = torch.randperm(4000, generator=torch.Generator().manual_seed(seed))[:10]
        learned = learn_attribute(
            "cap", z[rows[:5]], z[rows[5:]], population=z[:2000], domain=domain, candidates=concepts
        )
        chances.append(learned.is_chance)
    assert sum(chances) >= 4


def test_one_picture_is_too_few(planted: tuple[Tensor, Tensor, Domain]) -> None:
    z, _, domain = planted
    with pytest.raises(UsageError, match="1 pictures with it are too few"):
        learn_attribute("cap", z[:1], z[1:6], population=z[:500], domain=domain, candidates=None)


def test_what_is_clear_has_logits_that_are_twelve_apart() -> None:
    has = torch.arange(400) % 2 == 0
    assert float(fitted_slope(has.float(), has.float())) == pytest.approx(12, abs=0.2)


def test_the_slope_of_logits_is_found() -> None:
    s = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    assert float(fitted_slope(s, (3 * s - 2).sigmoid())) == pytest.approx(3, abs=0.1)
