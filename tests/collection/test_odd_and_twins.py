"""What does not belong, what is there twice, and where codes lie on a map."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rdm_cli.collection.odd import find_odd, lost_limit
from rdm_cli.collection.projection import pca_plane
from rdm_cli.collection.rows import open_collection
from rdm_cli.collection.space import space_of_rows
from rdm_cli.collection.twins import find_twins
from rdm_cli.methods.domain import fit_domain

MakeTable = Callable[..., Path]


def codes(num: int = 600, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num, width)).astype(np.float32)


def test_codes_far_from_the_training_codes_are_found(make_table: MakeTable) -> None:
    domain = fit_domain(torch.from_numpy(codes(2000)))
    z = codes(seed=1)
    z[[30, 200]] *= np.array([[9.0], [6.0]])
    found = find_odd(open_collection(make_table(z)), domain, 2)
    distances = np.linalg.norm(z, axis=1)
    assert [hit.name for hit in found.far] == [f"{i:06d}" for i in np.argsort(-distances)[:2]]
    assert found.num_far >= 2 and domain is not None and found.far[1].score > domain.limit
    assert found.num_measured == 0 and found.lost == [] and found.lost_limit is None


def test_images_that_their_code_does_not_bring_back_are_found(make_table: MakeTable) -> None:
    psnr_db: list[float | None] = list(30 + np.random.default_rng(0).standard_normal(600))
    psnr_db[5], psnr_db[6], psnr_db[7] = 12.0, 9.0, None
    found = find_odd(open_collection(make_table(codes(), psnr_db=psnr_db)), None, 10)
    assert [hit.name for hit in found.lost][:2] == ["000006", "000005"] and found.lost[0].score == 9.0
    assert found.num_measured == 599 and found.lost_limit == pytest.approx(27, abs=0.4)
    assert found.num_lost == len(found.lost) <= 5
    assert lost_limit(np.full(19, 30.0)) is None  # too few to say what is usual


def test_twins_are_groups_of_what_hangs_together(make_table: MakeTable) -> None:
    z = codes(5000, 16)
    z[4000] = z[7] * 1.01
    z[4999] = z[7] + 0.01
    z[100] = z[3000] + 0.01
    digests = ["d"] * 2 + [None] * 4998
    digests[100] = digests[3000] = "e"
    collection = open_collection(make_table(z, source_digest=digests))
    space = space_of_rows(collection)
    groups = find_twins(collection, space, 0.99)
    assert [[twin.name for twin in group] for group in groups] == [
        ["000007", "004000", "004999"],
        ["000100", "003000"],
    ]
    assert all(twin.cosine >= 0.99 for group in groups for twin in group)
    assert [twin.same_file for group in groups for twin in group] == [False] * 3 + [True] * 2
    cosines = space.unit(z) @ space.unit(z).T
    np.fill_diagonal(cosines, -1)
    some = find_twins(collection, space, 0.85)
    assert sum(map(len, some)) == (cosines >= 0.85).any(axis=1).sum()


def test_the_plane_is_that_of_the_principal_components(make_table: MakeTable) -> None:
    z = codes(5000) @ np.diag(np.arange(1, 9)).astype(np.float32) @ codes(8, seed=3)
    collection = open_collection(make_table(z))
    space = space_of_rows(collection)
    plane = pca_plane(collection, space)
    centred = space.standardised(z) - space.standardised(z).mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(plane.xy), np.abs(u[:, :2] * s[:2]), atol=2e-3)
    assert f"{100 * s[0] ** 2 / (s**2).sum():.0f} %" in plane.told
