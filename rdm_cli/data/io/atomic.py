"""Files appear whole or not at all, and what a kill leaves half written is found and removed.

What is being written has a hidden name, ``.rdm-*``, and is locked by its writer. A lock ends with the
process, however it ends: whatever has such a name and no lock is nobody's any more.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # no Unix: nothing is locked, and leftovers stay
    fcntl = None  # type: ignore[assignment]

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_looked_through: set[Path] = set()
_NAME = re.compile(r"\.rdm-.*-[a-z0-9_]{8}(\..*)?", re.DOTALL)


@contextmanager
def naming(place: object) -> Iterator[None]:
    """Within the block, the error of a full disk names ``place``, where it names no file yet."""
    try:
        yield
    except OSError as error:
        is_named = error.filename is not None and not Path(str(error.filename)).name.startswith(".rdm-")
        if error.errno in _FULL and not is_named:
            error.filename, error.strerror = (
                str(place),
                os.strerror(error.errno),
            )
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary file in ``path``'s folder, renamed to ``path`` when the block succeeds.

    Where the block fails or is interrupted, the temporary file goes and ``path`` stays as it was. The first
    time that this process writes to a folder, leftovers of others go. A full disk's error names ``path``.
    """
    with _replacing(path) as (temporary, _):
        yield temporary


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` as :func:`atomic_path` does."""
    with _replacing(path) as (_, handle):
        left = memoryview(data)
        while left:
            left = left[os.write(handle, left) :]


@contextmanager
def _replacing(path: Path) -> Iterator[tuple[Path, int]]:
    if path.parent not in _looked_through:
        path.parent.mkdir(parents=True, exist_ok=True)
        _looked_through.add(path.parent)
        remove_leftovers(path.parent)
    with naming(path), _own_file(path) as (temporary, handle):
        yield temporary, handle
        os.replace(temporary, path)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new, empty folder beside ``path`` that takes its place when the block succeeds.

    A folder that was at ``path`` is there until then, whole, and gone afterwards.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, of=path.name)
    with _own_folder(path) as new:
        yield new
        new.chmod(0o777 & ~_umask())
        if not path.exists():
            new.replace(path)
        elif not _exchange(new, path):
            old = path.with_name(f".{path.name}.old-{os.getpid()}")  # a kill now leaves it to be found
            path.replace(old)
            try:
                new.replace(path)
            except BaseException:
                old.replace(path)
                raise
            shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(*folders: Path, of: str = "") -> None:
    """Remove what killed processes left half written in ``folders``: any file, or what was to be ``of``."""
    for folder in folders:
        with suppress(OSError):  # a folder that is not there, or is not ours, has none to remove
            for path in [Path(entry.path) for entry in os.scandir(folder) if _NAME.fullmatch(entry.name)]:
                if path.name.startswith(f".rdm-{_short(of)}"):
                    _remove_if_nobodys(path)


@contextmanager
def _own_file(path: Path) -> Iterator[tuple[Path, int]]:
    """A new file, locked, with the permissions that the umask gives: its name and its open handle."""
    while True:
        temporary = path.parent / f".rdm-{_short(path.stem)}-{os.urandom(4).hex()}{path.suffix}"
        try:
            handle = _created(temporary)
        except FileExistsError:
            continue
        if _lock(handle) and os.fstat(handle).st_nlink:
            break
        os.close(handle)  # removed as a leftover, in the moment before it was locked
    try:
        yield temporary, handle
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def _created(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:  # the folder has gone since it was made
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o666)


@contextmanager
def _own_folder(path: Path) -> Iterator[Path]:
    while True:
        new = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".rdm-{_short(path.name)}-"))
        with suppress(OSError):
            handle = os.open(new, os.O_RDONLY)
            if _lock(handle) and new.exists():
                break
            os.close(handle)
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)
        os.close(handle)


def _short(name: str) -> str:
    return name[:40]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _lock(handle: int, *, wait: bool = True) -> bool:
    """Lock a file for as long as this process has it open; False where another one has, and none is to wait.

    Where the file system knows no locks, writers go on and leftovers stay.
    """
    if fcntl is None:
        return wait
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return wait
    return True


def _remove_if_nobodys(path: Path) -> None:
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if not _lock(handle, wait=False):
                return
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        finally:
            os.close(handle)


def _exchange(first: Path, second: Path) -> bool:
    """Let two folders change places in one step; False where the system cannot."""
    import ctypes

    at_the_working_folder, exchanging = -100, 2
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    names = (os.fsencode(first), os.fsencode(second))
    here = at_the_working_folder
    return bool(rename(here, names[0], here, names[1], exchanging) == 0)
