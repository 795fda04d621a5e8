"""Tables of yes/no labels: Hugging Face's ``metadata.csv`` and ``metadata.jsonl``, and CelebA's lists."""

from __future__ import annotations

import csv
import json
import math
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.errors import RdmError, UsageError

FILE_COLUMNS = ("file_name", "filename", "image", "image_id")
# what spreadsheets and pandas write where there is no answer, in lower case
UNKNOWN = ("", "nan", "-nan", "na", "n/a", "<na>", "#n/a", "null", "none", "?")

_MAX_DIGITS = 20
_UNKNOWN, _OTHER = 0, 255
_CELLS = {
    **dict.fromkeys(UNKNOWN, _UNKNOWN), "0": 1, "0.0": 1, "1": 2, "1.0": 2, "-1": 3, "-1.0": 3,
    "false": 4, "true": 5, "no": 6, "yes": 7,
}  # fmt: skip
_VOCABULARIES = ({1: 0.0, 2: 1.0}, {3: 0.0, 2: 1.0}, {4: 0.0, 5: 1.0}, {6: 0.0, 7: 1.0})


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelTable:
    """Labels of N images: ``values`` is float32 (N, K), 1 or 0, NaN where the answer is unknown.

    ``names`` are the K labels in snake_case, ``files`` the N images as the table calls them, and
    ``skipped`` the other columns, each with the reason why it is no label.
    """

    names: tuple[str, ...]
    files: tuple[str, ...]
    values: Tensor
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def remarks(self) -> list[str]:
        """A line on the columns that are no labels, where there are some."""
        told = "; ".join(
            f"{column or 'a column without a name'} ({why})" for column, why in self.skipped.items()
        )
        return [f"columns that are no labels: {told}"] if told else []


@dataclass(frozen=True, kw_only=True, eq=False)
class Matched:
    """A table's values in the order of given names: (M, K), a row of NaN for each of ``unmatched``.

    ``guessed`` are names without a folder, each with the file in a folder of the table that it was taken for.
    """

    values: Tensor
    unmatched: tuple[str, ...]
    guessed: Mapping[str, str] = field(default_factory=dict)

    def remarks(self, kind: str) -> list[str]:
        """What a person should know of how the names, which are of ``kind`` (a plural), found their rows."""
        told = []
        if self.unmatched:
            num, first = len(self.unmatched), self.unmatched[0]
            told.append(
                f"{num} of {len(self.values)} {kind} have no row in the label table, {first} among them"
            )
        if self.guessed:
            name, file = next(iter(self.guessed.items()))
            told.append(
                f"{len(self.guessed)} {kind} found their rows by their file names alone: "
                f"{name} is taken for {file}"
            )
        return told


@dataclass(frozen=True, kw_only=True)
class _Row:
    line: int
    file: str
    cells: bytes


@dataclass(frozen=True, kw_only=True)
class _Raw:
    """A table before its columns are judged; cells are bytes, as in ``_CELLS``."""

    columns: list[str]
    rows: list[_Row]


def read_labels(path: Path) -> LabelTable:
    """Read ``path``, telling its kind by its suffix, or else by its first line.

    Columns that hold only 0/1, -1/1, true/false or yes/no are labels; empty cells and those of ``UNKNOWN``
    are unknown. Other columns are passed over, and the table says why. Raises UsageError for a missing file,
    and RdmError, naming the line, for a table that is damaged, lists an image twice, does not say which file
    a line is about, or has no such column.
    """
    if path.is_dir():
        raise UsageError(f"{path}: this is a folder", hint=f"name a file, such as {path / 'metadata.csv'}")
    if not path.exists():
        raise UsageError(f"{path}: no such label table")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first_line = file.readline()
            file.seek(0)
            raw = _reader_for(path, first_line)(path, file)
    except UnicodeDecodeError as error:
        raise RdmError(f"{path}: not a text file in UTF-8 ({error.reason})") from error
    except OSError as error:
        raise RdmError(f"{path}: cannot be read ({error.strerror})") from error
    return _judge_columns(path, raw)


