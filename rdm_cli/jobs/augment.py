r"""Counterfactual pictures beside labelled images, so that attributes say nothing of the label any more.

Images are counted in cells: one for each label y and each combination c of the attributes to balance, as the
bundle's classifiers read them in z. Of either label, cells are filled up with edited images of the same label
until the combinations have the same shares:

    q(c) = max_y P(c | y) / sum_c max_y P(c | y),        n'(y, c) = q(c) max_c n(y, c) / q(c)

so no image is left out, cells that agree already stay as they are, and no more pictures are made than that
takes. Where 95 % of one label have an attribute and 5 % of the other, half of both have it then.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rdm_cli.data.images.pixels import Fit, to_pil
from rdm_cli.data.images.record import as_text, new_record, refuse_other, save_image
from rdm_cli.data.io.json_text import parse_object
from rdm_cli.data.io.places import digest_of, put
from rdm_cli.data.labels import LabelTable, match_below, read_labels
from rdm_cli.data.sources.folders import Item, PassedOver, find_inputs
from rdm_cli.errors import OccupiedError, UsageError
from rdm_cli.escapes import file_name
from rdm_cli.kernels.randomness import keyed_generator
from rdm_cli.pipeline.editing import untold
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.pipeline.running import ignore_progress
from rdm_cli.reports.html_page import png_bytes

TABLE, LEFT_OUT = "metadata.csv", "left-out.jsonl"
OF, EDITS = "counterfactual_of", "edits"
"""Columns: the image that a picture was made of, and what was changed; both are empty for an image itself."""
FAILED, NOT_ALONE = "the edit does not show what was wanted", "something else changed"
AT_ONCE = 32  # images

Cell = tuple[bool, ...]
"""Which of the attributes to balance are there."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Images with a known label: ``values`` (N, K) are the table's answers, ``label`` (N,) the column of one.

    ``notes`` say what of folder and table was passed over.
    """

    items: tuple[Item[Path], ...]
    table: LabelTable
    values: Tensor
    label: Tensor
    notes: tuple[str, ...]


def labelled_images(folder: Path, path: Path, label: str) -> Labelled:
    """The images below ``folder`` whose ``label`` the table at ``path`` knows.

    Raises UsageError where the table has no such column, or knows none of the images.
    """
    passed_over = PassedOver()
    items = find_inputs([folder], passed_over=passed_over)
    table = read_labels(path)
    if label not in table.names:
        raise UsageError(f"{path}: no label named '{label}'", hint=f"known: {', '.join(table.names)}")
    _, matched = match_below(table, path, folder, [item.relative.as_posix() for item in items])
    answers = matched.values[:, table.names.index(label)]
    rows = (~answers.isnan()).nonzero()[:, 0]
    if not len(rows):
        raise UsageError(f"{path}: knows the {label} of none of the images in {folder}")
    notes = [*([str(passed_over)] if passed_over else []), *matched.remarks("images"), *table.remarks]
    if unknown := len(items) - len(rows):
        notes.append(f"{unknown} images are left out: their {label} is not known")
    return Labelled(
        items=tuple(items[row] for row in rows.tolist()),
        table=table,
        values=matched.values[rows],
        label=answers[rows] > 0,
        notes=tuple(notes),
    )


@dataclass(frozen=True, kw_only=True)
class Need:
    """``num`` pictures of ``cell`` and of one ``label`` are to be made, of ``sources``: images by cell."""

    label: bool
    cell: Cell
    num: int
    sources: Mapping[Cell, Sequence[int]]


def needs(label: Tensor, shows: Tensor, *, seed: int) -> list[Need]:
    """What is to be made of images with ``label`` (N,) and attributes ``shows`` (N, K), both bool.

    Sources come from the largest cell first, in an order drawn by ``seed``. Raises UsageError where all
    images have one label.
    """
    if label.all() or not label.any():
        raise UsageError("all images have the same label, so nothing can go with it")
    members: dict[bool, dict[Cell, list[int]]] = {
        value: {cell: [] for cell in itertools.product((False, True), repeat=shows.shape[1])}
        for value in (False, True)
    }
    for row in torch.randperm(len(label), generator=keyed_generator(seed, "augment")).tolist():
        members[bool(label[row])][tuple(shows[row].tolist())].append(row)
    counts = torch.tensor([[len(rows) for rows in cells.values()] for cells in members.values()]).double()
    share = (counts / counts.sum(dim=1, keepdim=True)).amax(dim=0)
    total = torch.where(share > 0, counts / share, 0.0).amax(dim=1, keepdim=True)
    wanted = (share * total).round().long()  # share need not sum to 1
    found = []
    for y, (value, cells) in enumerate(members.items()):
        by_size = sorted(cells, key=lambda cell: -len(cells[cell]))
        for c, cell in enumerate(cells):
            if num := int(wanted[y, c]) - len(cells[cell]):
                sources = {other: cells[other] for other in by_size if other != cell}
                found.append(Need(label=value, cell=cell, num=num, sources=sources))
    return found


def refuse_names(pipeline: Pipeline, label: str, names: Sequence[str]) -> None:
    """Raise UsageError for attributes that cannot be balanced, by themselves or together or for ``label``."""
    bundle = pipeline.bundle
    for name in names:
        bundle.directions.index(name)
        if name == label:
            raise UsageError(f"{name} is the label, and cannot be independent of itself")
        others = untold(bundle, {name: True}) - {name}
        if label in others:
            raise UsageError(f"{name} rules out or hides {label}, which could not stay as it is")
        if clash := others.intersection(names):
            raise UsageError(
                f"{name} rules out or hides {min(clash)}: no picture could show both",
                hint="balance one of the two",
            )


@dataclass(kw_only=True)
class Result:
    """What was done: of ``num_needed`` pictures, ``num_made`` now and ``num_known`` before.

    ``left_out`` counts edits by why they were. ``before`` and ``after`` are, for each balanced attribute, the
    shares that have it among images without and with the label.
    """

    num_images: int = 0
    num_needed: int = 0
    num_made: int = 0
    num_known: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    before: dict[str, tuple[float, float]] = field(default_factory=dict)
    after: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def num_short(self) -> int:
        """Pictures that could not be made: no image was left to edit."""
        return self.num_needed - self.num_made - self.num_known


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be made of images to fill a folder; :func:`plan_augmentation` makes it."""

    output: _Output
    needs: Sequence[Need]

    @property
    def num_needed(self) -> int:
        """Pictures that are to be made, or are there."""
        return sum(need.num for need in self.needs)

    def carry_out(self, advance: Callable[[float], None] = ignore_progress) -> Result:
        """Write the images, edited ones beside them, and the table; ``advance`` is told of each edited one.

        What is there already is not made again, and what failed before is not tried again. Raises
        OccupiedError for other files in the places of results.
        """
        output, names = self.output, self.output.names
        rows = output.write_images()
        labels, shows = output.images.label.tolist(), output.shows.tolist()
        cells = [(bool(label), tuple(cell)) for label, cell in zip(labels, shows, strict=True)]
        result = Result(num_images=len(rows), num_needed=self.num_needed, before=_shares(cells, names))
        for need in self.needs:
            left = need.num
            for cell, sources in need.sources.items():
                pairs = zip(names, cell, need.cell, strict=True)
                edits = {name: value for name, was, value in pairs if was != value}
                candidates = iter(sources)
                while left and (some := list(itertools.islice(candidates, min(left, AT_ONCE)))):
                    for i in output.made(some, edits, result):
                        rows.append(output.row(i, need.cell, edits))
                        cells.append((need.label, need.cell))
                        left -= 1
                        advance(1)
        result.after = _shares(cells, names)
        output.write_table(rows)
        return result


