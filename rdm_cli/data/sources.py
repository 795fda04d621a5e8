"""Where inputs come from: one protocol for files, folders, lists of paths, archives and tables.

A source gives its items one after the other and keeps none. Some are ``counted``: their names can be gone
through without reading anything, so a job's items are counted, and its results settled, before any work. The
others are streams, read once from end to end; each puts its results into a folder of its own, so that no two
can collide.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence, Set
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from rdm_cli.data.braces import expand_braces
from rdm_cli.data.folders import Item, items_at, read_path_list
from rdm_cli.data.places import Readable
from rdm_cli.errors import UsageError

TARS = (".tar", ".tar.gz", ".tgz")

Holds = Callable[[str], bool]
"""Whether a shard is to do what has this name."""


def all_of(_: str) -> bool:
    """A :data:`Holds` for whoever does everything."""
    return True


class Source(Protocol):
    """Inputs in an order of their own; see the module."""

    @property
    def counted(self) -> bool:
        """Whether the names cost nothing to go through."""

    def items(self, holds: Holds = all_of) -> Iterator[Item[Readable]]:
        """The inputs that a shard is to do: those of whose names, or whose archive's name, ``holds`` is true.

        Raises UsageError or SourceError where the source cannot be opened; what cannot be read inside is an
        item whose reading fails.
        """


class Local:
    """A file, or a folder that is searched."""

    counted = True

    def __init__(self, path: Path, *, suffixes: Set[str], results: Sequence[str] = ()) -> None:
        self.path, self.suffixes, self.results = path, suffixes, results

    def items(self, holds: Holds = all_of) -> Iterator[Item[Readable]]:
        """See :class:`Source`."""
        for item in items_at(self.path, suffixes=self.suffixes, results=self.results):
            if holds(item.relative.as_posix()):
                yield item


class FileList:
    """A file that names files and folders; see :func:`~rdm_cli.data.folders.read_path_list`.

    It is read again each time, and one name of it is kept at a time.
    """

    counted = True

    def __init__(self, path: Path, opened: Callable[[str], Source]) -> None:
        self.path, self.opened = path, opened

    def items(self, holds: Holds = all_of) -> Iterator[Item[Readable]]:
        """See :class:`Source`."""
        with self.path.open("rb") as file:
            for name in read_path_list(file):
                source = self.opened(str(name))
                if not source.counted:
                    raise UsageError(
                        f"{self.path}: {name}: in a list of files stand files and folders",
                        hint="name archives and tables on the command line; {0001..0009} stands for nine",
                    )
                yield from source.items(holds)


def sources_of(
    names: Sequence[str], *, list_file: Path | None = None, suffixes: Set[str], results: Sequence[str] = ()
) -> list[Source]:
    """What ``names`` and the paths in ``list_file`` stand for.

    Files and folders; ``.tar`` files, in whose names braces are expanded where no file has that very name.
    ``results`` are endings of an earlier run's results, which are no inputs. Raises UsageError for what no
    source is made of, and for streams together with files, or two of one name.
    """

    def opened(name: str) -> Source:
        return _opened(name, suffixes, results)

    expanded = chain.from_iterable([name] if Path(name).exists() else expand_braces(name) for name in names)
    found = [opened(name) for name in expanded]
    if list_file is not None:
        found.append(FileList(list_file, opened))
    _refuse_mixed(found)
    return found


def _opened(name: str, suffixes: Set[str], results: Sequence[str]) -> Source:
    if name.startswith("pipe:"):
        raise UsageError(f"{name}: runs a command, which rdm does not", hint="pipe its output into 'rdm … -'")
    if Path(name).is_dir():
        return Local(Path(name), suffixes=suffixes, results=results)
    if name.lower().endswith(TARS):
        _refuse_absent(name)
        from rdm_cli.data.tars import TarShard

        return TarShard(name, suffixes=suffixes)
    return Local(Path(name), suffixes=suffixes, results=results)


def _refuse_absent(name: str) -> None:
    if not os.path.lexists(name):
        raise UsageError(f"{name}: no such file or folder")


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
