"""Data to stdout, talk and progress to stderr."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from rdm_cli.errors import ReaderGoneError, StreamError
from rdm_cli.escapes import printable

if TYPE_CHECKING:
    from rich.progress import Progress

LONGEST, DEEPEST, MOST_ITEMS = 2000, 3, 100  # characters, levels and items of a value that is printed
LOG_SECONDS = 60.0  # between two lines about progress where there is no terminal

_BYTES = "".join(map(chr, range(0xDC80, 0xDD00)))  # what Python makes of bytes that are no UTF-8


class Console:
    """One command's voice.

    ``emit`` writes one line of data: the text or, with ``as_json``, the fields as one JSON object.
    Everything else goes to stderr, and with ``quiet`` only errors do. Text is escaped, for it may hold names
    of files: one item is one line, and no terminal obeys it. JSON holds names as they are.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._remarked: set[tuple[str, str]] = set()
        self._bar: Progress | None = None  # the one that is on the screen

    def emit(self, text: str, **fields: Any) -> None:
        """One item of data; ``text`` may be parted by tabs."""
        self._write(json.dumps(_strict(fields), allow_nan=False) if self.as_json else text, "\t")

    def emit_document(self, text: str, **fields: Any) -> None:
        """As :meth:`emit`, for a text of many lines."""
        self._write(json.dumps(_strict(fields), allow_nan=False) if self.as_json else text, "\t\n")

    def _write(self, text: str, keep: str) -> None:
        if not sys.stdout.isatty():
            keep += _BYTES  # a program that reads paths gets a name that is no UTF-8 as it is
        self.emit_bytes(printable(text, keep).encode("utf-8", "surrogateescape") + b"\n")

    def emit_bytes(self, data: bytes) -> None:
        """Raw data, for ``-o -``."""
        with self._without_bar(sys.stdout):
            write_out(data)

    def note(self, text: str) -> None:
        """A remark for people."""
        if not self.quiet:
            self.problem(text)

    def remark(self, name: str, text: str) -> None:
        """A remark on one input, said once."""
        if (name, text) not in self._remarked:
            self._remarked.add((name, text))
            self.note(f"rdm: {name}: {text}")

    def problem(self, text: str) -> None:
        """One line about something that failed; shown even when quiet."""
        with self._without_bar(sys.stderr):
            say(text)

    @contextmanager
    def _without_bar(self, stream: IO[str]) -> Iterator[None]:
        """Within the block no bar stands where a line on ``stream`` would be written into it."""
        bar = self._bar
        if bar is None or not stream.isatty():
            yield
            return
        bar.stop()
        try:
            yield
        finally:
            bar.start()

    @contextmanager
    def progress(
        self, label: str, total: float | None, *, unit: str = "", in_logs: bool = True
    ) -> Iterator[Callable[[float], None]]:
        """Show how far some work is; yields ``advance(amount)``, of which ``total`` is all (None: not known).

        On a terminal: a bar, which gives way to every line that is printed. Elsewhere, with ``in_logs``: a
        line a minute. ``unit`` is what is counted, in the plural; without one only the percentage is shown.
        """
        if self.quiet:
            yield lambda amount: None
        elif sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
            with self._on_screen(label, total, unit) as advance:
                yield advance
        elif in_logs:
            with _in_log(label, total, unit) as advance:
                yield advance
        else:
            yield lambda amount: None

    @contextmanager
    def _on_screen(self, label: str, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:
        from rich import progress
        from rich.console import Console as RichConsole

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[counted]}", markup=False),
            progress.TimeRemainingColumn(),
            progress.TimeElapsedColumn(),
        )
        screen = RichConsole(stderr=True)
        done = 0.0
        with progress.Progress(*columns, console=screen, transient=True, redirect_stdout=False) as bar:
            task = bar.add_task(printable(label), total=total, counted=_counted(done, total, unit))

            def advance(amount: float) -> None:
                nonlocal done
                done = min(done + amount, done + amount if total is None else total)
                bar.update(task, completed=done, counted=_counted(done, total, unit))

            self._bar = bar
            try:
                yield advance
            finally:
                self._bar = None

    def facts(self, title: str, facts: Mapping[str, Any]) -> None:
        """What is known of one thing, for people, on stdout: its name, then a line for each of ``facts``.

        Values may be what JSON has, nested too; long ones are cut, and it is said by how much.
        """
        shown = {_in_words(name, longest=40): _in_words(facts[name]) for name in [*facts][:MOST_ITEMS]}
        if len(facts) > MOST_ITEMS:
            shown["..."] = f"{len(facts) - MOST_ITEMS} more"
        width = max(map(len, shown), default=0)
        lines = [f"  {name:<{width}}  {text}" for name, text in shown.items()]
        self.emit_document("\n".join(printable(line, _BYTES) for line in [title, *lines]))

    def table(
        self,
        title: str,
        columns: list[str],
        rows: list[list[str]],
        *,
        num_words: int = 1,
        below: Iterable[str] = (),
    ) -> None:
        """A table for people, on stdout: what a listing command was asked for.

        The first ``num_words`` columns say what a row is about; the others hold figures. Lines ``below`` it
        explain it.
        """
        from rich.console import Console as RichConsole
        from rich.table import Table
        from rich.text import Text

        def plain(cell: str) -> Text:  # a name may hold what rich takes for markup
            return Text(printable(cell))

        table = Table(title=plain(title), title_justify="left", box=None, pad_edge=False)
        for i, column in enumerate(columns):
            is_word = i < num_words
            table.add_column(plain(column), justify="left" if is_word else "right", no_wrap=is_word)
        for row in rows:
            table.add_row(*map(plain, row))
        on_terminal, text = sys.stdout.isatty(), io.StringIO()
        paper = RichConsole(file=text, force_terminal=on_terminal, width=None if on_terminal else 120)
        paper.print(table)
        self.emit_bytes(text.getvalue().encode("utf-8", "surrogateescape"))
        for line in below:
            self._write(line, "\t")


