"""What rdm says when something is wrong: one line, and where it helps, the next command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_write_setting: Callable[[str], str] = str


def setting(name: str) -> str:
    """How messages write a setting: as Python does or, within :func:`settings_written_by`, as asked.

    So a message names ``batch_size`` in Python, and ``--batch-size`` on the command line.
    """
    return _write_setting(name)


def setting_writer() -> Callable[[str], str]:
    """What :func:`setting` writes by now, for another process to write alike."""
    return _write_setting


@contextmanager
def settings_written_by(write: Callable[[str], str]) -> Iterator[None]:
    """Within the block, in every thread of the process, ``write`` says how a setting is called."""
    global _write_setting
    before, _write_setting = _write_setting, write
    try:
        yield
    finally:
        _write_setting = before


class RdmError(Exception):
    """An error of the user's world (a file, a bundle, a setting), told in one line.

    ``message`` says what is wrong and where; ``hint`` says what to do next.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(RdmError):
    """The command's words contradict each other or name something that does not exist."""

    exit_code = 2


class StreamError(RdmError):
    """stdout takes nothing more: a full disk, or it is closed."""


class ReaderGoneError(StreamError):
    """Whoever read stdout has closed it (``| head -1``); told by the exit code of SIGPIPE alone."""

    exit_code = 141


class PartialError(RdmError):
    """Not all that was asked for was done; what was done is there."""

    exit_code = 3


class SourceError(RdmError):
    """A source or a place of results that cannot be read or written: an archive, a table, an object store."""


class ImageError(RdmError):
    """A file that should be an image and cannot be read as one."""


class PictureError(RdmError):
    """A picture, or its latents, that cannot be written: the values are not finite."""


class BundleError(RdmError):
    """A bundle that is missing, incomplete or of another kind."""


class UnknownBundleError(BundleError):
    """A bundle's name that names none: a wrong word, as that of an unknown attribute is."""

    exit_code = UsageError.exit_code


class ClassifierError(RdmError):
    """A classifier that cannot be opened or asked, or whose answers are no scores."""


class CodeError(RdmError):
    """A code file that is missing, damaged or belongs to another bundle."""


class OccupiedError(RdmError):
    """A place that holds what rdm did not write, or wrote for something else: it stays unless forced."""


class CheckpointError(RdmError):
    """A foreign checkpoint, or one of a training run, that cannot be read."""