def _reader_for(path: Path, first_line: str) -> Callable[[Path, Iterator[str]], _Raw]:
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson") or first_line.lstrip().startswith("{"):
        return _read_jsonl
    if suffix != ".csv" and first_line.strip().isdecimal() and len(first_line) < _MAX_DIGITS:
        return _read_celeba
    if suffix == ".csv" or any(mark in first_line for mark in ",;\t"):
        return _read_csv
    raise RdmError(
        f"{path}:1: not a label table",
        hint="metadata.csv, metadata.jsonl and CelebA's lists of attributes can be read",
    )


def _read_csv(path: Path, lines: Iterator[str]) -> _Raw:
    header_line = next(lines, "")
    delimiter = max(",;\t", key=header_line.count)
    header = [name.strip() for name in next(csv.reader([header_line], delimiter=delimiter), [])]
    column = _file_column(path, header)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    rows = []
    try:
        for cells in reader:
            line = reader.line_num + 1
            if not cells:
                continue
            _refuse_ragged(path, line, len(cells), len(header))
            file = cells.pop(column)
            rows.append(_Row(line=line, file=file, cells=_encode(cells)))
    except csv.Error as error:
        raise RdmError(f"{path}:{reader.line_num + 1}: not valid CSV ({error})") from error
    return _Raw(columns=header[:column] + header[column + 1 :], rows=rows)


def _read_jsonl(path: Path, lines: Iterator[str]) -> _Raw:
    records: list[tuple[int, str, dict[str, Any]]] = []
    columns: dict[str, None] = {}
    for line, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RdmError(f"{path}:{line}: not valid JSON ({getattr(error, 'msg', error)})") from error
        if not isinstance(record, dict):
            raise RdmError(f"{path}:{line}: each line must be a JSON object")
        key = list(record)[_file_column(path, list(record), line)]
        file = record.pop(key)
        if not isinstance(file, str):
            raise RdmError(f"{path}:{line}: {key} must be a file's name")
        records.append((line, file, record))
        columns.update(dict.fromkeys(record))
    names = list(columns)
    rows = [
        _Row(line=line, file=file, cells=_encode([_json_cell(record.get(name)) for name in names]))
        for line, file, record in records
    ]
    return _Raw(columns=names, rows=rows)


def _json_cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value) if isinstance(value, (str, bool, int, float)) else "(nested)"


def _read_celeba(path: Path, lines: Iterator[str]) -> _Raw:
    announced = int(next(lines).strip())  # which takes more for blank than int() does
    columns = next(lines, "").split()
    rows = []
    for line, text in enumerate(lines, start=3):
        cells = text.split()
        if not cells:
            continue
        _refuse_ragged(path, line, len(cells), len(columns) + 1)
        rows.append(_Row(line=line, file=cells[0], cells=_encode(cells[1:])))
    if len(rows) != announced:
        raise RdmError(f"{path}:1: {announced} images are announced, and {len(rows)} follow")
    return _Raw(columns=columns, rows=rows)


def _encode(cells: Sequence[str]) -> bytes:
    return bytes(_CELLS.get(cell.strip().lower(), _OTHER) for cell in cells)


def _file_column(path: Path, header: list[str], line: int = 1) -> int:
    lowered = [name.lower() for name in header]
    for name in FILE_COLUMNS:
        if name in lowered:
            return lowered.index(name)
    found = ", ".join(header[:8]) or "nothing"
    raise RdmError(f"{path}:{line}: no column file_name", hint=f"the columns found: {found}")


def _refuse_ragged(path: Path, line: int, found: int, expected: int) -> None:
    if found != expected:
        raise RdmError(f"{path}:{line}: {found} cells where the header has {expected}")


