"""What chance alone gives MIG and TAD, which choose the dimension that they score."""

from __future__ import annotations

from pathlib import Path

import torch

from rdm_cli.evaluation.disentanglement import _by_chance
from rdm_cli.evaluation.material import Labels
from rdm_cli.metrics.disentanglement import mutual_information_gap, total_auroc_difference


def test_of_noise_the_figure_is_that_of_shuffled_labels() -> None:
    """Rare labels and many dimensions: some dimension tells them apart, and it means nothing."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(200, 128, generator=generator)
    values = (torch.rand(200, 3, generator=generator) < 0.04).double()
    names = ("a", "b", "c")
    labels = Labels(names=names, values=values, table=Path("labels"))
    chance = {f.name: f.value for f in _by_chance(z, labels, "z", {"bundle": "x", "num": 200}, seed=0)}
    assert chance.keys() == {"MIG, labels shuffled", "TAD, labels shuffled"}
    tad = total_auroc_difference(z, values, names, seed=0, num_resamples=2)
    assert tad.num_captured == 3 and tad.score.value > 0.02  # which looks like something
    assert abs(chance["TAD, labels shuffled"] - tad.score.value) < 0.1
    mig = mutual_information_gap(z, values, names, seed=0, num_resamples=2).score.value
    assert abs(chance["MIG, labels shuffled"] - mig) < 0.05
    # what is really there lies far above
    z[:, 5] = torch.where(values[:, 0] > 0, 3.0, -3.0)
    z[:, 6] = torch.where(values[:, 1] > 0, 3.0, -3.0)
    real = total_auroc_difference(z, values, names, seed=0, num_resamples=2).score.value
    assert real > chance["TAD, labels shuffled"] + 0.2
