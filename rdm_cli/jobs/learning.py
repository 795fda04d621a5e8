"""Attributes from a few pictures, and directions found in codes without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rdm_cli.data.images.pixels import to_pil
from rdm_cli.data.images.record import new_record, save_image
from rdm_cli.data.images.sheet import TILE, Tile, enlarged, lay_out
from rdm_cli.errors import RdmError, UsageError
from rdm_cli.jobs.conditional import FolderCodes, folder_codes
from rdm_cli.kernels.randomness import keyed_generator
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.domain import fit_domain
from rdm_cli.methods.few_pictures import NUM_POPULATION, Learned, learn_attribute
from rdm_cli.pipeline.editing import LOGIT
from rdm_cli.pipeline.pipeline import Pipeline

COLUMNS = {"without": -LOGIT, "less": -LOGIT / 2, "as it is": None, "more": LOGIT / 2, "with": LOGIT}
"""A sheet's columns, with the logit that the direction's classifier gives there."""


@dataclass(frozen=True, kw_only=True)
class LearnedFrom:
    """``learned`` from so many pictures; ``remarks`` say what was passed over and what is missing."""

    learned: Learned
    num_with: int
    num_without: int
    remarks: tuple[str, ...]


def learn_from_pictures(
    pipeline: Pipeline, name: str, having: Path, *, without: Path | None, unlabelled: Path | None, seed: int
) -> LearnedFrom:
    """The attribute ``name`` of the pictures and codes below ``having``.

    Those below ``without`` lack it, of those below ``unlabelled`` nothing is known; one of the two is given.
    Raises UsageError for fewer than two pictures on either side, and for one that is on both.
    """
    bundle = pipeline.bundle
    bundle.require_one_z("attributes")
    others_place = without or unlabelled
    assert others_place is not None
    ours, others = folder_codes(pipeline, having), folder_codes(pipeline, others_place)
    _refuse_on_both(ours, others, having, others_place)
    population = pipeline.sample_z([f"population {i}" for i in range(NUM_POPULATION)], seed=seed).flatten(1)
    domain = bundle.domain or fit_domain(population, seed=seed)
    if domain is None:
        raise RdmError(f"{bundle.name}: codes of {bundle.z_width} values are too long to learn from pictures")
    known = bundle.attributes[0]
    learned = learn_attribute(
        name,
        ours.z,
        others.z,
        population=population,
        domain=domain,
        candidates=candidates(known, bundle.concepts),
        num_known=0 if known is None else len(known.names),
        unlabelled=without is None,
        seed=seed,
    )
    sides = ((having, ours), (others_place, others))
    remarks = [f"{place}: {side.passed_over}" for place, side in sides if side.passed_over]
    if bundle.concepts is None:
        remarks.append(
            f"{bundle.name}: nobody has looked for concepts in its codes, so a few pictures say little; "
            "rdm attributes discover CODES --keep finds some"
        )
    return LearnedFrom(
        learned=learned, num_with=len(ours.z), num_without=len(others.z), remarks=tuple(remarks)
    )


def candidates(known: Directions | None, concepts: Directions | None) -> Directions | None:
    """What may explain pictures: attributes with names, then concepts; None without concepts.

    The attributes alone explain ten pictures by chance more often than not, and worse than these themselves.
    """
    if concepts is None or known is None or not known.names:
        return concepts
    clash = {name: f"{name} (found)" if name in known.names else name for name in concepts.names}
    return known.updated(concepts.select(clash))


def _refuse_on_both(ours: FolderCodes, others: FolderCodes, having: Path, beside: Path) -> None:
    """Raise UsageError where a picture is among those with it and those without."""
    same = (ours.z.flatten(1)[:, None] == others.z.flatten(1)[None]).all(dim=2)
    if same.any():
        raise UsageError(
            f"{int(same.any(dim=1).sum())} of the pictures in {having} are in {beside} as well",
            hint="give each picture one answer",
        )


def write_sheets(
    pipeline: Pipeline,
    found: Directions,
    z: Tensor,
    folder: Path,
    *,
    num_faces: int = 4,
    steps: int | None = None,
    tile: int = TILE // 2,
    seed: int = 0,
    advance: Callable[[float], None] = lambda share: None,
) -> Iterator[tuple[str, Path]]:
    """Write a sheet of pictures a direction into ``folder``, and yield its name and place.

    ``num_faces`` of the codes ``z`` (N, ...), a row each, are moved from lacking it to having it.
    """
    rows = torch.randperm(len(z), generator=keyed_generator(seed, "sheets"))[:num_faces].tolist()
    faces = z[rows].reshape(len(rows), *pipeline.bundle.model.z_shape)
    for name in found.names:
        columns = [_at_least(found, faces, name, logit) for logit in COLUMNS.values()]
        keys = list(range(len(rows))) * len(COLUMNS)  # a face keeps its x_T
        codes = pipeline.drawn(torch.cat(columns), keys, seed=seed)
        pictures = [to_pil(one) for one in pipeline.decode(codes, steps=steps)]
        tiles = [Tile(enlarged(picture, tile)) for picture in pictures]
        sheet = lay_out([tiles[i :: len(rows)] for i in range(len(rows))], title=name, heads=list(COLUMNS))
        place = folder / f"{name}.png"
        save_image(
            sheet, place, new_record("direction", bundle=pipeline.bundle.name, direction=name, seed=seed)
        )
        advance(1)
        yield name, place


def _at_least(found: Directions, z: Tensor, name: str, logit: float | None) -> Tensor:
    """Codes ``z`` (N, ...) moved along ``name`` to ``logit``; those that are beyond it, or None, stay."""
    if logit is None:
        return z
    beyond = found.logits(z)[:, found.index(name)] / logit >= 1
    moved = found.reached(z.flatten(1), name, logit)
    return torch.where(beyond[:, None], z.flatten(1), moved).reshape(z.shape)
