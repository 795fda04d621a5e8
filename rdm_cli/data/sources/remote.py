"""Files elsewhere, by URL, through fsspec: ``s3://``, ``hf://``, ``gs://`` and what else it knows.

``file://`` is a local path and treated as one. What runs a command (``pipe:``) is no file and is refused. A
backend's own exceptions become one line each; its retries, credentials and endpoints are its own business.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self
from urllib.parse import unquote

from rdm_cli.data.io.optional import optional_module
from rdm_cli.data.io.places import Named, Place, Readable
from rdm_cli.data.sinks.outputs import Sink, mirrored
from rdm_cli.data.sources.folders import Item, PassedOver, has_suffix
from rdm_cli.data.sources.source import Holds, all_of
from rdm_cli.errors import RdmError, SourceError, UsageError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", flags=re.DOTALL)
BLOCK_BYTES = 8 * 2**20
# What each protocol's backend is installed with, where it is not one of fsspec's own.
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
READ_ONLY = ("hf", "http", "https")


def place_of(name: str) -> Path | RemoteFile:
    """One file, here or by URL."""
    return RemoteFile.at(name) if is_url(name) else Path(local_name(name))


def writable_place(name: str) -> Path | RemoteFile:
    """One file that is to be written; raises UsageError for a store to which nothing is written."""
    _refuse_read_only(name)
    return place_of(name)


def names_below(url: str, ending: str) -> list[str]:
    """The URLs of the files right below a URL whose names end so, sorted."""
    filesystem, folder = filesystem_of(url)
    with told(url):
        names = (PurePosixPath(path).name for path in filesystem.ls(folder, detail=False))
        return [f"{url.rstrip('/')}/{name}" for name in sorted(names) if name.endswith(ending)]


def is_url(name: str) -> bool:
    """Whether a name is a URL of what does not lie here."""
    return _URL.fullmatch(name) is not None


def local_name(name: str) -> str:
    """A ``file://`` URL as a path; other names as they are. Raises UsageError for what runs a command."""
    if name.startswith("pipe:"):
        raise UsageError(
            f"{name}: runs a command, which rdm does not", hint="pipe its output into 'rdm ... -'"
        )
    match = _URL.fullmatch(name)
    if match is None or match[1].lower() != "file":
        return name
    if not match[2].startswith("/"):
        raise UsageError(f"{name}: a file:// URL has three slashes", hint="file:///home/me/faces")
    return unquote(match[2])


@contextmanager
def open_stream(name: str, *, in_pieces: bool = False) -> Iterator[IO[bytes]]:
    """A file or URL, open for reading from its beginning to its end; or a few bytes here and there."""
    if not is_url(name):
        with Path(name).open("rb") as file:
            yield file
        return
    filesystem, path = filesystem_of(name)
    with told(name):
        options = {"cache_type": "none"} if in_pieces else {"block_size": BLOCK_BYTES}
        remote = filesystem.open(path, "rb", **options)
    with remote:
        yield remote


