"""What is evaluated, and on what: open bundles under names of their own, and a folder of images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rdm_cli.codes.code import Codes
from rdm_cli.data.images.pixels import Fit, to_pixels, to_unit_range
from rdm_cli.data.io.places import digest_of
from rdm_cli.data.labels import LabelTable, Matched, match, read_labels, snake_case
from rdm_cli.data.sources.folders import Item, PassedOver, find_inputs
from rdm_cli.errors import BundleError, UsageError, setting
from rdm_cli.evaluation.figures import Scalar
from rdm_cli.methods.directions import Directions
from rdm_cli.metrics.intervals import SMALL_SAMPLE
from rdm_cli.pipeline.classes import given_conditions
from rdm_cli.pipeline.images import LoadedImage
from rdm_cli.pipeline.pipeline import Pipeline

TABLES = (
    "metadata.csv",
    "metadata.jsonl",
    "list_attr_celeba.txt",
    "list_attr_celeba.csv",
    "CelebAMask-HQ-attribute-anno.txt",
)
PLACES = (".", "Anno", "..", "../Anno")  # beside the images, or where CelebA's own folders have it
SHOWN = 8  # pictures in a row of a sheet


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An open bundle, and what tables call it."""

    name: str
    pipeline: Pipeline

    @property
    def facts(self) -> dict[str, Scalar]:
        """Which bundle this is."""
        bundle = self.pipeline.bundle
        shape = " x ".join(str(n) for n in bundle.model.z_shape) if bundle.has_z else "none"
        return {
            "method": bundle.method.title,
            "digest": bundle.digest,
            "image_size_px": bundle.model.image_size,
            "z": shape,
        }

    def movable(self, named: Sequence[str] | None) -> tuple[Directions | None, list[str]]:
        """The attributes along which its z moves; None and a line that says why where there are none.

        Raises UsageError for one of the ``named`` that it has not.
        """
        bundle = self.pipeline.bundle
        if not bundle.has_z:
            return None, [f"{self.name}: a plain DPM has no z to move"]
        try:
            directions = bundle.directions
        except BundleError as error:
            return None, [str(error)]
        for name in named or ():
            directions.index(name)
        return directions, []


