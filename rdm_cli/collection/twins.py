"""Near duplicates: groups of codes that point almost the same way in standardised z.

Two codes are twins where their cosine is at least a threshold. A group is all that hangs together by twins,
so its first and last need not be twins themselves. Every pair is looked at, in blocks: time grows with the
square of the number of codes, memory with the number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rdm_cli.collection.rows import Collection
from rdm_cli.collection.space import Space

BLOCK = 2048


@dataclass(frozen=True, kw_only=True)
class Twin:
    """One code of a group, and its greatest cosine with another of it.

    ``same_file``: another of the group was made from a file of the same bytes.
    """

    name: str
    path: str
    cosine: float
    same_file: bool


def find_twins(
    collection: Collection,
    space: Space,
    threshold: float,
    advance: Callable[[float], None] = lambda amount: None,
) -> list[list[Twin]]:
    """Groups of two codes or more, the largest first, each in the collection's order."""
    names: list[str] = []
    paths: list[str] = []
    digests: list[str | None] = []
    parts = []
    for rows in collection.rows(["source_digest"]):
        names += rows.names
        paths += rows.paths
        digests += rows.recorded["source_digest"]
        parts.append(space.unit(rows.z))
    directions = np.concatenate([*parts, np.empty((0, collection.width), dtype=np.float32)])
    del parts
    groups = _Groups(len(names))
    nearest = np.full(len(names), -1.0, dtype=np.float32)
    for start in range(0, len(names), BLOCK):
        some = directions[start : start + BLOCK]
        for other in range(start, len(names), BLOCK):
            cosines = some @ directions[other : other + BLOCK].T
            first, second = np.nonzero(cosines >= threshold)
            apart = first + start < second + other  # each pair once, and none with itself
            found = cosines[first[apart], second[apart]]
            for i, j, cosine in zip(first[apart] + start, second[apart] + other, found, strict=True):
                groups.join(int(i), int(j))
                nearest[[i, j]] = np.maximum(nearest[[i, j]], cosine)
        advance(len(some))
    told = []
    for members in groups.of_several():
        same = [digests[i] for i in members]
        told.append(
            [
                Twin(
                    name=names[i],
                    path=paths[i],
                    cosine=min(1.0, float(nearest[i])),
                    same_file=digests[i] is not None and same.count(digests[i]) > 1,
                )
                for i in members
            ]
        )
    return sorted(told, key=lambda group: -len(group))


class _Groups:
    """Which of N things hang together (union-find)."""

    def __init__(self, num: int) -> None:
        self._parent = list(range(num))

    def join(self, i: int, j: int) -> None:
        first, second = sorted((self._root(i), self._root(j)))
        self._parent[second] = first

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def of_several(self) -> list[list[int]]:
        """The groups of two or more, in the order of their first members."""
        found: dict[int, list[int]] = {}
        for i in range(len(self._parent)):
            found.setdefault(self._root(i), []).append(i)
        return [members for members in found.values() if len(members) > 1]
