"""The codes of a collection that come first by a score, in one pass and little memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from rdm_cli.collection.rows import Collection, Rows
from rdm_cli.collection.space import Space, unit
from rdm_cli.collection.words import Words, logit, names_in
from rdm_cli.methods.directions import Directions

Score = Callable[[np.ndarray], np.ndarray]
"""A score of each of N codes, (N,), from their z (N, d): the greatest is best."""


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A code that was found, and its score."""

    name: str
    path: str
    score: float


class Best:
    """The ``num`` rows of the greatest scores among those that were added; of equal scores, the earlier."""

    def __init__(self, num: int) -> None:
        self._num = num
        self._hits: list[Hit] = []

    def add(self, rows: Rows, scores: np.ndarray) -> None:
        """Take in rows with their ``scores`` (N,); those of minus infinity are left out."""
        order = np.argsort(-scores, kind="stable")[: self._num]
        self._hits += [
            Hit(name=rows.names[i], path=rows.paths[i], score=float(scores[i]))
            for i in order
            if scores[i] > -np.inf
        ]
        self._hits.sort(key=lambda hit: -hit.score)  # stable: earlier rows stay first
        del self._hits[self._num :]

    @property
    def hits(self) -> list[Hit]:
        """The best first."""
        return list(self._hits)


@dataclass(frozen=True, kw_only=True)
class Found:
    """The best ``hits``, the best first; ``num_asked`` codes had a score, of ``num_codes``."""

    hits: list[Hit]
    num_asked: int
    num_codes: int


def best_of(
    collection: Collection, num: int, score: Score, advance: Callable[[float], None] = lambda amount: None
) -> Found:
    """The ``num`` codes of the greatest ``score``; those of minus infinity have none."""
    best, num_asked, num_codes = Best(num), 0, 0
    for rows in collection.rows():
        scores = score(rows.z)
        best.add(rows, scores)
        num_asked += int((scores > -np.inf).sum())
        num_codes += len(scores)
        advance(len(scores))
    return Found(hits=best.hits, num_asked=num_asked, num_codes=num_codes)


def cosine_score(space: Space, queries: np.ndarray) -> Score:
    """The cosine with what the codes ``queries`` (Q, d) have in common: the mean of their directions."""
    query = mean_direction(space, queries)
    return lambda z: space.unit(z) @ query


def mean_direction(space: Space, queries: np.ndarray) -> np.ndarray:
    """The mean (d,) of the directions of ``queries`` (Q, d) in standardised z, with length 1."""
    found: np.ndarray = unit(space.unit(queries).mean(axis=0, keepdims=True))[0]
    return found


def attribute_score(directions: Directions, names: list[str], queries: np.ndarray) -> Score:
    """How near codes are to ``queries`` (Q, d) in some attributes alone: minus the distance of their logits.

    The logits of the classifiers of ``names`` are a code's place; that of the queries is their mean. Raises
    UsageError for an unknown name.
    """
    rows = [directions.index(name) for name in names]
    query = _logits(directions, queries)[:, rows].mean(axis=0)

    def score(z: np.ndarray) -> np.ndarray:
        return -np.linalg.norm(_logits(directions, z)[:, rows] - query, axis=1)

    return score


def words_score(directions: Directions, words: Words) -> Score:
    """The logit of ``words``. Raises UsageError for an attribute that is unknown."""
    rows = {name: directions.index(name) for name in names_in(words)}

    def score(z: np.ndarray) -> np.ndarray:
        logits = _logits(directions, z)
        return logit(words, {name: logits[:, row] for name, row in rows.items()})

    return score


def only_where(holds: Score, score: Score) -> Score:
    """``score`` of the codes for which the logit ``holds`` is at least 0; minus infinity for the others."""
    return lambda z: np.where(holds(z) >= 0, score(z), -np.inf)


def _logits(directions: Directions, z: np.ndarray) -> np.ndarray:
    found: np.ndarray = directions.logits(torch.from_numpy(np.ascontiguousarray(z))).numpy()
    return found
