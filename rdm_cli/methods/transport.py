r"""Edits that take away all of an attribute: optimal transport between codes without it and codes with it.

A mean direction adds or removes the average pair of glasses. What a pair of one's own is like lies in
directions in which codes with glasses vary and codes without do not. Between two Gaussians, with the moments
of the codes on either side, the map that moves codes least is known (Dowson & Landau 1982; Gelbrich 1990):

    T(z) = m' + A (z - m),        A = S^-1/2 (S^1/2 S' S^1/2)^1/2 S^-1/2

It shrinks what only the one side has, and leaves what both have alike. A is symmetric and near 1, so its
``RANK`` eigenvectors farthest from 1 are kept. T is applied in part by going a share of the way, or beyond.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

RANK = 32
SHRINKAGE = 1e-4  # of the mean variance, added to each
LEAST_CODES = 2  # a side, for each value of a code


@dataclass(frozen=True, kw_only=True)
class Transport:
    """One change: ``mean_from`` and ``mean_to`` (d,), ``vectors`` (k, d) of A and their ``gains`` (k,)."""

    mean_from: Tensor
    mean_to: Tensor
    vectors: Tensor
    gains: Tensor

    def __post_init__(self) -> None:
        width, rank = len(self.mean_from), len(self.gains)
        if self.mean_to.shape != (width,) or self.vectors.shape != (rank, width):
            raise ValueError("a transport has means (d,), vectors (k, d) and gains (k,)")

    def moved(self, z: Tensor, amount: Tensor | float = 1.0) -> Tensor:
        """Codes ``z`` (N, d) moved the share ``amount`` of the way, one number or (N,); 1 is all of it."""
        deviation = z - self.mean_from.to(z)
        vectors, gains = self.vectors.to(z), self.gains.to(z)
        step = (self.mean_to - self.mean_from).to(z) + (deviation @ vectors.T * (gains - 1)) @ vectors
        return z + torch.as_tensor(amount).to(z).reshape(-1, 1) * step


def fit_transport(source: Tensor, target: Tensor, *, rank: int = RANK) -> Transport | None:
    """The map from codes ``source`` (N, d) to codes ``target`` (M, d); None where there are fewer than 2 d.

    The codes are those of two classes that differ in nothing else, as far as can be.
    """
    width = source.shape[1]
    if min(len(source), len(target)) < LEAST_CODES * width:
        return None
    source, target = source.double(), target.double()
    before, after = (_covariance(z) for z in (source, target))
    root, inverse = _powers(before)
    middle, _ = _powers(root @ after @ root)
    gains, vectors = torch.linalg.eigh(inverse @ middle @ inverse)
    kept = gains.log().abs().argsort(descending=True)[:rank]
    return Transport(
        mean_from=source.mean(dim=0).float(),
        mean_to=target.mean(dim=0).float(),
        vectors=vectors[:, kept].T.float().contiguous(),
        gains=gains[kept].float(),
    )


def _covariance(z: Tensor) -> Tensor:
    found = torch.cov(z.T).reshape(z.shape[1], z.shape[1])
    return found + SHRINKAGE * found.diagonal().mean() * torch.eye(len(found), dtype=found.dtype)


def _powers(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The square root of a positive matrix, and that one's inverse."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    roots = values.clamp(min=values.max() * 1e-12).sqrt()
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T


def exclusive(labels: Tensor, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Of each attribute the others that never come with it, though chance would have it ten times or more.

    ``labels`` (N, K) are positive, 0 or less, and NaN where unknown.
    """
    has, known = (labels > 0).double(), (~labels.isnan()).double()
    together = has.T @ has
    both_known = known.T @ known
    share = (has.T @ known / both_known.clamp(min=1)) * (known.T @ has / both_known.clamp(min=1))
    never = (together == 0) & (share * both_known >= 10)
    return {name: tuple(names[j] for j in never[i].nonzero()[:, 0].tolist()) for i, name in enumerate(names)}


def hidden(labels: Tensor, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Of each attribute the others that are known, but in none of the ten codes or more that have it."""
    has, known = labels > 0, ~labels.isnan()
    told = has.double().T @ known.double()  # (K, K)
    enough, elsewhere = has.sum(dim=0) >= 10, known.any(dim=0)
    never = (told == 0) & enough[:, None] & elsewhere
    return {name: tuple(names[j] for j in never[i].nonzero()[:, 0].tolist()) for i, name in enumerate(names)}


@dataclass(frozen=True, kw_only=True)
class Transports:
    """``maps`` by attribute and whether it is added.

    ``exclusive``: which others an attribute rules out, as glasses rule out sunglasses; ``hidden``: which
    nobody can tell where it is there, as a hat hides whether somebody is bald, or which come with it.
    """

    maps: Mapping[tuple[str, bool], Transport] = field(default_factory=dict)
    exclusive: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hidden: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def digest(self, name: str) -> str:
        """SHA-256 of the maps of an attribute, and of those that it rules out."""
        found = hashlib.sha256()
        for other in (name, *self.exclusive.get(name, ())):
            for value in (True, False):
                one = self.maps.get((other, value))
                parts = () if one is None else (one.mean_from, one.mean_to, one.vectors, one.gains)
                for part in parts:
                    found.update(part.float().numpy().tobytes())
        return found.hexdigest()

    def select(self, names: Mapping[str, str]) -> Transports:
        """Those of the attributes that ``names`` has, under the names that it gives.

        Others are not ruled out any more; what an attribute hides it hides wherever it is put.
        """
        return Transports(
            maps={(names[one], value): found for (one, value), found in self.maps.items() if one in names},
            exclusive={
                names[one]: tuple(names[other] for other in others if other in names)
                for one, others in self.exclusive.items()
                if one in names
            },
            hidden={
                names[one]: tuple(names.get(other, other) for other in others)
                for one, others in self.hidden.items()
                if one in names
            },
        )

    def updated(self, other: Transports) -> Transports:
        """These and ``other``'s, which replace those of the same attributes."""
        kept = {key: one for key, one in self.maps.items() if key[0] not in other.exclusive}
        return Transports(
            maps={**kept, **other.maps},
            exclusive={**self.exclusive, **other.exclusive},
            hidden={**self.hidden, **other.hidden},
        )


def fit_transports(z: Tensor, labels: Tensor, names: Sequence[str]) -> Transports:
    """A transport for each attribute to be added (True) and removed (False), where codes are enough for it.

    ``z`` (N, d), ``labels`` (N, K). Codes that have another attribute of the kind, sunglasses where glasses
    are meant, are on neither side; where that leaves too few, as with colours of hair, one of which all have,
    they stay.
    """
    others = exclusive(labels, names)
    found: dict[tuple[str, bool], Transport] = {}
    for k, name in enumerate(names):
        free = torch.ones(len(z), dtype=torch.bool)
        for other in others[name]:
            free &= ~(labels[:, names.index(other)] > 0)
        has, lacks = labels[:, k] > 0, labels[:, k] <= 0
        for value, source, target in ((True, lacks, has), (False, has, lacks)):
            made = fit_transport(z[source & free], z[target & free]) or fit_transport(z[source], z[target])
            if made is not None:
                found[name, value] = made
    return Transports(maps=found, exclusive=others, hidden=hidden(labels, names))
