"""Explore: the codes of a folder or a table as a cloud of points, each with the picture that z alone gives.

Where they lie are the principal components that ``rdm codes map`` draws. A table says where its codes' files
are, and it is somebody else's: none of these files is read, for z is in the table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from rdm_cli.app.studio import Source, Studio, code_bytes
from rdm_cli.bundles.attribute_files import write_attribute_file
from rdm_cli.codes.code import Codes
from rdm_cli.collection.projection import pca_plane
from rdm_cli.collection.rows import Collection, require_bundle
from rdm_cli.collection.space import space_of_domain, space_of_rows
from rdm_cli.data.images.pixels import to_pil
from rdm_cli.data.io.places import Blob
from rdm_cli.data.sources.folders import CODE_SUFFIX
from rdm_cli.errors import UsageError
from rdm_cli.jobs.learning import learn_from_pictures
from rdm_cli.jobs.map import MappedRows, mapped_rows
from rdm_cli.kernels.randomness import keyed_generator
from rdm_cli.methods.transport import Transports
from rdm_cli.reports.map_page import quantised

MOST_POINTS = 20_000
MOST_EXAMPLES = 24  # of either side, of an attribute that is learned
LEAST_POINTS = 3
LONGEST_NAME = 100  # of a row that becomes a file


@dataclass(frozen=True, kw_only=True)
class LearnedFile:
    """The file of a learned attribute, as ``rdm attributes learn`` writes it; ``told`` is how good it is."""

    content: bytes
    told: str


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """N points: their ``rows``, ``z`` (N, d) float32, ``xy`` (N, 2) uint16, and a line of what is shown."""

    collection: Collection
    rows: MappedRows
    z: np.ndarray
    xy: np.ndarray
    told: str

    def picture(self, studio: Studio, number: int) -> Image.Image:
        """What z alone of a point shows, in one call of the network."""
        return to_pil(studio.draft(self._code(studio, number))[0].clamp(-1, 1))

    def source(self, studio: Studio, number: int) -> Source:
        """A point as a picture to edit: its file of the folder, or what the table has of it, z alone."""
        self._check(number)
        path = self.rows.paths[number]
        if self.collection.num_rows is None:
            return studio.open(Path(path), path)
        plain = (c if c.isprintable() and c not in "/\\" else "-" for c in self.rows.names[number])
        name = f"{''.join(plain)[:LONGEST_NAME]}{CODE_SUFFIX}"
        file = Blob(name, code_bytes(self._code(studio, number), f"row{CODE_SUFFIX}"))
        return replace(studio.open(file), first=(f"# save the code of this row as {name}",))

    def table(self, numbers: Sequence[int]) -> bytes:
        """Some points as CSV in UTF-8: name, path, x, y, and the probability of each attribute."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        names = list(self.rows.probabilities)
        writer.writerow(["name", "path", "x", "y", *names])
        for number in numbers:
            self._check(number)
            place = [self.rows.names[number], self.rows.paths[number], *self.xy[number].tolist()]
            writer.writerow(place + [f"{self.rows.probabilities[name][number]:.4f}" for name in names])
        return text.getvalue().encode("utf-8", "surrogatepass")

    def learned(self, studio: Studio, numbers: Sequence[int], name: str) -> LearnedFile:
        """What the chosen points have and the others lack, as an attribute ``name``: these against the rest.

        Of either side as many take part as a few pictures are, drawn at random. Raises UsageError for a name
        that cannot be, and for fewer than two on either side; and what learning raises.
        """
        if not name.isidentifier() or name in studio.names:
            hint = "take letters, digits and _, and none that the bundle has"
            raise UsageError(f"{name!r} cannot be the name of a new attribute", hint=hint)
        chosen = set(numbers)
        sides = ([i for i in range(len(self.z)) if (i in chosen) == value] for value in (True, False))
        bundle = studio.pipeline.bundle
        with TemporaryDirectory(prefix="rdm-app-") as made:
            for folder, side in zip(("with", "without"), sides, strict=True):
                (Path(made) / folder).mkdir()
                order = torch.randperm(len(side), generator=keyed_generator(0, folder))[:MOST_EXAMPLES]
                for i in order.tolist():
                    self._code(studio, side[i]).save([Path(made) / folder / f"{side[i]}{CODE_SUFFIX}"])
            having, without = Path(made) / "with", Path(made) / "without"
            done = learn_from_pictures(
                studio.pipeline, name, having, without=without, unlabelled=None, seed=0
            )
            place = Path(made) / f"{name}{CODE_SUFFIX}"
            beside = Transports(hidden={name: done.learned.companions})
            write_attribute_file(place, bundle, done.learned.directions, beside)
            content = place.read_bytes()
        told = f"{name}, of {done.num_with} and {done.num_without} codes: AUROC {done.learned.auroc}"
        if done.learned.nearest is not None:
            told += f"; goes with {done.learned.nearest} ({done.learned.agreement:+.2f})"
        if done.learned.is_chance:
            told += "; no better than by chance: choose more, or others"
        return LearnedFile(content=content, told=told)

    def _code(self, studio: Studio, number: int) -> Codes:
        self._check(number)
        z = torch.from_numpy(self.z[number]).reshape(1, *studio.pipeline.bundle.model.z_shape)
        return Codes(z=z, x_T=None, infos=(studio.pipeline.info(),))

    def _check(self, number: int) -> None:
        if not 0 <= number < len(self.z):
            raise UsageError(f"there are {len(self.z)} points")


def cloud_of(studio: Studio, collection: Collection, *, most: int = MOST_POINTS) -> Cloud:
    """A collection's codes, or ``most`` of them, drawn at random; CodeError for those of another bundle."""
    bundle = studio.pipeline.bundle
    require_bundle(collection, bundle.name, bundle.digest)
    domain = bundle.domain
    space = space_of_rows(collection) if domain is None else space_of_domain(domain, bundle.name)
    plane = pca_plane(collection, space)
    directions = bundle.directions if studio.names else None
    rows = mapped_rows(collection, len(plane.xy), directions, most=most, seed=0)
    parts, start = [], 0
    for some in collection.rows():
        inside = rows.numbers[(rows.numbers >= start) & (rows.numbers < start + len(some.z))]
        parts.append(some.z[inside - start])
        start += len(some.z)
    num, num_rows = len(rows.names), len(plane.xy)
    shown = f"{num:,} codes" if num == num_rows else f"{num:,} of {num_rows:,} codes, drawn at random"
    return Cloud(
        collection=collection,
        rows=rows,
        z=np.concatenate(parts),
        xy=quantised(plane.xy[rows.numbers]),
        told=f"{shown}; {plane.told}",
    )
