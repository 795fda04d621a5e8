r"""In which space codes are compared.

    norm(z) = (z - z_mean) / z_std,        cosine(a, b) = norm(a) . norm(b) / (|norm(a)| |norm(b)|)

Dimensions of z have spreads that differ, and a mean far from 0 that all codes share: cosines of z itself
are near 1 for any two faces. Mean and spread are those of the bundle's training codes, where it has a
domain (:mod:`rdm_cli.methods.domain`), or else those of the collection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from rdm_cli.collection.rows import Collection
from rdm_cli.methods.domain import Domain


@dataclass(frozen=True, kw_only=True)
class Space:
    """``z_mean`` and ``z_std`` (d,) float32, and ``origin``, words that say whose they are."""

    z_mean: np.ndarray
    z_std: np.ndarray
    origin: str

    def standardised(self, z: np.ndarray) -> np.ndarray:
        """norm(z) (N, d) float32 of ``z`` (N, d)."""
        found: np.ndarray = ((z - self.z_mean) / self.z_std).astype(np.float32)
        return found

    def unit(self, z: np.ndarray) -> np.ndarray:
        """norm(z) with length 1, (N, d) float32: the cosine of two codes is the product of theirs."""
        return unit(self.standardised(z))


def unit(vectors: np.ndarray) -> np.ndarray:
    """``vectors`` (N, d) with length 1; one of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: np.ndarray = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return found


def space_of_domain(domain: Domain, bundle: str) -> Space:
    """Mean and spread of a bundle's training codes: the diagonal of its domain's covariance."""
    whitening = domain.whitening.double()
    covariance = torch.linalg.inv(whitening @ whitening.T)
    return Space(
        z_mean=domain.mean.numpy(),
        z_std=covariance.diagonal().clamp(min=0).sqrt().float().numpy(),
        origin=f"training codes of {bundle}",
    )


def space_of_rows(collection: Collection) -> Space:
    """Mean and spread of the collection itself, in one pass; a dimension that never varies has spread 1."""
    count, total, squares = 0, np.zeros(collection.width), np.zeros(collection.width)
    shift: np.ndarray | None = None
    for rows in collection.rows():
        shift = rows.z.mean(axis=0, dtype=np.float64) if shift is None else shift  # squares stay small
        deviation = rows.z - shift
        count += len(deviation)
        total += deviation.sum(axis=0)
        squares += (deviation**2).sum(axis=0)
    mean = total / max(1, count)
    z_std = np.sqrt(np.maximum(squares / max(1, count) - mean**2, 0.0))
    z_mean = mean if shift is None else mean + shift
    return Space(
        z_mean=z_mean.astype(np.float32),
        z_std=np.where(z_std > 1e-6, z_std, 1.0).astype(np.float32),
        origin=f"the codes of {collection.place.name}",
    )
