"""What does not belong into a collection: codes far from those of the training, and images that are lost.

Two questions before one trains on a collection:

- Which images are unlike those that the bundle knows? Those whose codes are farther from the training codes
than
  199 of 200 of these (:mod:`rdm_cli.methods.domain`).
- Which images does their code not bring back? Those whose recorded PSNR is lower than the median by more than
  three robust standard deviations (1.4826 times the median absolute deviation).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from rdm_cli.collection.nearest import Best, Hit
from rdm_cli.collection.rows import Collection
from rdm_cli.methods.domain import Domain, more_than_chance

ROBUST_STD = 1.4826  # of a Gaussian, in median absolute deviations
NUM_STD = 3.0
LEAST_MEASURED = 20  # below it a median says little of what is usual


@dataclass(frozen=True, kw_only=True)
class Odd:
    """``far`` are distances, ``lost`` PSNR in dB, of the oddest codes, the oddest first.

    ``num_far`` and ``num_lost`` count all that are beyond ``far_limit`` and below ``lost_limit``; a limit is
    None where it could not be drawn. ``num_measured`` codes record a PSNR. ``by_chance``: of training-like
    images as many would be far.
    """

    num_codes: int
    far: list[Hit]
    num_far: int
    far_limit: float | None
    by_chance: bool
    lost: list[Hit]
    num_lost: int
    lost_limit: float | None
    num_measured: int


def find_odd(
    collection: Collection,
    domain: Domain | None,
    num: int,
    advance: Callable[[float], None] = lambda amount: None,
) -> Odd:
    """The ``num`` oddest codes of each kind, in one pass over the collection."""
    far, worst = Best(num), Best(num)
    num_codes = num_far = 0
    measured: list[np.ndarray] = []
    for rows in collection.rows(["psnr_db"]):
        num_codes += len(rows.names)
        if domain is not None:
            distances = domain.distances(torch.from_numpy(rows.z)).numpy()
            is_far = distances > domain.limit
            num_far += int(is_far.sum())
            far.add(rows, np.where(is_far, distances, -np.inf))
        psnr_db = np.array([np.nan if one is None else one for one in rows.recorded["psnr_db"]], dtype=float)
        is_measured = np.isfinite(psnr_db)  # infinite where an image comes back to the bit
        measured.append(psnr_db[is_measured])
        worst.add(rows, np.where(is_measured, -psnr_db, -np.inf))
        advance(len(rows.names))
    values = np.concatenate([*measured, np.empty(0)])
    limit = lost_limit(values)
    return Odd(
        num_codes=num_codes,
        far=far.hits,
        num_far=num_far,
        far_limit=None if domain is None else domain.limit,
        by_chance=not (num_far and more_than_chance(num_far, num_codes)),
        lost=[
            Hit(name=hit.name, path=hit.path, score=-hit.score)
            for hit in worst.hits
            if limit is not None and -hit.score < limit
        ],
        num_lost=0 if limit is None else int((values < limit).sum()),
        lost_limit=limit,
        num_measured=len(values),
    )


def lost_limit(psnr_db: np.ndarray) -> float | None:
    """The PSNR below which an image counts as lost, of those (N,) of a collection; None for fewer than 20."""
    if len(psnr_db) < LEAST_MEASURED:
        return None
    median = float(np.median(psnr_db))
    return median - NUM_STD * ROBUST_STD * float(np.median(np.abs(psnr_db - median)))
