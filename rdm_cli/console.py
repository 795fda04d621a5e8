"""Data to stdout, talk and progress to stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rdm_cli.escapes import printable

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
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def note(self, text: str) -> None:
        """A remark for people."""
        if not self.quiet:
            say(text)

    def remark(self, name: str, text: str) -> None:
        """A remark on one input, said once."""
        if (name, text) not in self._remarked:
            self._remarked.add((name, text))
            self.note(f"rdm: {name}: {text}")

    def problem(self, text: str) -> None:
        """One line about something that failed; shown even when quiet."""
        say(text)

    @contextmanager
    def progress(self, label: str, total: float | None) -> Iterator[Callable[[float], None]]:
        """A bar on a terminal, nothing elsewhere; yields ``advance(amount)``."""
        if self.quiet or not sys.stderr.isatty():
            yield lambda amount: None
            return
        from rich import progress
        from rich.console import Console as RichConsole

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            progress.TimeElapsedColumn(),
        )
        with progress.Progress(*columns, console=RichConsole(stderr=True), transient=True) as bar:
            task = bar.add_task(printable(label), total=total)
            done = 0.0

            def advance(amount: float) -> None:
                nonlocal done
                done += amount
                bar.update(task, completed=round(done + 1e-6, 2) if total != int(total or 0) else int(done))

            yield advance

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
        RichConsole(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(table)
        for line in below:
            self._write(line, "\t")


def say(line: str) -> None:
    """One line on stderr."""
    print(printable(line), file=sys.stderr, flush=True)


def _strict(value: Any) -> Any:
    """``value`` with null for what JSON has no number for: infinities and NaN."""
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