def filesystem_of(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path within; UsageError where there is no backend."""
    match = _URL.fullmatch(url)
    assert match is not None, "only URLs have file systems"
    protocol = match[1].lower()
    fsspec: Any = optional_module("fsspec", package="fsspec", purpose=f"{protocol}://")
    if "::" in url:
        raise UsageError(f"{url}: chained URLs are not read")
    try:
        # a listing that is kept would be the names of a million files
        filesystem = fsspec.filesystem(protocol, use_listings_cache=False)
    except ImportError:
        package = PACKAGES.get(protocol)
        hint = "pip install 'rdm-cli[s3]'" if package == "s3fs" else f"pip install {package}"
        raise UsageError(f"{url}: {protocol}:// needs {package or 'another package'}", hint=hint) from None
    except ValueError:
        raise UsageError(f"{url}: nothing is known that reads {protocol}://") from None
    return filesystem, filesystem._strip_protocol(url)


@contextmanager
def told(url: str) -> Iterator[None]:
    """Whatever a backend raises, as a SourceError of one line; each has exceptions of its own."""
    try:
        yield
    except RdmError:
        raise
    except FileNotFoundError:
        raise SourceError(f"{url}: not there") from None
    except PermissionError as error:
        raise SourceError(f"{url}: may not be read or written ({error})") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(f"{url}: {reason}") from error


class RemoteFile(Named):
    """A :class:`~rdm_cli.data.io.places.Place`: an object in a store, which appears whole when written."""

    def __init__(self, url: str, filesystem: Any) -> None:
        super().__init__(url)
        self._filesystem = filesystem

    @classmethod
    def at(cls, url: str) -> Self:
        """The file of this URL."""
        return cls(url, filesystem_of(url)[0])

    @property
    def _inner(self) -> str:
        return str(self._filesystem._strip_protocol(self.path))

    def with_name(self, name: str, /) -> Self:
        """See :class:`~rdm_cli.data.io.places.Place`."""
        return type(self)(f"{self.path.rpartition('/')[0]}/{name}", self._filesystem)

    def is_file(self) -> bool:
        """See :class:`~rdm_cli.data.io.places.Place`."""
        with told(self.path):
            return bool(self._filesystem.isfile(self._inner))

    def read_bytes(self) -> bytes:
        """See :class:`~rdm_cli.data.io.places.Readable`."""
        with told(self.path):
            content: bytes = self._filesystem.cat_file(self._inner)
            return content

    def modified(self) -> float | None:
        """When it was written, in seconds since 1970; None where the store does not say."""
        with told(self.path):
            try:
                return float(self._filesystem.modified(self._inner).timestamp())
            except (NotImplementedError, AttributeError):
                return None

    def write_bytes(self, data: bytes, /) -> int:
        """See :class:`~rdm_cli.data.io.places.Place`."""
        with told(self.path):
            self._filesystem.pipe_file(self._inner, data)
        return len(data)

    @contextmanager
    def local_copy(self) -> Iterator[Path | None]:
        """What is there as a temporary file; None where nothing is."""
        if not self.is_file():
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="rdm-") as folder:
            path = Path(folder) / self.name
            with told(self.path):
                self._filesystem.get_file(self._inner, str(path))
            yield path

    @contextmanager
    def replacement(self) -> Iterator[Path]:
        """A temporary file, which is put there when the block succeeds."""
        with tempfile.TemporaryDirectory(prefix="rdm-") as folder:
            path = Path(folder) / self.name
            yield path
            with told(self.path):
                self._filesystem.put_file(str(path), self._inner)


NAMED_LIKE_RESULTS = "named like a result of this command"


class Remote:
    """A source: an object, or those below a prefix whose names end in one of ``suffixes``, sorted by path.

    Objects of other names are passed over without a look into them, and counted.
    """

    counted = True
    whole = False

    def __init__(self, url: str, *, suffixes: Set[str], results: Sequence[str] = ()) -> None:
        self.url, self.suffixes, self.results = url.rstrip("/"), suffixes, results
        self.passed_over = PassedOver()
        self._filesystem, self._root = filesystem_of(self.url)

    def items(self, holds: Holds = all_of) -> Iterator[Item[Readable]]:
        """See :class:`~rdm_cli.data.sources.source.Source`."""
        self.passed_over.clear()
        if has_suffix(self.url, self.suffixes):
            name = PurePosixPath(self.url).name
            if holds(name):
                yield Item(source=RemoteFile(self.url, self._filesystem), relative=Path(name))
            return
        self.passed_over.clear()
        empty = True
        for relative in self._below(self._root):
            empty = False
            if holds(relative):
                source = RemoteFile(f"{self.url}/{relative}", self._filesystem)
                yield Item(source=source, relative=Path(relative))
        if empty:
            raise UsageError(f"{self.url}/: nothing there that could be read")

    def _below(self, folder: str) -> Iterator[str]:
        """Paths below the root, one listing of a folder in memory at a time for each level."""
        with told(f"{self.url}/"):
            found = self._filesystem.ls(folder, detail=True)
        entries = sorted((str(e["name"]).rstrip("/"), e["type"] == "directory") for e in found)
        del found
        endings = [ending for ending in self.results if has_suffix(f"x{ending}", self.suffixes)]
        made = {f"{path.rpartition('.')[0]}{ending}" for ending in endings for path, _ in entries}
        for path, is_folder in entries:
            if PurePosixPath(path).name.startswith(".") or path == folder:
                continue
            if is_folder:
                yield from self._below(path)
            elif not has_suffix(path, self.suffixes):
                self.passed_over.add_of_kind(PurePosixPath(path).name)
            elif path in made:
                self.passed_over[NAMED_LIKE_RESULTS] += 1
            else:
                yield path[len(self._root.rstrip("/")) + 1 :]


def _refuse_read_only(url: str) -> None:
    protocol = url.partition("://")[0].lower() if is_url(url) else ""
    if protocol in READ_ONLY:
        raise UsageError(
            f"{url}: results are not written to {protocol}://", hint="write them elsewhere, then upload"
        )


class RemoteFolder(Sink):
    """A sink: below a URL, in a tree like that of the inputs."""

    def __init__(self, url: str) -> None:
        _refuse_read_only(url)
        self.url = url.rstrip("/")
        self._filesystem, _ = filesystem_of(url)

    def place(self, item: Item[Any], ending: str) -> Place:
        """See :class:`~rdm_cli.data.sinks.outputs.Sink`."""
        return RemoteFile(f"{self.url}/{mirrored(item, ending)}", self._filesystem)