def subjects(specs: Sequence[str], pipelines: Sequence[Pipeline]) -> list[Subject]:
    """Each of ``pipelines`` by its bundle's name or, where two share one, by the user's word for it.

    Raises UsageError for a bundle that is named twice.
    """
    if len(set(specs)) < len(specs):
        twice = next(spec for spec in specs if list(specs).count(spec) > 1)
        raise UsageError(f"{twice}: this bundle is named twice")
    names = [pipeline.bundle.name for pipeline in pipelines]
    return [
        Subject(name=spec if names.count(name) > 1 else name, pipeline=pipeline)
        for spec, name, pipeline in zip(specs, names, pipelines, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Answers ``values`` (N, K) for N images, 1 or 0 and NaN where unknown; ``table`` is where they stand."""

    names: tuple[str, ...]
    values: Tensor
    table: Path

    def only(self, names: Sequence[str]) -> Labels:
        """These attributes, in this order; raises UsageError for one that the table does not have."""
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise UsageError(
                f"{self.table}: no attribute named '{unknown[0]}'", hint=f"known: {', '.join(self.names)}"
            )
        chosen = [self.names.index(name) for name in names]
        return Labels(names=tuple(names), values=self.values[:, chosen], table=self.table)


@dataclass(frozen=True, kw_only=True)
class Material:
    """Images of a folder, in order, and their labels where those were asked for.

    ``passed_over`` counts what lies there and is no image to measure by; ``notes`` say what of folder and
    label table was passed over.
    """

    folder: Path
    items: tuple[Item[Path], ...]
    fit: Fit = "crop"
    labels: Labels | None = None
    passed_over: PassedOver = field(default_factory=PassedOver)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def images(self, pipeline: Pipeline) -> Tensor:
        """The images as ``pipeline``'s bundle takes them, (N, *image_shape) in [-1, 1]; raises ImageError."""
        return pipeline.load_images([item.source for item in self.items], self.fit)

    def encoded(self, pipeline: Pipeline, x_0: Tensor, **how: Any) -> Codes:
        """The codes of the images, which :meth:`images` gave as ``x_0``; ``how`` is as in encode."""
        given = [pipeline.given_of(item.source) for item in self.items]
        images = [LoadedImage(x_0=x, record=record) for x, record in zip(x_0, given, strict=True)]
        return pipeline.encode(images, **how)

    def given(self, pipeline: Pipeline) -> dict[str, Tensor]:
        """The conditions of the images that are given by name, (N,) each; {} for most bundles."""
        infos = [pipeline.info(**pipeline.given_of(item.source)) for item in self.items]
        return given_conditions(pipeline.bundle, infos)

    def select(self, rows: Sequence[int]) -> Material:
        """Some of the images, in the order of ``rows``, with their labels."""
        labels = self.labels
        if labels is not None:
            labels = replace(labels, values=labels.values[list(rows)])
        return replace(self, items=tuple(self.items[i] for i in rows), labels=labels)

    def known(self) -> Labels:
        """The labels, which must have been gathered."""
        assert self.labels is not None, "gather() was not asked for labels"
        return self.labels

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every image's name and file: the same images have the same one."""
        found = hashlib.sha256()
        for item in self.items:
            found.update(f"{item.relative.as_posix()}\n{digest_of(item.source)}\n".encode())
        return found.hexdigest()

    @property
    def facts(self) -> dict[str, Scalar]:
        """Which images these are."""
        facts: dict[str, Scalar] = {
            "data": self.folder.name or str(self.folder),
            "num_images": len(self),
            "data_sha256": self.digest,
            "fit": self.fit,
        }
        return facts | ({} if self.labels is None else {"labels": self.labels.table.name})


def gather(folder: Path, num: int | None, fit: Fit = "crop") -> Material:
    """The first ``num`` images of ``folder`` (None: all); raises UsageError where there are none."""
    passed_over = PassedOver()
    items = find_inputs([folder], passed_over=passed_over)
    return Material(folder=folder, items=tuple(items[:num]), fit=fit, passed_over=passed_over)


def gather_labelled(
    folder: Path,
    num: int | None,
    fit: Fit = "crop",
    *,
    table: Path | None,
    names: Sequence[str] | None,
    purpose: str,
) -> Material:
    """The first ``num`` images of ``folder`` that a label table knows, with their answers to ``names``.

    ``table`` None looks for one beside the images; ``names`` None takes all. Raises UsageError, saying that
    ``purpose`` needs labels, where there are none.
    """
    passed_over = PassedOver()
    items = find_inputs([folder], passed_over=passed_over)
    path = table or _find_table(folder)
    if path is None:
        raise UsageError(
            f"{folder}: no labels, and {purpose} needs some",
            hint=f"name a table with {setting('labels')}; looked for {', '.join(TABLES)}",
        )
    read = read_labels(path)
    called, matched = _match(read, path, folder, [item.relative.as_posix() for item in items])
    missing = set(matched.unmatched)
    rows = [i for i, name in enumerate(called) if name not in missing][:num]
    if not rows:
        raise UsageError(
            f"{path}: knows none of the images in {folder}",
            hint=f"the first image is called {called[0]}, the first row {read.files[0]}; "
            f"name another table: {setting('labels')}",
        )
    skipped = {snake_case(column): reason for column, reason in read.skipped.items()}
    for name in names or ():
        if name in skipped:
            raise UsageError(f"{path}: {name} is no label: {skipped[name]}")
    labels = Labels(names=read.names, values=matched.values[rows], table=path)
    return Material(
        folder=folder,
        items=tuple(items[i] for i in rows),
        fit=fit,
        labels=labels.only(names) if names else labels,
        passed_over=passed_over,
        notes=tuple(f"{path.name}: {note}" for note in [*matched.remarks("images"), *read.remarks]),
    )


def _match(table: LabelTable, path: Path, folder: Path, names: list[str]) -> tuple[list[str], Matched]:
    """What images called ``names`` within ``folder`` are called for the table, and the rows found for them.

    A table's paths start at its own folder, or at the one that the user named. Where the table lies above the
    images it is known which folder each is in, and the file's name alone is no reason to take it for another.
    """
    base, root = path.parent.resolve(), folder.resolve()
    if not root.is_relative_to(base):
        return names, match(table, names)
    called = [(root.relative_to(base) / name).as_posix() for name in names]
    matched = match(table, called, by_stem=root == base)
    if len(matched.unmatched) == len(called):
        second = match(table, names, by_stem=False)
        if len(second.unmatched) < len(names):
            return names, second
    return called, matched


def _find_table(folder: Path) -> Path | None:
    candidates = (folder / place / name for place in PLACES for name in TABLES)
    return next((path.resolve() for path in candidates if path.is_file()), None)


def as_rgb(x: Tensor) -> Tensor:
    """Images (N, 1 or 3, H, W) as colour ones, which is what feature networks take."""
    return x.expand(-1, 3, -1, -1)


def as_stored(x: Tensor) -> Tensor:
    """``x`` in [-1, 1] rounded to the 256 levels that a file would hold."""
    return to_unit_range(to_pixels(x))


def common_settings(material: Material, *, seed: int, precision: str, **more: Scalar) -> Mapping[str, Scalar]:
    """What all figures of an evaluation share."""
    return {
        **material.facts,
        "seed": seed,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "intervals": "95 %, bootstrap over images (Efron & Tibshirani 1993); "
        f"means of fewer than {SMALL_SAMPLE} values by Student's t",
        **more,
    }
