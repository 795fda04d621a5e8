"""Networks of metrics run on the pipeline's device: what they are shown lies there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rdm_cli.evaluation.distances import SQUARED
from rdm_cli.evaluation.generation import features
from rdm_cli.metrics.features import FeatureExtractor

NOWHERE = torch.device("meta")  # a device that every machine has; what is shown there has no values


class Seen(FeatureExtractor):
    """An extractor that says where pictures lay."""

    def __call__(self, x: Tensor) -> Tensor:
        assert x.device == NOWHERE
        return torch.zeros(len(x), 4)


def test_features_are_taken_on_the_device() -> None:
    extractor = Seen(name="seen", network=torch.nn.Identity(), sha256="0" * 64, size_px=None)
    assert features(extractor, torch.zeros(70, 3, 8, 8), NOWHERE).shape == (70, 4)
    with pytest.raises(AssertionError):
        features(extractor, torch.zeros(2, 3, 8, 8))


def test_distances_are_computed_on_the_device() -> None:
    def distance(x: Tensor, y: Tensor) -> Tensor:
        assert x.device == y.device == NOWHERE
        return torch.zeros(len(x))

    x = torch.zeros(70, 1, 8, 8)
    assert replace(SQUARED, distance=distance, device=NOWHERE)(x, x).shape == (70,)
    with pytest.raises(AssertionError):
        replace(SQUARED, distance=distance)(x, x)
