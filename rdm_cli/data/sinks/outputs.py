"""Where each result goes: settled before any work, and with it which results have no place.

A plan is gone through as often as one likes and kept nowhere: what it remembers of an item are 64 bits of the
names of its input and its results. Where two of them agree, the items are looked at again, by their names.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np

from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.data.io.places import Blob, Place, Readable
from rdm_cli.data.sources.folders import CODE_SUFFIXES, Item
from rdm_cli.data.sources.shards import fingerprint
from rdm_cli.errors import RdmError, UsageError


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

    @property
    def num_unfinished(self) -> int:
        """Results that were written to what is not finished: they are there only once it is."""
        return 0


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


class File(Sink):
    """A sink: the result of the one item is the file ``path``; what goes with it has the same stem.

    ``ending`` is that of the result elsewhere. Where ``-smiling.png`` becomes ``x.png``,
    ``-smiling.safetensors`` becomes ``x.safetensors``.
    """

    def __init__(self, path: Place, ending: str) -> None:
        self.path, self.ending = path, ending

    def place(self, item: Item[Any], ending: str) -> Place:
        """See :class:`Sink`."""
        if ending == self.ending:
            return self.path
        return self.path.with_name(f"{self.path.stem}{ending.removeprefix(self.ending.rpartition('.')[0])}")

    def name(self, item: Item[Any], ending: str) -> str:
        """See :class:`Sink`."""
        return self.path.name


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
    folder, slash, _ = item.relative.as_posix().rpartition("/")
    return f"{folder}{slash}{item.relative.stem}{ending}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was found out about a job's items before any work, by what identifies their inputs.

    ``repeated`` are named more than once; of ``faults`` no result can be written, for the reason given.
    """

    repeated: frozenset[str] = frozenset()
    faults: Mapping[str, UsageError] = field(default_factory=dict)

    def apply(self, items: Iterable[Item[Readable]]) -> Iterator[tuple[Item[Readable], RdmError | None]]:
        """``items``, each input once, and why it cannot be done, if it cannot."""
        identity, left = _Identity(), set(self.repeated)
        is_needed = bool(self.repeated or self.faults)
        for item in items:
            own = identity.of(item.source) if is_needed else ""
            if own not in self.repeated or own in left:
                yield item, item.error or self.faults.get(own)
            left.discard(own)


def check_plan(
    items: Callable[[], Iterable[Item[Readable]]], sink: Sink, ending: str, *, spared: Sequence[str] = ()
) -> Plan:
    """Find what cannot be written, before anything is.

    ``items()`` gives the same items each time; ``spared`` are endings of what is written besides each result,
    and must replace no input either.

    A fault names both files: of each of several inputs that would share an output, and of an input whose
    output would replace an input; or what stands in the way: a file in a folder's place or a folder in a
    file's. Raises UsageError for a sink that has no place for an item.
    """
    identity = _Identity()
    faults: dict[str, UsageError] = {}
    targets, sources, besides = array("Q"), array("Q"), array("Q")
    for item in items():
        if item.error is not None:
            continue
        target = sink.place(item, ending)
        targets.append(identity.print_of(target))
        sources.extend(identity.prints_of_input(item.source))
        besides.extend(identity.print_of(sink.place(item, other)) for other in spared)
        if isinstance(target, Path):
            fault = identity.blocked(target)
            if fault is not None:
                faults[identity.of(item.source)] = UsageError(f"{item.source}: {fault}")
    suspects = _repeated(targets) | _common(targets, sources) | _common(besides, sources)
    if not suspects:
        return Plan(faults=faults)
    named = [
        item
        for item in items()
        if item.error is None
        and suspects.intersection(
            (
                identity.print_of(sink.place(item, ending)),
                *identity.prints_of_input(item.source),
                *(identity.print_of(sink.place(item, other)) for other in spared),
            )
        )
    ]
    return _named_plan(named, sink, ending, spared, faults)


def is_file_name(output: str, written: Sequence[str]) -> bool:
    """Whether ``output`` is to be one file: it ends in a picture's suffix or a code's, and is no folder.

    ``written`` are the suffixes of what is written there; raises UsageError for another picture's or code's.
    """
    suffix = PurePosixPath(output).suffix.lower()
    if (
        suffix not in SUFFIXES.union(CODE_SUFFIXES, written)
        or output.endswith(("/", os.sep))
        or os.path.isdir(output)
    ):
        return False
    if suffix not in written:
        raise UsageError(
            f"{output}: the result is not written as {suffix}",
            hint=f"name a folder, or a file that ends in {', '.join(written)}",
        )
    return True


def refuse_blocked(folder: Path) -> None:
    """Raise UsageError where a file stands in the way of an output folder."""
    fault = _blocked(folder)
    if fault is not None:
        raise UsageError(fault)


def _blocked(folder: Path) -> str | None:
    for place in (folder, *folder.parents):
        if os.path.isdir(place):
            return None
        if os.path.lexists(place):
            return f"{place}: a file stands where an output folder is needed"
    return None


def _named_plan(
    items: Sequence[Item[Readable]],
    sink: Sink,
    ending: str,
    spared: Sequence[str],
    faults: dict[str, UsageError],
) -> Plan:
    """The plan where some of ``items`` are in one another's way, told by their names."""
    identity = _Identity()
    owners: dict[str, dict[str, Item[Readable]]] = {}  # of each output, by what identifies them
    sources: dict[str, Item[Readable]] = {}
    repeated = set[str]()
    for item in items:
        own = identity.of(item.source)
        sharing = owners.setdefault(identity.of(sink.place(item, ending)), {})
        if own in sharing:
            repeated.add(own)
        sharing.setdefault(own, item)
        sources.update(dict.fromkeys(identity.all_of(item.source), item))
    for item in items:
        own, target = identity.of(item.source), sink.place(item, ending)
        sharing = owners[identity.of(target)]
        other = next((key for key in sharing if key != own), None)
        replaced = sources.get(identity.of(target))
        besides = [sources.get(identity.of(sink.place(item, beside))) for beside in spared]
        if other is not None:
            one, two = (sharing[key].source for key in sharing if key in (own, other))
            faults[own] = UsageError(
                f"{one} and {two} would both be written to {target}",
                hint="rename one, or run twice with different output folders",
            )
        elif replaced is not None:
            faults[own] = UsageError(
                f"the output of {item.source} would replace the input {replaced.source}",
                hint="choose another place for results",
            )
        elif (spoiled := next(filter(None, besides), None)) is not None:
            faults[own] = UsageError(
                f"what goes with the result of {item.source} would replace the input {spoiled.source}",
                hint="choose another place for results",
            )
    return Plan(repeated=frozenset(repeated), faults=faults)


class _Identity:
    """A file's name with the links in its folder resolved; a link itself is not its target."""

    def __init__(self) -> None:
        self._folders: dict[Path, str] = {}
        self._blocked: dict[Path, str | None] = {}

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

    def blocked(self, target: Path) -> str | None:
        """What stands in the way of an output, if anything does."""
        if os.path.isdir(target):
            return f"{target}: a folder stands where its output should go"
        if target.parent not in self._blocked:
            self._blocked[target.parent] = _blocked(target.parent)
        return self._blocked[target.parent]


def _repeated(prints: array[int]) -> set[int]:
    values, counts = np.unique(np.asarray(prints, np.uint64), return_counts=True)
    return set(values[counts > 1].tolist())


def _common(first: array[int], second: array[int]) -> set[int]:
    return set(np.intersect1d(np.asarray(first, np.uint64), np.asarray(second, np.uint64)).tolist())
