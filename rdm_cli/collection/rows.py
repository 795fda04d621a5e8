"""A collection: the codes of a folder, or the rows of a table of codes, a few thousand at a time.

Search, index, map and the rest read codes through this module alone, so that a table and a folder are the
same to them, and neither has to fit into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from rdm_cli.codes.code import CodeInfo, read_z
from rdm_cli.data.io.optional import optional_module
from rdm_cli.data.sources.folders import CODE_SUFFIXES, PassedOver, items_at
from rdm_cli.errors import CodeError, RdmError, UsageError

ROWS_AT_ONCE = 4096
TABLE = ".parquet"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some codes: ``names`` and ``paths``, N of each, ``z`` (N, d) float32, and what else was asked for."""

    names: list[str]
    paths: list[str]
    z: np.ndarray
    recorded: dict[str, list[Any]]


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Codes of one bundle, whose name and digest the first of them says.

    ``num_rows`` is None for a folder. ``on_error`` is told once the path and the error of a code that
    cannot be read, which is left out; ``failed`` are those. ``passed_over`` are a folder's other files.
    """

    place: Path
    bundle: str | None
    bundle_digest: str | None
    width: int
    num_rows: int | None = None
    on_error: Callable[[str, RdmError], None] | None = None
    failed: dict[str, RdmError] = field(default_factory=dict)
    passed_over: PassedOver = field(default_factory=PassedOver)

    def rows(self, recorded: Sequence[str] = ()) -> Iterator[Rows]:
        """All rows, at most 4,096 at once, with the values of the columns ``recorded`` (None: not recorded).

        May be called again. Raises CodeError for a row of another bundle, of another width, or of values that
        are not finite, and UsageError for a table that cannot be read to its end.
        """
        read = _rows_of_table if self.num_rows is not None else _rows_of_folder
        for rows in read(self, tuple(dict.fromkeys(("bundle_digest", *recorded)))):
            self._check(rows)
            yield rows

    def _check(self, rows: Rows) -> None:
        for name, digest in zip(rows.names, rows.recorded["bundle_digest"], strict=True):
            if digest != self.bundle_digest:
                raise CodeError(
                    f"{self.place}: {name} was made with another bundle ({str(digest)[:12]}) than the first "
                    f"code ({str(self.bundle_digest)[:12]})",
                    hint="keep the codes of each bundle apart",
                )
        if not np.isfinite(rows.z).all():
            wrong = rows.names[int(np.flatnonzero(~np.isfinite(rows.z).all(axis=1))[0])]
            raise CodeError(f"{self.place}: z of {wrong} holds values that are not finite")


class OfOneBundle(Protocol):
    """Codes of one bundle: a collection, or its index."""

    @property
    def place(self) -> Path: ...  # noqa: D102

    @property
    def bundle(self) -> str | None: ...  # noqa: D102

    @property
    def bundle_digest(self) -> str | None: ...  # noqa: D102

    @property
    def width(self) -> int: ...  # noqa: D102


def require_bundle(codes: OfOneBundle, name: str, digest: str) -> None:
    """Raise CodeError where ``codes`` are not of the bundle of this digest."""
    if codes.bundle_digest != digest:
        raise CodeError(
            f"{codes.place}: its codes were made with bundle {codes.bundle} "
            f"({str(codes.bundle_digest)[:12]}), not with {name} ({digest[:12]})",
            hint="ask with the bundle that made them, or encode the images again",
        )


def open_collection(place: Path, on_error: Callable[[str, RdmError], None] | None = None) -> Collection:
    """The codes of a folder (or of one file), or of a table that ``rdm codes table`` wrote.

    Without ``on_error`` the first code that cannot be read is raised. Raises UsageError for what is neither,
    CodeError for codes without z.
    """
    if not place.is_dir() and place.suffix.lower() == TABLE and place.exists():
        arrow, parquet = pyarrow_modules()
        table = open_table(arrow, parquet, place)
        kind = table.schema_arrow.field("z").type
        if not (arrow.types.is_fixed_size_list(kind) and arrow.types.is_floating(kind.value_type)):
            raise UsageError(f"{place}: its z is no list of fixed length of numbers", hint=MADE_BY)
        if not table.metadata.num_rows:
            raise UsageError(f"{place}: a table without rows")
        first = next(_columns_of(place, table, 1, ("bundle", "bundle_digest")))
        return Collection(
            place=place,
            bundle=first["bundle"][0],
            bundle_digest=first["bundle_digest"][0],
            width=kind.list_size,
            num_rows=table.metadata.num_rows,
            on_error=on_error,
        )
    for item in items_at(place, suffixes=CODE_SUFFIXES):
        with suppress(RdmError):
            if item.error is None:
                info, z = read_z(item.source)
                return Collection(
                    place=place,
                    bundle=info.bundle,
                    bundle_digest=info.bundle_digest,
                    width=z.numel(),
                    on_error=on_error,
                )
    read_z(next(iter(items_at(place, suffixes=CODE_SUFFIXES))).source)  # raises what is wrong with the first
    raise CodeError(f"{place}: holds no code that can be read")


def _rows_of_table(collection: Collection, recorded: tuple[str, ...]) -> Iterator[Rows]:
    table = open_table(*pyarrow_modules(), collection.place)
    for columns in _columns_of(collection.place, table, ROWS_AT_ONCE, ("name", "path", "z", *recorded)):
        names, paths, z = columns["name"], columns["path"], columns["z"]
        if None in names or z.null_count or z.flatten().null_count:
            raise CodeError(f"{collection.place}: a row has no name, or no z")
        yield Rows(
            names=names,
            paths=[name if path is None else path for name, path in zip(names, paths, strict=True)],
            z=z.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(names), -1),
            recorded={name: columns[name] for name in recorded},
        )


def _columns_of(place: Path, table: Any, num: int, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Columns ``num`` rows at a time: z as it is, others as lists of strings or, ``psnr_db``, of floats.

    A column that the table has not is None everywhere. Raises UsageError for what cannot be read so.
    """
    arrow, _ = pyarrow_modules()
    there = [name for name in names if name in table.schema_arrow.names]
    kinds = {"psnr_db": arrow.float64()}
    try:
        for batch in table.iter_batches(num, columns=there or ["name"]):
            found: dict[str, Any] = {name: [None] * len(batch) for name in names}
            for name in there:
                column = batch.column(name)
                found[name] = (
                    column if name == "z" else column.cast(kinds.get(name, arrow.string())).to_pylist()
                )
            yield found
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        why = str(error).splitlines()[0]
        raise UsageError(f"{place}: a table that cannot be read ({why})", hint=MADE_BY) from error


