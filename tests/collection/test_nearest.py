"""Exact search, in one pass: what it finds, and in how much memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rdm_cli.collection.nearest import (
    attribute_score,
    best_of,
    cosine_score,
    only_where,
    words_score,
)
from rdm_cli.collection.rows import open_collection
from rdm_cli.collection.space import space_of_domain, space_of_rows
from rdm_cli.collection.words import parse_words
from rdm_cli.errors import CodeError, RdmError, UsageError
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.domain import fit_domain

MakeTable = Callable[..., Path]


def codes(num: int = 10_000, width: int = 8) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (3 + rng.standard_normal((num, width)) * np.arange(1, width + 1)).astype(np.float32)


def test_the_nearest_are_those_of_the_whole_matrix(make_table: MakeTable) -> None:
    z = codes()
    collection = open_collection(make_table(z))
    space = space_of_rows(collection)
    np.testing.assert_allclose(space.z_mean, z.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(space.z_std, z.std(axis=0), rtol=1e-4)
    found = best_of(collection, 7, cosine_score(space, z[5:6]))
    standardised = (z - z.mean(axis=0)) / z.std(axis=0)
    directions = standardised / np.linalg.norm(standardised, axis=1, keepdims=True)
    order = np.argsort(-(directions @ directions[5]))[:7]
    assert [hit.name for hit in found.hits] == [f"{i:06d}" for i in order] and found.hits[0].name == "000005"
    assert found.num_codes == found.num_asked == len(z)


def test_planted_neighbours_come_first(make_table: MakeTable) -> None:
    z = codes()
    planted = [17, 4_999, 9_998]
    z[planted] = z[1] + 0.01
    collection = open_collection(make_table(z))
    found = best_of(collection, 4, cosine_score(space_of_rows(collection), z[1:2]))
    assert {hit.name for hit in found.hits} == {f"{i:06d}" for i in [1, *planted]}


def test_the_space_of_a_domain_is_that_of_its_codes() -> None:
    z = codes(2000)
    domain = fit_domain(torch.from_numpy(z))
    assert domain is not None
    space = space_of_domain(domain, "b")
    np.testing.assert_allclose(space.z_mean, z.mean(axis=0), atol=0.3)
    np.testing.assert_allclose(space.z_std, z.std(axis=0), rtol=0.06)


def directions() -> Directions:
    """``first`` and ``second``: the sign of a value of z."""
    return Directions(
        names=("first", "second"), weight=torch.eye(2, 8), bias=torch.zeros(2),
        z_mean=torch.zeros(8), z_std=torch.ones(8),
    )  # fmt: skip


def test_words_choose_and_attributes_compare(make_table: MakeTable) -> None:
    z = codes()
    collection = open_collection(make_table(z))
    holds = words_score(directions(), parse_words("first and not second"))
    found = best_of(collection, 5, only_where(holds, holds))
    score = np.minimum(z[:, 0], -z[:, 1])
    assert found.num_asked == (score >= 0).sum()
    assert [hit.name for hit in found.hits] == [f"{i:06d}" for i in np.argsort(-score)[:5]]
    near = best_of(collection, 5, attribute_score(directions(), ["second"], z[3:4]))
    assert [hit.name for hit in near.hits] == [f"{i:06d}" for i in np.argsort(abs(z[:, 1] - z[3, 1]))[:5]]
    with pytest.raises(UsageError, match="no attribute named 'firts'"):
        words_score(directions(), parse_words("firts"))


def test_a_search_needs_no_more_memory_for_more_codes(make_table: MakeTable) -> None:
    peaks = []
    for num in (20_000, 80_000):
        z = codes(num, 32)
        collection = open_collection(make_table(z, path=f"{num}.parquet"))
        space, query = space_of_rows(collection), z[:1].copy()
        del z
        tracemalloc.start()
        best_of(collection, 20, cosine_score(space, query))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 80_000 * 32 * 4


def test_of_a_table_only_a_part_is_in_memory(make_table: MakeTable) -> None:
    """Arrow's own memory, which Python does not see: of forty groups of rows it holds a few at a time."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = make_table(np.random.default_rng(0).normal(size=(40 * 2000, 64)))
    parquet.write_table(parquet.read_table(path), path, row_group_size=2000)
    before = arrow.total_allocated_bytes()
    held = [arrow.total_allocated_bytes() - before for _ in open_collection(path).rows()]
    assert len(held) > 5 and max(held) < 80_000 * 64 * 4 / 2  # buffered ahead it was nearly twice all of z


def test_codes_of_two_bundles_are_not_searched_together(make_table: MakeTable) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    paths = [make_table(codes(5), path=f"{d}.parquet", bundle_digest=d * 64) for d in "ab"]
    both = paths[0].with_name("both.parquet")
    pq.write_table(pa.concat_tables([pq.read_table(path) for path in paths]), both)
    with pytest.raises(CodeError, match="made with another bundle"):
        list(open_collection(both).rows())


def test_a_code_that_is_not_finite_is_named(make_table: MakeTable) -> None:
    z = codes(5)
    z[3, 2] = np.nan
    with pytest.raises(CodeError, match="z of 000003"):
        list(open_collection(make_table(z)).rows())


def test_what_is_no_table_of_codes_is_one_error(tmp_path: Path, make_table: MakeTable) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    good = pq.read_table(make_table(codes(3)))
    nested = pa.array([[["x"]]] * 3)
    for column, values, told in (
        ("z", pa.array([[1.0], [1.0, 2.0], [3.0]]), "no list of fixed length"),
        ("z", pa.array(["a", "b", "c"]), "no list of fixed length"),
        ("name", nested, "cannot be read"),
        ("name", pa.array(["a", None, "c"]), "a row has no name"),
        ("bundle_digest", nested, "cannot be read"),
        ("name", pa.array([b"a", b"\xff", b"c"]), "cannot be read"),
    ):
        path = tmp_path / "bad.parquet"
        pq.write_table(good.set_column(good.schema.get_field_index(column), column, values), path)
        with pytest.raises(RdmError, match=told):
            list(open_collection(path).rows())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UsageError, match="not a Parquet file"):
        open_collection(path)
    with pytest.raises(UsageError, match="no such file or folder"):
        open_collection(tmp_path / "gone.parquet")
