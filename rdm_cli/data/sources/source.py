"""Where inputs come from: one protocol for files, folders, lists of paths, archives and tables.

A source gives its items one after the other and keeps none. Some are ``counted``: their names can be gone
through without reading anything, so a job's items are counted, and its results settled, before any work. The
others are streams, read once from end to end; each puts its results into a folder of its own, so that no two
can collide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from pathlib import Path, PurePosixPath
from typing import Protocol

from rdm_cli.data.io.places import Readable, refused
from rdm_cli.data.sources.folders import Item, PassedOver, items_at, read_path_list
from rdm_cli.errors import RdmError, UsageError

Holds = Callable[[str], bool]
"""Whether a shard is to do what has this name."""


def all_of(_: str) -> bool:
    """A :data:`Holds` for whoever does everything."""
    return True


class Source(Protocol):
    """Inputs in an order of their own; see the module."""

    passed_over: PassedOver
    """What the latest :meth:`items` found that is no input, as far as it was gone through."""

    @property
    def counted(self) -> bool:
        """Whether the names cost nothing to go through."""

    @property
    def whole(self) -> bool:
        """Whether a shard has all of it or nothing."""

    def items(self, holds: Holds = all_of) -> Iterator[Item[Readable]]:
        """The inputs that a shard is to do: those of whose names, or whose archive's name, ``holds`` is true.

        Raises UsageError or SourceError where the source cannot be opened; what cannot be read inside is an
        item whose reading fails.
        """


class Local:
    """A file, or a folder that is searched."""

    counted = True
    whole = False

    def __init__(self, path: Path, *, suffixes: Set[str]) -> None:
        self.path, self.suffixes = path, suffixes
        self.passed_over = PassedOver()

    def items(self, holds: Holds = all_of) -> Iterator[Item[Readable]]:
        """See :class:`Source`."""
        self.passed_over.clear()
        for item in items_at(self.path, suffixes=self.suffixes, passed_over=self.passed_over):
            if holds(item.relative.as_posix()):
                yield item


class FileList:
    """A file that names files and folders; see :func:`~rdm_cli.data.sources.folders.read_path_list`.

    It is read again each time, and one name of it is kept at a time. A name that stands for nothing (a path
    that has vanished, an empty folder) is an item that fails, and the others are done.
    """

    counted = True
    whole = False

    def __init__(self, path: Path, opened: Callable[[str], Source]) -> None:
        self.path, self.opened = path, opened
        self.passed_over = PassedOver()

    def items(self, holds: Holds = all_of) -> Iterator[Item[Readable]]:
        """See :class:`Source`."""
        self.passed_over.clear()
        with self.path.open("rb") as file:
            for name in read_path_list(file):
                try:
                    source = self.opened(name)
                    if source.counted:
                        yield from source.items(holds)
                        self.passed_over.update(source.passed_over)
                        continue
                except RdmError as error:
                    called = name if "://" in name else str(Path(name))  # as it is called when it is there
                    relative = Path(PurePosixPath(name).name or "unnamed")
                    if holds(relative.as_posix()):
                        yield Item(source=refused(called, error), relative=relative, error=error)
                    continue
                raise UsageError(
                    f"{self.path}: {name}: in a list of files stand files and folders",
                    hint="name archives and tables on the command line; {0001..0009} stands for nine",
                )