def _rows_of_folder(collection: Collection, recorded: tuple[str, ...]) -> Iterator[Rows]:
    found: list[tuple[str, str, CodeInfo, np.ndarray]] = []

    def rows() -> Rows:
        names, paths, infos, z = zip(*found, strict=True)
        found.clear()
        columns = {name: [getattr(info, name) for info in infos] for name in recorded}
        return Rows(names=list(names), paths=list(paths), z=np.stack(z), recorded=columns)

    collection.passed_over.clear()
    for item in items_at(collection.place, suffixes=CODE_SUFFIXES, passed_over=collection.passed_over):
        path = str(item.source)
        try:
            if item.error is not None:
                raise item.error
            info, z = read_z(item.source)
            if z.numel() != collection.width:
                raise CodeError(f"{path}: z has {z.numel()} values, and the first code's {collection.width}")
        except RdmError as error:
            if collection.on_error is None:
                raise
            if path not in collection.failed:
                collection.failed[path] = error
                collection.on_error(path, error)
            continue
        name = item.relative.with_suffix("").as_posix()
        found.append((name, path, info, z.flatten().numpy()))
        if len(found) == ROWS_AT_ONCE:
            yield rows()
    if found:
        yield rows()


MADE_BY = "'rdm codes table' writes tables of codes"


def open_table(arrow: Any, parquet: Any, path: Path | str, file: IO[bytes] | None = None) -> Any:
    """A table of codes as a ``ParquetFile``; UsageError for what is none. ``file`` is it, opened already."""
    try:
        # a buffer would hold all that was read to the end
        table = parquet.ParquetFile(path if file is None else file, pre_buffer=False)
    except (arrow.ArrowInvalid, OSError) as error:
        raise UsageError(f"{path}: not a Parquet file that can be read ({error})") from error
    if {"name", "z"} - set(table.schema_arrow.names):
        raise UsageError(f"{path}: not a table of codes", hint="'rdm codes table' writes them")
    return table


def pyarrow_modules() -> tuple[Any, Any]:
    """``pyarrow`` and ``pyarrow.parquet``; UsageError with the remedy where they are absent."""
    purpose = "a table of codes"
    return (
        optional_module("pyarrow", package="pyarrow", purpose=purpose),
        optional_module("pyarrow.parquet", package="pyarrow", purpose=purpose),
    )
