"""What kind of source a name on the command line stands for."""

from __future__ import annotations

import os
from collections.abc import Sequence, Set
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from rdm_cli.data.sources.braces import expand_braces
from rdm_cli.data.sources.lmdbs import Lmdb, is_lmdb
from rdm_cli.data.sources.parquet import ParquetImages
from rdm_cli.data.sources.remote import Remote, is_url, local_name
from rdm_cli.data.sources.source import FileList, Local, Source
from rdm_cli.data.sources.tars import TarShard
from rdm_cli.errors import UsageError

TARS = (".tar", ".tar.gz", ".tgz")
PARQUET = ".parquet"


def sources_of(
    names: Sequence[str],
    *,
    list_file: Path | None = None,
    suffixes: Set[str],
    results: Sequence[str] = (),
    column: str | None = None,
) -> list[Source]:
    """What ``names`` and the paths in ``list_file`` stand for.

    Files and folders, here or by URL; ``.tar`` and ``.parquet`` files; LMDBs. Braces in names are expanded
    where no file has that very name. ``results`` are endings of an earlier run's results, which are no
    inputs in an object store, where a look into each would be a request; ``column`` is that of the images in
    Parquet files. Raises UsageError for what no source is made of, for streams together with files, or two of
    one name, and for a column without Parquet files.
    """
    opened = partial(_opened, suffixes=suffixes, results=results, column=column)
    expanded = chain.from_iterable([name] if Path(name).exists() else expand_braces(name) for name in names)
    found = [opened(name) for name in expanded]
    if list_file is not None:
        found.append(FileList(list_file, opened))
    _refuse_mixed(found)
    if column is not None and not any(isinstance(source, ParquetImages) for source in found):
        raise UsageError(f"--column {column}: none of the inputs is a {PARQUET} file")
    return found


def _opened(name: str, *, suffixes: Set[str], results: Sequence[str], column: str | None) -> Source:
    name = local_name(name)
    path, far = Path(name), is_url(name)
    if not far and is_lmdb(path):
        return Lmdb(path)
    if far or not path.is_dir():
        kind = name.lower()
        if kind.endswith((*TARS, PARQUET)):
            if not far and not os.path.lexists(path):
                raise UsageError(f"{name}: no such file or folder")
            if kind.endswith(PARQUET):
                return ParquetImages(name, column=column)
            return TarShard(name, suffixes=suffixes)
    if far:
        return Remote(name, suffixes=suffixes, results=results)
    return Local(path, suffixes=suffixes)


def _refuse_mixed(sources: Sequence[Source]) -> None:
    streams: list[Any] = [source for source in sources if not source.counted]
    if streams and len(streams) < len(sources):
        raise UsageError(
            f"{streams[0].name}: archives and tables do not go with files and folders", hint="run them apart"
        )
    owners: dict[str, Any] = {}
    for stream in streams:
        other = owners.setdefault(stream.stem, stream)
        if other is not stream:
            raise UsageError(
                f"{other.name} and {stream.name} would both be written to {stream.stem}/",
                hint="run twice with different output folders",
            )