def snake_case(name: str) -> str:
    """``name`` in lower-case words joined by underscores: ``Wearing Hat`` and ``WearingHat`` alike."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"[\W_]+", "_", words.lower()).strip("_")


def _judge_columns(path: Path, raw: _Raw) -> LabelTable:
    files = _unique_files(path, raw.rows)
    cells = np.frombuffer(b"".join(row.cells for row in raw.rows), dtype=np.uint8)
    cells = cells.reshape(len(files), len(raw.columns))
    kept: dict[str, str] = {}
    values, skipped = [], {}
    for column, codes in zip(raw.columns, cells.T, strict=True):
        name = snake_case(column)
        answers = _answers(codes) if name else None
        if answers is None:
            skipped[column] = _why_no_label(codes, raw.rows) if name else "the column has no name"
            continue
        if name in kept:
            raise RdmError(f"{path}:1: the columns {kept[name]} and {column} are both called {name}")
        kept[name] = column
        values.append(answers)
    if not kept:
        raise RdmError(
            f"{path}:1: no column of yes/no labels",
            hint="a label's cells are 0/1, -1/1, true/false, yes/no, or empty for unknown"
            + "".join(f"; {column or 'a column'}: {reason}" for column, reason in list(skipped.items())[:3]),
        )
    return LabelTable(
        names=tuple(kept),
        files=files,
        values=torch.from_numpy(np.stack(values, axis=1)),
        skipped=skipped,
    )


def _answers(codes: np.ndarray) -> np.ndarray | None:
    """float32 (N,) of a column whose cells speak one vocabulary; None for any other column."""
    present = set(np.unique(codes).tolist()) - {_UNKNOWN}
    for vocabulary in _VOCABULARIES:
        if present and present <= vocabulary.keys():
            meaning = np.full(256, np.nan, dtype=np.float32)
            meaning[list(vocabulary)] = list(vocabulary.values())
            answers: np.ndarray = meaning[codes]
            return answers
    return None


def _why_no_label(codes: np.ndarray, rows: Sequence[_Row]) -> str:
    """Why the cells ``codes`` (N,) are no label, for a person who meant them to be one."""
    strange = np.flatnonzero(codes == _OTHER)
    if len(strange):
        more = f", and so do {len(strange) - 1} more" if len(strange) > 1 else ""
        return f"line {rows[strange[0]].line} says neither yes nor no{more}"
    if not codes.any():
        return "all its cells are unknown"
    return "it mixes several ways to say yes and no"


def _unique_files(path: Path, rows: list[_Row]) -> tuple[str, ...]:
    lines: dict[str, int] = {}
    for row in rows:
        if not row.file.strip():
            raise RdmError(f"{path}:{row.line}: the image's file name is empty")
        file = posixpath.normpath(row.file.strip())
        if file in lines:
            raise RdmError(f"{path}:{row.line}: {file} is listed already in line {lines[file]}")
        lines[file] = row.line
    if not lines:
        raise RdmError(f"{path}: lists no images")
    return tuple(lines)


def match(table: LabelTable, names: Sequence[str], *, by_stem: bool = True) -> Matched:
    """Align ``table`` to ``names`` (relative paths of images or codes, M of them).

    A name finds its row by its path, else by its path without suffix. Where the table names no folders at
    all, or (with ``by_stem``) no name has one, it may also be found by its stem alone; otherwise
    ``train/0.png`` and ``val/0.png`` are two images. Raises RdmError, naming them, where several rows or
    several different names answer to one.
    """
    flat = not any(map(_has_folder, table.files)) or (by_stem and not any(map(_has_folder, names)))
    indices = [defaultdict[str, list[int]](list) for _ in range(3 if flat else 2)]
    for row, file in enumerate(table.files):
        for index, key in zip(indices, _keys(file), strict=False):
            index[key].append(row)
    rows = np.full(len(names), -1, dtype=np.int64)
    claims: dict[int, str] = {}
    guessed: dict[str, str] = {}
    for i, name in enumerate(names):
        keys = _keys(name)
        hits = [index.get(key) for index, key in zip(indices, keys, strict=False)]
        found = next((hit for hit in hits if hit), None)
        if found is None:
            continue
        if not any(hits[:2]) and _has_folder(table.files[found[0]]):
            guessed[name] = table.files[found[0]]
        if len(found) > 1:
            several = " and ".join(table.files[row] for row in found[:2])
            raise RdmError(f"{name}: the label table has {several}", hint="give it the full relative path")
        if claims.setdefault(found[0], keys[0]) != keys[0]:
            raise RdmError(
                f"{claims[found[0]]} and {name} both answer to the label table's {table.files[found[0]]}",
                hint="list each with its relative path",
            )
        rows[i] = found[0]
    values = torch.full((len(names), len(table.names)), float("nan"))
    matched = torch.from_numpy(rows >= 0)
    values[matched] = table.values[torch.from_numpy(rows[rows >= 0])]
    unmatched = tuple(name for name, row in zip(names, rows, strict=True) if row < 0)
    return Matched(values=values, unmatched=unmatched, guessed=guessed)


def match_below(table: LabelTable, path: Path, folder: Path, names: list[str]) -> tuple[list[str], Matched]:
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


def _has_folder(name: str) -> bool:
    return "/" in posixpath.normpath(name)


def _keys(name: str) -> tuple[str, str, str]:
    """The path, the path without the suffix of an image or a code, and of that the last part."""
    path = posixpath.normpath(name)
    bare, suffix = posixpath.splitext(path)
    if suffix.lower() not in SUFFIXES and suffix.lower() != ".safetensors":
        bare = path  # img.v1 keeps its dot
    return path, bare, posixpath.basename(bare)
