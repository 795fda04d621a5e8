"""Which files a command works on, and where each result goes: settled, and refused, before any work."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rdm_cli.data.images import SUFFIXES
from rdm_cli.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Item:
    """One input file; ``relative`` is its place under an output tree, with its original suffix."""

    source: Path
    relative: Path


def find_inputs(
    paths: Sequence[Path], *, suffixes: Set[str] = SUFFIXES, results: Sequence[str] = ()
) -> list[Item]:
    """The files that ``paths`` stand for: named files as given, folders searched recursively.

    A file named on its own is taken whatever its suffix. In a folder, names with one of ``suffixes``
    (lower case, with the dot) count, in any case and in sorted order; hidden ones are skipped.
    A dangling link or a folder with such a name is an item too, so that reading it fails by name.
    Linked folders are followed, each folder once. The order of ``paths`` is kept, and duplicates too.
    ``results`` are the endings of what the command writes: in a folder, a name that is another item's
    stem with such an ending is an earlier run's result, and is left out.

    Raises UsageError for a path that does not exist, a folder that cannot be listed or holds no
    such file, and for no paths at all.
    """
    if not paths:
        raise UsageError("no inputs were given", hint="name files or folders")
    items: list[Item] = []
    for path in paths:
        if not os.path.lexists(path):
            raise UsageError(f"{path}: no such file or folder")
        if not os.path.isdir(path):
            items.append(Item(source=path, relative=Path(path.name)))
            continue
        found = sorted(_without_results(_walk(path, suffixes), results), key=lambda item: item.relative.parts)
        if not found and path.suffix.lower() in suffixes:
            found = [Item(source=path, relative=Path(path.name))]  # faces/* may name a folder x.png
        if not found:
            raise UsageError(
                f"{str(path).rstrip('/')}/: no {_nouns(suffixes)} found",
                hint=f"looked for {', '.join(sorted(suffixes))}",
            )
        items.extend(found)
    return items


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of ``folder``'s sub-folders that hold images: its classes, sorted.

    Raises UsageError for an image that lies in none, and for fewer than two classes.
    """
    found = dict.fromkeys(class_of(item) for item in find_inputs([folder]))
    if len(found) < 2:
        raise UsageError(
            f"{folder}/: {len(found)} sub-folder with images, and classes are two or more",
            hint="each class is a sub-folder",
        )
    return tuple(sorted(found))


def class_of(item: Item) -> str:
    """The sub-folder in which an image below a folder of classes lies; raises UsageError for none."""
    if len(item.relative.parts) < 2:
        raise UsageError(f"{item.source}: lies in no sub-folder, which would be its class")
    return item.relative.parts[0]


def _without_results(items: Iterable[Item], endings: Sequence[str]) -> list[Item]:
    items = list(items)
    made = {item.source.with_name(f"{item.source.stem}{ending}") for item in items for ending in endings}
    return [item for item in items if item.source not in made]


def _nouns(suffixes: Set[str]) -> str:
    if ".safetensors" not in suffixes:
        return "images"
    return "images or codes" if suffixes & SUFFIXES else "codes"


def _walk(root: Path, suffixes: Set[str]) -> Iterator[Item]:
    """Items below ``root``, unsorted. Real folders come before links, so a folder keeps its own name."""
    visited: set[tuple[int, int]] = set()
    folders, links = [root], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            status = folder.stat()
            visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        except OSError as error:
            raise UsageError(f"{folder}/: cannot be listed ({error.strerror})") from error
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        for path in visible:
            if path.suffix.lower() in suffixes:
                yield Item(source=path, relative=path.relative_to(root))
            elif os.path.isdir(path):
                (links if path.is_symlink() else folders).append(path)


def plan_outputs(items: Iterable[Item], *, output: Path | None, suffix: str) -> list[tuple[Item, Path]]:
    """Each item's output file, ending in ``suffix``: beside its source, or mirrored under ``output``.

    A source named twice is planned once. Raises UsageError, naming both files, where two sources
    would share an output or an output would replace a source, and where a file stands in a folder's
    place or a folder in a file's.
    """
    plan: list[tuple[Item, Path]] = []
    identity = _Identity()
    owners: dict[str, Item] = {}
    sources: dict[str, Item] = {}
    for item in items:
        place = item.source.parent if output is None else output / item.relative.parent
        target = place / f"{Path(item.relative.name).stem}{suffix}"
        source = identity.of(item.source)
        owner = owners.get(identity.of(target))
        if owner is not None:
            if identity.of(owner.source) == source:
                continue
            raise UsageError(
                f"{owner.source} and {item.source} would both be written to {target}",
                hint="rename one, or run twice with different output folders",
            )
        owners[identity.of(target)] = item
        sources[source] = sources[os.path.realpath(item.source)] = item
        plan.append((item, target))
    for item, target in plan:
        replaced = sources.get(identity.of(target))
        if replaced is not None:
            raise UsageError(
                f"the output of {item.source} would replace the input {replaced.source}",
                hint="choose another output folder",
            )
        if os.path.isdir(target):
            raise UsageError(f"{target}: a folder stands where the output of {item.source} should go")
    for folder in dict.fromkeys(target.parent for _, target in plan):
        _refuse_blocked(folder)
    if output is not None and not plan:
        _refuse_blocked(output)
    return plan


class _Identity:
    """A file's name with the links in its folder resolved; a link itself is not its target."""

    def __init__(self) -> None:
        self._folders: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        if path.parent not in self._folders:
            self._folders[path.parent] = os.path.realpath(path.parent)
        return os.path.join(self._folders[path.parent], path.name)


def _refuse_blocked(folder: Path) -> None:
    for place in (folder, *folder.parents):
        if os.path.isdir(place):
            return
        if os.path.lexists(place):
            raise UsageError(f"{place}: a file stands where an output folder is needed")


def read_path_list(stream: IO[str] | IO[bytes]) -> list[Path]:
    """Paths from ``stream``: one a line, blank lines skipped; or NUL-separated if it holds a NUL.

    A text stream over bytes (such as stdin) is read as bytes, for file names need not be UTF-8.
    """
    content = getattr(stream, "buffer", stream).read()
    text: str = os.fsdecode(content) if isinstance(content, bytes) else content
    if "\0" in text:
        return [Path(name) for name in text.split("\0") if name]
    lines = text.removeprefix("\ufeff").split("\n")
    return [Path(line.removesuffix("\r")) for line in lines if line.strip()]