def plan_augmentation(
    pipeline: Pipeline,
    images: Labelled,
    names: Sequence[str],
    label: str,
    folder: Path,
    *,
    fit: Fit = "crop",
    seed: int = 0,
) -> Plan:
    """What would make ``names`` independent of ``label`` among ``images``, in ``folder``; see the module.

    Reads all images. Raises UsageError as :func:`refuse_names`, OccupiedError where a table of others stands
    in ``folder``.
    """
    refuse_names(pipeline, label, names)
    output = _Output(pipeline=pipeline, images=images, names=names, folder=folder, fit=fit, seed=seed)
    output.refuse_other_table()
    return Plan(output=output, needs=needs(images.label, output.shows, seed=seed))


def _shares(cells: Sequence[tuple[bool, Cell]], names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Of each attribute, how many have it among those without and those with the label."""
    found = {}
    for k, name in enumerate(names):
        sides = [[cell[k] for value, cell in cells if value == has] for has in (False, True)]
        without, having = (sum(side) / max(1, len(side)) for side in sides)
        found[name] = (without, having)
    return found


@dataclass(frozen=True, kw_only=True)
class _Output:
    """The folder: what is in it already, and what is written."""

    pipeline: Pipeline
    images: Labelled
    names: Sequence[str]
    folder: Path
    fit: Fit
    seed: int

    @cached_property
    def shows(self) -> Tensor:
        """Which image shows which of the attributes, as the classifiers read z: bool (N, K)."""
        paths = [item.source for item in self.images.items]
        codes = self.pipeline.encode(paths, fit=self.fit, with_x_T=False)
        directions = self.pipeline.bundle.directions
        columns = [directions.index(name) for name in self.names]
        return (directions.logits(codes.z.flatten(1))[:, columns] > 0).cpu()

    def place(self, i: int, edits: Mapping[str, bool] | None = None) -> Path:
        """Where image ``i`` goes, or what is made of it."""
        relative = self.images.items[i].relative
        told = "".join(f"-{file_name(name)}={_ANSWERS[value]}" for name, value in (edits or {}).items())
        return self.folder / relative.with_name(f"{relative.stem}{told}.png")

    def write_images(self) -> list[list[str]]:
        """Write the images themselves, each a square of the bundle's size; gives their rows."""
        taken: dict[Path, Path] = {}
        rows = []
        for i, item in enumerate(self.images.items):
            place = self.place(i)
            if place in taken:
                raise UsageError(f"{taken[place]} and {item.source} would both be {place}")
            taken[place] = item.source
            picture = to_pil(self.pipeline.load_images(item.source, self.fit)[0])
            content = png_bytes(picture)
            if place.is_file() and place.read_bytes() != content:
                raise OccupiedError(f"{place}: is there already, and is another picture", hint=_ELSEWHERE)
            if not place.is_file():
                put(place, content)
            rows.append(self.row(i, tuple(self.shows[i].tolist()), {}))
        return rows

    def made(self, some: Sequence[int], edits: Mapping[str, bool], result: Result) -> list[int]:
        """Edit those images that were not edited before; gives the ones of which there is a picture."""
        there, fresh = set(), []
        for i in some:
            place, record = self.place(i, edits), self._record(i, edits)
            refuse_other(place, record)
            if place.is_file():
                result.num_known += 1
                there.add(i)
            elif (why := self._left_out.get(_line_of(record))) is not None:
                result.left_out[why] += 1
            else:
                fresh.append(i)
        if fresh:
            paths = [self.images.items[i].source for i in fresh]
            codes = self.pipeline.encode(paths, fit=self.fit)
            done = self.pipeline.edit(codes, edits, seed=self.seed)
            for row, i in enumerate(fresh):
                if done.holds[row] and done.kept[row]:
                    save_image(to_pil(done.pictures[row]), self.place(i, edits), self._record(i, edits))
                    result.num_made += 1
                    there.add(i)
                else:
                    why = NOT_ALONE if done.holds[row] else FAILED
                    result.left_out[why] += 1
                    self._note_left_out(why, self._record(i, edits))
        return [i for i in some if i in there]

    def _note_left_out(self, why: str, record: Mapping[str, Any]) -> None:
        with (self.folder / LEFT_OUT).open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps({'why': why, 'record': record}, sort_keys=True)}\n")

    def _record(self, i: int, edits: Mapping[str, bool]) -> dict[str, Any]:
        item, bundle = self.images.items[i], self.pipeline.bundle
        return new_record(
            "counterfactual",
            bundle=bundle.name,
            bundle_digest=bundle.digest,
            source=item.relative.as_posix(),
            source_digest=digest_of(item.source),
            edits=[dict(edits)],
            direction_digests={name: bundle.directions.digest(name) for name in edits},
            seed=self.seed,
            fit=self.fit,
            precision=self.pipeline.precision,
        )

    @cached_property
    def _left_out(self) -> dict[str, str]:
        """Why what was tried before is not here, by its record."""
        found: dict[str, str] = {}
        path = self.folder / LEFT_OUT
        for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
            with suppress(ValueError, LookupError, TypeError):  # a kill may have cut the last line short
                told = parse_object(line)
                found[_line_of(told["record"])] = str(told["why"])
        return found

    @property
    def _columns(self) -> list[str]:
        known = self.images.table.names
        return ["file_name", *known, *(name for name in self.names if name not in known), OF, EDITS]

    def row(self, i: int, cell: Cell, edits: Mapping[str, bool]) -> list[str]:
        """A picture's line of the table. What an edit rules out or hides is not known any more: empty."""
        values = dict(zip(self.images.table.names, self.images.values[i].tolist(), strict=True))
        told = {name: "" if value != value else str(int(value)) for name, value in values.items()}
        told |= {name: str(int(has)) for name, has in zip(self.names, cell, strict=True) if name not in told}
        told |= dict.fromkeys(untold(self.pipeline.bundle, edits) & told.keys(), "") if edits else {}
        told |= {name: str(int(value)) for name, value in edits.items()}
        told["file_name"] = self.place(i, edits).relative_to(self.folder).as_posix()
        told[OF] = self.place(i).relative_to(self.folder).as_posix() if edits else ""
        told[EDITS] = " ".join(f"{name}={_ANSWERS[value]}" for name, value in edits.items())
        return [told[column] for column in self._columns]

    def refuse_other_table(self) -> None:
        """Raise OccupiedError, before any work, where a table stands that was not written here."""
        path = self.folder / TABLE
        if path.is_file():
            with path.open(encoding="utf-8", errors="replace", newline="") as file:
                if OF not in next(csv.reader(file), []):
                    raise OccupiedError(f"{path}: is there already, with other labels", hint=_ELSEWHERE)

    def write_table(self, rows: Sequence[Sequence[str]]) -> None:
        """Write the labels of all pictures."""
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([self._columns, *rows])
        put(self.folder / TABLE, text.getvalue().encode("utf-8", "surrogateescape"))


_ANSWERS = {True: "yes", False: "no"}
_ELSEWHERE = "name another folder with -o"


def _line_of(record: Mapping[str, Any]) -> str:
    """Equal for records that tell of one picture, whichever rdm wrote them."""
    return as_text({name: value for name, value in record.items() if name not in ("software", "command")})
