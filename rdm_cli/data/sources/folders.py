"""Which files a command works on: those that it was given, and those below the folders that it was given."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from rdm_cli.data.images.kinds import holds_image
from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.data.images.record import is_edited_code, is_own_picture
from rdm_cli.data.io.places import Readable
from rdm_cli.errors import RdmError, UsageError

CODE_SUFFIX = ".safetensors"
CODE_SUFFIXES = frozenset((CODE_SUFFIX,))

S = TypeVar("S", bound=Readable, covariant=True)


@dataclass(frozen=True, kw_only=True)
class Item(Generic[S]):
    """One input; ``relative`` is its place under an output tree, with its original suffix.

    ``error`` says why it cannot be read, where that is known already.
    """

    source: S
    relative: Path
    error: RdmError | None = None


MADE_BY_RDM = "made by rdm"
_REASONS_SAID = 8


class PassedOver(Counter[str]):
    """How many files of searched folders are no inputs, by the reason in plain words.

    Whoever passes a file over counts it here, and the command's summary says so.
    """

    def __str__(self) -> str:
        """``passed over 3 files made by rdm, 2 files ...``; empty where nothing was."""
        common = sorted(self.most_common(_REASONS_SAID))
        if left := self.total() - sum(n for _, n in common):
            common.append(("of other kinds", left))
        parts = [f"{n} {'file' if n == 1 else 'files'} {reason}" for reason, n in common if n]
        return f"passed over {', '.join(parts)}" if parts else ""

    def add_of_kind(self, name: str) -> None:
        """Count a file that is no input, as one of the kind that its name says."""
        suffix = os.path.splitext(name)[1].lower()
        self[f"of kind {suffix}" if suffix else "without a suffix"] += 1


def find_inputs(
    paths: Sequence[Path],
    *,
    suffixes: Set[str] = SUFFIXES,
    passed_over: PassedOver | None = None,
    own_too: bool = False,
) -> list[Item[Path]]:
    """The files that ``paths`` stand for: named files as given, folders searched recursively.

    A file named on its own is taken whatever its suffix and its maker; for folders see :func:`items_below`.
    The order of ``paths`` is kept, and duplicates too.

    Raises UsageError for a path that does not exist, a folder that cannot be listed or holds no
    such file, and for no paths at all.
    """
    if not paths:
        raise UsageError("no inputs were given", hint="name files or folders")
    told: dict[str, Any] = {"suffixes": suffixes, "passed_over": passed_over, "own_too": own_too}
    found = [item for path in paths for item in items_at(path, **told)]
    for item in found:
        if item.error is not None:
            raise item.error
    return found


def items_at(
    path: Path,
    *,
    suffixes: Set[str],
    passed_over: PassedOver | None = None,
    own_too: bool = False,
) -> Iterator[Item[Path]]:
    """What one path stands for; see :func:`find_inputs`."""
    if not os.path.lexists(path):
        raise UsageError(f"{path}: no such file or folder")
    if not os.path.isdir(path):
        yield Item(source=path, relative=Path(path.name))
        return
    empty, mine = True, None if passed_over is None else PassedOver()
    for item in items_below(path, suffixes=suffixes, passed_over=mine, own_too=own_too):
        empty = False
        yield item
    if mine and passed_over is not None:
        passed_over.update(mine)
    if not empty:
        return
    if path.suffix.lower() not in suffixes:
        own = mine is not None and mine[MADE_BY_RDM]
        raise UsageError(
            f"{str(path).rstrip('/')}/: no {_nouns(suffixes)} found{f' ({mine})' if mine else ''}",
            hint="such pictures are inputs where they are named as files"
            if own
            else f"looked for {', '.join(sorted(suffixes))}",
        )
    yield Item(source=path, relative=Path(path.name))  # faces/* may name a folder x.png


def items_below(
    root: Path,
    *,
    suffixes: Set[str],
    passed_over: PassedOver | None = None,
    own_too: bool = False,
) -> Iterator[Item[Path]]:
    """The files below a folder whose names end in one of ``suffixes``, in sorted order of their paths.

    Where images are looked for, files of other names are items too if their first bytes are an image's. What
    is none is counted in ``passed_over``, by kind.

    The suffixes are in lower case, with the dot, and count in any case; hidden names are skipped. A dangling
    link or a folder with such a name is an item too, so that reading it fails by name. Linked folders are
    followed, each folder once. Pictures that rdm made and, where images are looked for too, codes of edits
    are no items and are counted in ``passed_over``; None, or with ``own_too``: they are items as any others.

    Keeps the names of the folders, and those of the files of one folder at a time. A folder below ``root``
    that cannot be listed is an item with an error; raises UsageError where ``root`` cannot be.
    """
    yield from _items_of(root, root, _folders_below(root, suffixes), suffixes, passed_over, own_too)


def _items_of(
    root: Path,
    folder: Path,
    folders: Mapping[Path, UsageError | None],
    suffixes: Set[str],
    passed_over: PassedOver | None,
    own_too: bool,
) -> Iterator[Item[Path]]:
    if (error := folders[folder]) is not None:
        yield Item(source=folder, relative=folder.relative_to(root), error=error)
        return
    by_content, relative = bool(suffixes & SUFFIXES), folder.relative_to(root)
    names, to_be_searched = set[str](), set[str]()
    for entry in _entries(folder):
        if has_suffix(entry.name, suffixes):
            names.add(entry.name)
        elif (path := folder / entry.name) in folders:
            to_be_searched.add(entry.name)
        elif by_content and holds_image(path):
            names.add(entry.name)
        elif passed_over is not None and not _is_folder(entry):
            passed_over.add_of_kind(entry.name)
    for name in sorted(names | to_be_searched):
        path = folder / name
        if name in to_be_searched:
            yield from _items_of(root, path, folders, suffixes, passed_over, own_too)
        elif passed_over is not None and not own_too and _is_own(path, suffixes):
            passed_over[MADE_BY_RDM] += 1
        else:
            yield Item(source=path, relative=relative / name)


def _folders_below(root: Path, suffixes: Set[str]) -> Mapping[Path, UsageError | None]:
    """``root`` and the folders below it, each under one name: its own rather than a link's.

    With each stands why it cannot be listed, if it cannot.
    """
    visited: dict[tuple[int, int], Path] = {}
    errors: dict[Path, UsageError] = {}
    folders, links = [root], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            with _named(folder):
                status = folder.stat()
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited[status.st_dev, status.st_ino] = folder
            found = [e for e in _entries(folder) if not has_suffix(e.name, suffixes) and _is_folder(e)]
        except UsageError as error:
            if folder == root:
                raise
            errors[folder] = error
            continue
        for entry in sorted(found, key=lambda entry: entry.name):
            (links if entry.is_symlink() else folders).append(folder / entry.name)
    return {folder: errors.get(folder) for folder in (*visited.values(), *errors)}


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with _named(folder), os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Without a look at the disk for what is no link; a link that leads in a circle is no folder."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{folder}/: cannot be listed ({error.strerror})") from error


def has_suffix(name: str, suffixes: Set[str]) -> bool:
    """Whether a name ends in one of ``suffixes``, in any case."""
    return os.path.splitext(name)[1].lower() in suffixes


def _is_own(path: Path, suffixes: Set[str]) -> bool:
    """Whether rdm made it and it is no input: a picture, or beside images the code of an edit."""
    if has_suffix(path.name, CODE_SUFFIXES):
        return bool(suffixes & SUFFIXES) and is_edited_code(path)
    return is_own_picture(path)


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of ``folder``'s sub-folders that hold images: its classes, sorted.

    Raises UsageError for an image that lies in none, and for fewer than two classes.
    """
    found = dict.fromkeys(class_of(item) for item in find_inputs([folder], passed_over=PassedOver()))
    if len(found) < 2:
        raise UsageError(
            f"{folder}/: {len(found)} sub-folder with images, and classes are two or more",
            hint="each class is a sub-folder",
        )
    return tuple(sorted(found))


