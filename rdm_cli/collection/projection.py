r"""A collection in two dimensions: by its principal components, or by UMAP.

Principal components are those of standardised z: x and y are where codes differ most, distances far apart
mean something, and half of the collection's variation may be in neither. UMAP (McInnes et al. 2018, arXiv
1802.03426) keeps who is beside whom by the cosine of standardised z; its gaps and sizes mean little.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rdm_cli.collection.rows import Collection
from rdm_cli.collection.space import Space
from rdm_cli.data.io.optional import optional_module
from rdm_cli.errors import UsageError

LEAST_OF_UMAP = 16  # codes: it asks for 15 neighbours of each


@dataclass(frozen=True, kw_only=True)
class Plane:
    """``xy`` (N, 2) float32 in the collection's order, ``by`` what (pca, umap), and a line about it."""

    xy: np.ndarray
    by: str
    told: str


def pca_plane(
    collection: Collection, space: Space, advance: Callable[[float], None] = lambda amount: None
) -> Plane:
    """The first two principal components of standardised z, in two passes; more than two codes are needed."""
    count, total, products = 0, np.zeros(collection.width), np.zeros((collection.width,) * 2)
    for rows in collection.rows():
        z = space.standardised(rows.z).astype(np.float64)
        count, total, products = count + len(z), total + z.sum(axis=0), products + z.T @ z
        advance(len(z) / 2)
    if count < 3 or collection.width < 2:
        raise UsageError(f"{collection.place}: a map needs three codes or more, of two values or more")
    mean = total / count
    values, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    axes = vectors[:, [-1, -2]]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])  # which way is up is nobody's choice
    parts = []
    for rows in collection.rows():
        parts.append((space.standardised(rows.z) - mean) @ axes)
        advance(len(rows.names) / 2)
    values = values.clip(min=0)
    share = 100 * values[[-1, -2]] / max(values.sum(), np.finfo(float).tiny)
    return Plane(
        xy=np.concatenate(parts).astype(np.float32),
        by="pca",
        told=f"two principal components, which hold {share[0]:.0f} % and {share[1]:.0f} % of the variation",
    )


def umap_plane(
    collection: Collection, space: Space, seed: int, advance: Callable[[float], None] = lambda amount: None
) -> Plane:
    """UMAP of the cosine of standardised z, which has to fit into memory; the same for the same ``seed``."""
    umap = optional_module("umap", package="umap-learn", purpose="a map by UMAP", extra="map")
    parts = []
    for rows in collection.rows():
        parts.append(space.unit(rows.z))
        advance(len(rows.names))
    directions = np.concatenate(parts)
    if len(directions) < LEAST_OF_UMAP:
        raise UsageError(
            f"{collection.place}: UMAP needs {LEAST_OF_UMAP} codes or more", hint="use the layout pca"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed means one thread, and the like
        xy = umap.UMAP(metric="cosine", random_state=seed).fit_transform(directions)
    return Plane(
        xy=np.asarray(xy, dtype=np.float32),
        by="umap",
        told="UMAP of the cosines: neighbours are alike, distances between groups mean little",
    )
