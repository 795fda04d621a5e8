"""Faces of which one attribute was moved and nothing else, as pictures that are kept in files.

An edit does not depend on who looks at it: what is made here once serves every classifier that is asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from rdm_cli.data.images.pixels import to_pixels
from rdm_cli.data.images.record import HINT
from rdm_cli.data.io.tensor_files import read_with_metadata, write_tensors
from rdm_cli.errors import OccupiedError
from rdm_cli.escapes import file_name
from rdm_cli.evaluation.material import Material
from rdm_cli.kernels.randomness import keyed_generator
from rdm_cli.methods.directions import Directions
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.pipeline.running import ignore_progress

AT_ONCE = 32  # faces
KEY = "rdm"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What became of N faces when the attribute ``name`` was moved.

    ``rows`` (N,) are the images' numbers; ``added`` (N,), bool: it was added, or taken away. ``before`` and
    ``after`` are pictures, uint8 (N, C, H, W). ``holds`` (N,): the edited picture shows what was wanted;
    ``kept`` (N,): nothing else that the bundle's classifiers know has changed.
    """

    name: str
    rows: Tensor
    added: Tensor
    before: Tensor
    after: Tensor
    holds: Tensor
    kept: Tensor

    @property
    def file_name(self) -> str:
        """What files about it are called, without a suffix."""
        return file_name(self.name)

    @property
    def alone(self) -> Tensor:
        """Which faces count, bool (N,): the attribute was moved, and nothing else."""
        return self.holds & self.kept


@dataclass(frozen=True, kw_only=True)
class MovedFaces:
    """Moves attributes of the images of ``material``: of ``num`` faces each, half to either side if it can.

    Files go below ``folder``, one an attribute; with None nothing is kept.
    """

    pipeline: Pipeline
    material: Material
    num: int
    seed: int = 0
    folder: Path | None = None

    @cached_property
    def z(self) -> Tensor:
        """z of all images, (N, d)."""
        paths = [item.source for item in self.material.items]
        return self.pipeline.encode(paths, fit=self.material.fit, with_x_T=False).z.flatten(1)

    def place(self, name: str) -> Path | None:
        """Where the pictures of ``name`` are kept."""
        return None if self.folder is None else self.folder / f"{file_name(name)}.safetensors"

    def moved(
        self,
        name: str,
        concepts: Directions | None = None,
        *,
        advance: Callable[[float], None] = ignore_progress,
    ) -> Moved:
        """The faces with the attribute ``name`` moved, or the concept, where ``concepts`` are given.

        ``advance`` is told of each face. Raises OccupiedError where another file is in the place of the
        pictures, and what :meth:`Pipeline.edit` raises.
        """
        place, known = self.place(name), self.pipeline.bundle.directions
        told = json.dumps(self._key(name, known if concepts is None else concepts), sort_keys=True)
        if place is not None and place.exists() and (found := _kept_at(place, name, told)) is not None:
            advance(len(found.rows))
            return found
        made = self._made(name, concepts, advance)
        if place is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            tensors = {key: value for key, value in vars(made).items() if key != "name"}
            write_tensors(place, tensors, {KEY: told})
        return made

    def _key(self, name: str, directions: Directions) -> dict[str, object]:
        """All on which the pictures depend."""
        return {
            "format": FORMAT,
            "name": name,
            "bundle_digest": self.pipeline.bundle.digest,
            "direction_digest": directions.digest(name),
            "images": self.material.digest,
            "fit": self.material.fit,
            "num": self.num,
            "seed": self.seed,
            "precision": self.pipeline.precision,
        }

    def _made(self, name: str, concepts: Directions | None, advance: Callable[[float], None]) -> Moved:
        pipeline, keep = self.pipeline, None
        if concepts is not None:
            keep = list(pipeline.bundle.directions.names)
            pipeline = pipeline.with_attributes(concepts.select({name: name}))
        parts: list[Moved] = []
        for value, rows in zip((True, False), self._chosen(name, pipeline), strict=True):
            for some in rows.split(AT_ONCE) if len(rows) else ():
                chosen = self.material.select(some.tolist())
                paths = [item.source for item in chosen.items]
                codes = pipeline.encode(paths, fit=chosen.fit)
                done = pipeline.edit(codes, {name: value}, keep=keep, seed=self.seed)
                parts.append(
                    Moved(
                        name=name,
                        rows=some,
                        added=torch.full((len(some),), value),
                        before=to_pixels(done.start.cpu()),
                        after=to_pixels(done.pictures.cpu()),
                        holds=done.holds.cpu(),
                        kept=done.kept.cpu(),
                    )
                )
                advance(len(some))
        if not parts:
            empty, none = torch.zeros(0, *pipeline.bundle.model.image_shape).byte(), torch.zeros(0).bool()
            return Moved(
                name=name, rows=torch.zeros(0).long(), added=none, before=empty, after=empty,
                holds=none, kept=none,
            )  # fmt: skip
        names = (key for key in vars(parts[0]) if key != "name")
        return Moved(name=name, **{key: torch.cat([getattr(part, key) for part in parts]) for key in names})

    def _chosen(self, name: str, pipeline: Pipeline) -> tuple[Tensor, Tensor]:
        """The faces to which ``name`` is added, and those from which it is taken.

        None on which it is hidden; and of those that lack it, first the ones that show nothing it would
        replace, so that it is moved alone.
        """
        directions, transports = pipeline.bundle.directions, pipeline.bundle.transports
        shows = directions.logits(self.z) > 0
        hiders = [directions.index(one) for one, names in transports.hidden.items() if name in names]
        replaced = [directions.index(one) for one in transports.exclusive.get(name, ())]
        order = torch.randperm(len(self.z), generator=keyed_generator(self.seed, "moved", name))
        order = order[~shows[order][:, hiders].any(dim=1)]
        has = shows[order, directions.index(name)]
        lacking, having = order[~has], order[has]
        lacking = lacking[shows[lacking][:, replaced].any(dim=1).long().argsort(stable=True)]
        half = self.num // 2
        return (
            lacking[: max(half, self.num - len(having))],
            having[: max(self.num - half, self.num - len(lacking))],
        )


def _kept_at(place: Path, name: str, told: str) -> Moved | None:
    """What the file holds; None where it is of other images or another bundle, and may be replaced."""
    try:
        metadata, tensors = read_with_metadata(place)
    except ValueError:
        metadata, tensors = {}, {}
    if KEY not in metadata:
        raise OccupiedError(f"{place}: is there already, and rdm did not make it", hint=HINT)
    return Moved(name=name, **tensors) if metadata[KEY] == told else None