def class_of(item: Item[Path]) -> str:
    """The sub-folder in which an image below a folder of classes lies; raises UsageError for none."""
    if len(item.relative.parts) < 2:
        raise UsageError(f"{item.source}: lies in no sub-folder, which would be its class")
    return item.relative.parts[0]


def _nouns(suffixes: Set[str]) -> str:
    if CODE_SUFFIX not in suffixes:
        return "images"
    return "images or codes" if suffixes & SUFFIXES else "codes"


def read_path_list(stream: BinaryIO) -> Iterator[str]:
    """Paths from a seekable ``stream``: one a line, blank lines skipped; or NUL-separated if it holds a NUL.

    Bytes, for file names need not be UTF-8. One name is held at a time.
    """
    if not any(b"\0" in part for part in _parts(stream)):
        stream.seek(0)
        for i, line in enumerate(stream):
            name = line.removeprefix(b"\xef\xbb\xbf") if i == 0 else line
            if name.strip():
                yield os.fsdecode(name.removesuffix(b"\n").removesuffix(b"\r"))
        return
    rest = b""
    for part in _parts(stream):
        *whole, rest = (rest + part).split(b"\0")
        yield from (os.fsdecode(name) for name in whole if name)
    if rest:
        yield os.fsdecode(rest)


def _parts(stream: BinaryIO) -> Iterator[bytes]:
    """A stream from its beginning, 64 KiB at a time."""
    stream.seek(0)
    return iter(partial(stream.read, 2**16), b"")