def say(line: str) -> None:
    """One line on stderr, in one write: another thread's, or another process's, cannot come between.

    Where stderr takes nothing (a full disk, a reader that is gone) there is nobody to tell, and the work goes
    on; its exit code and stdout say how it went.
    """
    try:
        sys.stderr.write(f"{printable(line)}\n")
        sys.stderr.flush()
    except OSError:
        _give_up(sys.stderr)


def write_out(data: bytes) -> None:
    """Write to stdout, at once; raises ReaderGoneError or StreamError where it takes nothing more."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise stdout_failed(error) from error


def stdout_failed(error: OSError) -> StreamError:
    """What to raise where ``error`` kept stdout from being written; nothing more will be written to it."""
    _give_up(sys.stdout)
    if error.errno == errno.EPIPE:
        return ReaderGoneError("stdout: its reader is gone")
    return StreamError(f"stdout: {error.strerror or error}")


def open_closed_streams() -> None:
    """Let a closed stdin, stdout or stderr (``2>&-``) be the null device, or a later file takes its number.

    Raises StreamError where it is stdout, whose lines would be lost.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
        raise StreamError("stdout is closed, and results are told there", hint="to do without: >/dev/null")


def _give_up(stream: IO[str]) -> None:
    """Let ``stream`` lead nowhere, so that Python does not try again, and complain, when it ends."""
    with suppress(OSError, ValueError):  # what a test puts in a stream's place has no number
        number, null = stream.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)


@contextmanager
def _in_log(label: str, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:
    """A line every ``LOG_SECONDS``, however long a single call of the network takes."""
    done, begun, ended = 0.0, time.monotonic(), threading.Event()

    def advance(amount: float) -> None:
        nonlocal done
        done = min(done + amount, done + amount if total is None else total)

    def speak() -> None:
        while not ended.wait(LOG_SECONDS):
            seconds = time.monotonic() - begun
            parts = [f"{100 * done / total:.0f} %"] if total else []
            parts += filter(None, [_counted(done, total, unit)])
            parts.append(f"{_duration(seconds)} so far")
            if total and done:
                parts.append(f"about {_duration(seconds * max(0.0, total / done - 1))} left")
            say(f"rdm: {label}: {', '.join(parts)}")

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield advance
    finally:
        ended.set()
        thread.join()


def _counted(done: float, total: float | None, unit: str) -> str:
    """``2/5 images``: those that are done whole."""
    if not unit:
        return ""
    whole = int(done + 1e-6)  # sums of fractions fall short of a whole by their rounding
    return f"{whole} {unit}" if total is None else f"{whole}/{total:.0f} {unit}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _in_words(value: Any, depth: int = 0, longest: int = LONGEST) -> str:
    """``value`` on one line: what it holds, without brackets and without what is None."""
    if isinstance(value, Mapping | list | tuple) and depth >= DEEPEST:
        return "..."
    if isinstance(value, Mapping):
        told = {key: item for key, item in value.items() if item is not None}
        text = ", ".join(f"{key} {_in_words(item, depth + 1)}" for key, item in told.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(_in_words(item, depth + 1) for item in value[:MOST_ITEMS])
        text += f", and {len(value) - MOST_ITEMS} more" if len(value) > MOST_ITEMS else ""
    else:
        text = ("yes" if value else "no") if isinstance(value, bool) else str(value)
    left = len(text) - longest
    return text if left <= 0 else f"{text[:longest]}... ({left} more characters)"


def _strict(value: Any) -> Any:
    """``value`` with null for what JSON has no number for: infinities and NaN."""
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
