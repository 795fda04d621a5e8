"""Where each result goes: settled, and refused, before any work.

A plan is gone through as often as one likes and kept nowhere: what it remembers of an item are 64 bits of the
names of its input and its results. Where two of them agree, the items are looked at again, by their names.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from rdm_cli.data.folders import Item
from rdm_cli.data.places import Blob, Place, Readable
from rdm_cli.data.shards import fingerprint
from rdm_cli.errors import UsageError


class Sink(ABC):
    """Where the results of a job go.

    A job announces each result (:meth:`expect`), in the order of its inputs, and says what became of it
    (:meth:`settle`); sinks that collect results need to know.
    """

    @abstractmethod
    def place(self, item: Item[Any], ending: str) -> Place:
        """The place of an item's result, the item's stem with ``ending``."""

    def name(self, item: Item[Any], ending: str) -> str:
        """The path of that place below the output; empty where results lie beside their inputs."""
        return mirrored(item, ending)

    def expect(self, place: Place) -> None:  # noqa: B027
        """A result is being made for ``place``."""

    def settle(self, place: Place, *, kept: bool) -> None:  # noqa: B027
        """That result is written, or what was there already is ``kept``; or else it could not be made."""

    def close(self, *, complete: bool) -> None:  # noqa: B027
        """The job is over; ``complete`` where it was not interrupted."""


class Beside(Sink):
    """A sink: each result lies beside its input."""

    def place(self, item: Item[Any], ending: str) -> Place:
        """See :class:`Sink`."""
        if isinstance(item.source, Blob):
            raise UsageError(f"{item.source}: has no place beside it for its result", hint="add -o DIR")
        found: Place = item.source.with_name(f"{Path(item.relative.name).stem}{ending}")
        return found

    def name(self, item: Item[Any], ending: str) -> str:
        """See :class:`Sink`."""
        return ""


class Folder(Sink):
    """A sink: below ``path``, in a tree like that of the inputs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def place(self, item: Item[Any], ending: str) -> Place:
        """See :class:`Sink`."""
        return self.path / mirrored(item, ending)


class Itself(Sink):
    """No sink: inputs are read, and nothing is made of each."""

    def place(self, item: Item[Any], ending: str) -> Place:
        """See :class:`Sink`."""
        return cast(Place, item.source)

    def name(self, item: Item[Any], ending: str) -> str:
        """See :class:`Sink`."""
        return item.relative.as_posix()


def mirrored(item: Item[Any], ending: str) -> str:
    """The path of an item's result below an output tree."""
    return (item.relative.parent / f"{Path(item.relative.name).stem}{ending}").as_posix()


def check_plan(
    items: Callable[[], Iterable[Item[Readable]]], sink: Sink, ending: str, *, spared: Sequence[str] = ()
) -> set[str]:
    """Refuse what cannot be written, before anything is.

    ``items()`` gives the same items each time; ``spared`` are endings of what is written besides each result,
    and must replace no input either. Returns what identifies those inputs that are named more than once:
    :func:`once_each` leaves them in once.

    Raises UsageError, naming both files, where two sources would share an output or an output would replace a
    source, and where a file stands in a folder's place or a folder in a file's.
    """
    identity = _Identity()
    targets, sources, besides = array("Q"), array("Q"), array("Q")
    for item in items():
        target = sink.place(item, ending)
        targets.append(identity.print_of(target))
        sources.extend(identity.prints_of_input(item.source))
        besides.extend(identity.print_of(sink.place(item, other)) for other in spared)
        if isinstance(target, Path):
            if os.path.isdir(target):
                raise UsageError(f"{target}: a folder stands where the output of {item.source} should go")
            identity.refuse_blocked(target.parent)
    suspects = _repeated(targets) | _common(targets, sources) | _common(besides, sources)
    if not suspects:
        return set()
    named = [
        item
        for item in items()
        if suspects.intersection(
            (
                identity.print_of(sink.place(item, ending)),
                *identity.prints_of_input(item.source),
                *(identity.print_of(sink.place(item, other)) for other in spared),
            )
        )
    ]
    return _refuse_by_name(named, sink, ending, spared)


def once_each(items: Iterable[Item[Readable]], repeated: set[str]) -> Iterator[Item[Readable]]:
    """``items`` without the second and further ones of the same input, of those that are ``repeated``."""
    identity, left = _Identity(), set(repeated)
    for item in items:
        own = identity.of(item.source) if repeated else ""
        if own not in repeated or own in left:
            yield item
        left.discard(own)


def refuse_blocked(folder: Path) -> None:
    """Raise UsageError where a file stands in the way of an output folder."""
    for place in (folder, *folder.parents):
        if os.path.isdir(place):
            return
        if os.path.lexists(place):
            raise UsageError(f"{place}: a file stands where an output folder is needed")


def _refuse_by_name(
    items: Sequence[Item[Readable]], sink: Sink, ending: str, spared: Sequence[str]
) -> set[str]:
    identity = _Identity()
    repeated: set[str] = set()
    owners: dict[str, Item[Readable]] = {}
    sources: dict[str, Item[Readable]] = {}
    for item in items:
        target = sink.place(item, ending)
        seen = identity.of(target) in owners
        owner = owners.setdefault(identity.of(target), item)
        if identity.of(owner.source) != identity.of(item.source):
            raise UsageError(
                f"{owner.source} and {item.source} would both be written to {target}",
                hint="rename one, or run twice with different output folders",
            )
        if seen:
            repeated.add(identity.of(item.source))
        sources.update(dict.fromkeys(identity.all_of(item.source), item))
    for item in items:
        replaced = sources.get(identity.of(sink.place(item, ending)))
        if replaced is not None:
            raise UsageError(
                f"the output of {item.source} would replace the input {replaced.source}",
                hint="choose another output folder",
            )
        for other in spared:
            replaced = sources.get(identity.of(sink.place(item, other)))
            if replaced is not None:
                raise UsageError(
                    f"what goes with the result of {item.source} would replace the input {replaced.source}",
                    hint="choose another output folder",
                )
    return repeated


class _Identity:
    """A file's name with the links in its folder resolved; a link itself is not its target."""

    def __init__(self) -> None:
        self._folders: dict[Path, str] = {}
        self._free: set[Path] = set()

    def of(self, place: Readable) -> str:
        if not isinstance(place, Path):
            return str(place)
        if place.parent not in self._folders:
            self._folders[place.parent] = os.path.realpath(place.parent)
        return os.path.join(self._folders[place.parent], place.name)

    def all_of(self, source: Readable) -> list[str]:
        """Under what names an input must not be replaced: its own and, of a link, its target's."""
        own = self.of(source)
        linked = isinstance(source, Path) and source.is_symlink()
        return [own, os.path.realpath(str(source))] if linked else [own]

    def print_of(self, place: Readable) -> int:
        return fingerprint(self.of(place))

    def prints_of_input(self, source: Readable) -> list[int]:
        return [fingerprint(name) for name in self.all_of(source)]

    def refuse_blocked(self, folder: Path) -> None:
        if folder not in self._free:
            refuse_blocked(folder)
            self._free.add(folder)


def _repeated(prints: array[int]) -> set[int]:
    values, counts = np.unique(np.asarray(prints, np.uint64), return_counts=True)
    return set(values[counts > 1].tolist())


def _common(first: array[int], second: array[int]) -> set[int]:
    return set(np.intersect1d(np.asarray(first, np.uint64), np.asarray(second, np.uint64)).tolist())
