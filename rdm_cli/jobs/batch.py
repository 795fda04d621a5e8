"""Work on many files, where one bad file must not stop the rest."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Generic, TypeAlias, TypeVar

from rdm_cli.data.io.atomic import atomic_path, naming
from rdm_cli.data.io.places import Place, Readable
from rdm_cli.errors import OccupiedError, RdmError
from rdm_cli.jobs.reading_ahead import ahead
from rdm_cli.jobs.results import Result

T = TypeVar("T")
K = TypeVar("K")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One input and where its result goes; ``name`` is what messages call it.

    ``result`` is the target's path below the output folder; empty where each result lies beside its input.
    With an ``error`` nothing is read or written, and the task fails with it.
    """

    source: Readable
    target: Place
    name: str
    result: str = ""
    error: RdmError | None = None


def counted(tasks: Iterable[Task], num_items: int | None) -> int | None:
    """How many items a job has: as it says, or as many as there are ``tasks``; None for a mere stream."""
    return len(tasks) if num_items is None and isinstance(tasks, Sized) else num_items


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[K, R_co]):
    """What became of one item: the ``result``, or ``error``, one line; and how long it took.

    ``seconds`` are those of reading it and its part of those that its batch took. ``occupied``: it failed
    because its place holds something else, which stays.
    """

    item: K
    result: R_co | None = None
    error: str | None = None
    seconds: float = 0.0
    occupied: bool = False


def run_batches(
    items: Iterable[K],
    *,
    load: Callable[[K], T | Outcome[K, R]],
    process: Callable[[Sequence[K], Sequence[Any]], Iterable[R | RdmError]],
    batch_size: int,
    compute: Callable[[Sequence[T]], Sequence[Any]] | None = None,
    computes_ahead: bool = True,
) -> Generator[Outcome[K, R], None, None]:
    """Load items, process the good ones ``batch_size`` at a time, and yield one outcome for each.

    Items are loaded in a thread of their own, a batch ahead of the one that is processed. A :class:`Task`
    with an error is not loaded.
    ``load`` may settle an item itself by returning its outcome (already done, say). An RdmError or
    OSError of ``load`` concerns its item alone, and so does one that ``process`` gives in its place. One
    that ``process`` raises (a full disk) concerns what it has not given yet, which is then tried one by one,
    so that only what cannot be done fails.

    A ``process`` that writes files is a generator that gives each result once it is written. So a caller who
    stops early has counted every file that there is: the next is written when the next outcome is asked for.
    Where there is a ``compute``, ``process`` gets what it made of each item that was loaded. It writes
    nothing. Where it ``computes_ahead`` it runs in a thread of its own, while the batch before is processed.
    """
    with ExitStack() as stack:
        ready: Generator[tuple[K, T | Outcome[K, R], float], None, None]
        ready = stack.enter_context(closing(ahead(_loaded(items, load), num=batch_size)))
        pool = None
        if compute is not None and computes_ahead:
            pool = ThreadPoolExecutor(1, "computing")
            stack.callback(pool.shutdown, cancel_futures=True)
        waiting: list[_Loaded[K, T]] = []
        begun: _Batch[K, T] | None = None
        for item, loaded, seconds in ready:
            if isinstance(loaded, Outcome):
                yield replace(loaded, seconds=seconds)
                continue
            waiting.append((item, loaded, seconds))
            if len(waiting) == batch_size:
                previous, begun = begun, _Batch(waiting, compute, pool)
                waiting = []
                if previous is not None:
                    yield from previous.outcomes(process)
                if pool is None:
                    yield from begun.outcomes(process)
                    begun = None
        last = _Batch(waiting, compute, pool) if waiting else None
        for batch in filter(None, (begun, last)):
            yield from batch.outcomes(process)


_Loaded: TypeAlias = tuple[K, T, float]


class _Batch(Generic[K, T]):
    """Items that were loaded, the seconds that each took, and what is computed of them, perhaps later."""

    def __init__(
        self,
        rows: Sequence[_Loaded[K, T]],
        compute: Callable[[Sequence[T]], Sequence[Any]] | None,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self._rows, self._compute = rows, compute
        self._future = None if pool is None else pool.submit(self._computed)

    def _computed(self) -> tuple[Sequence[Any], float]:
        values, begun = [value for _, value, _ in self._rows], time.perf_counter()
        return (values if self._compute is None else self._compute(values)), time.perf_counter() - begun

    def outcomes(
        self, process: Callable[[Sequence[K], Sequence[Any]], Iterable[R | RdmError]]
    ) -> Iterator[Outcome[K, R]]:
        """See :func:`run_batches`."""
        rows, items = self._rows, [item for item, _, _ in self._rows]
        num_given, shared, begun = 0, 0.0, time.perf_counter()
        try:
            values, computing = self._computed() if self._future is None else self._future.result()
            begun = time.perf_counter()
            for (item, _, reading), result in zip(rows, process(items, values), strict=True):
                seconds = time.perf_counter() - begun
                if num_given == 0:  # what comes before the first result is the work on all of them
                    shared, seconds = (computing + seconds) / len(rows), 0.0
                num_given += 1
                seconds += reading + shared
                if isinstance(result, RdmError):
                    yield Outcome(item=item, error=told(result), seconds=seconds)
                else:
                    yield Outcome(item=item, result=result, seconds=seconds)
                begun = time.perf_counter()
        except (RdmError, OSError) as error:
            if len(rows) == 1:
                seconds = rows[0][2] + time.perf_counter() - begun
                yield Outcome(item=items[0], error=told(error), seconds=seconds)
                return
            for row in rows[num_given:]:
                yield from _Batch([row], self._compute).outcomes(process)


def _loaded(
    items: Iterable[K], load: Callable[[K], T | Outcome[K, R]]
) -> Iterator[tuple[K, T | Outcome[K, R], float]]:
    """Each item, what was loaded of it or its outcome, and the seconds that it took."""
    for item in items:
        begun = time.perf_counter()
        try:
            if isinstance(item, Task) and item.error is not None:
                raise item.error
            loaded = load(item)
        except (RdmError, OSError) as error:
            loaded = Outcome(item=item, error=told(error), occupied=isinstance(error, OccupiedError))
        yield item, loaded, time.perf_counter() - begun


def told(error: RdmError | OSError) -> str:
    """An error as one line."""
    if isinstance(error, RdmError):
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


@dataclass(kw_only=True)
class Tally:
    """Counts of a batch job, and what failed: in a scratch file, for it may be all of a million."""

    num_done: int = 0
    num_skipped: int = 0
    num_replaced: int = 0
    num_failed: int = 0
    num_lost: int = 0
    begun: float = field(default_factory=time.monotonic)
    failures: IO[str] = field(
        default_factory=lambda: tempfile.SpooledTemporaryFile(2**20, "w+", encoding="utf-8")
    )

    def add(self, name: str, outcome: Outcome[Any, Result]) -> None:
        """Count one outcome."""
        if outcome.result is None:
            self.num_failed += 1
            with naming(tempfile.gettempdir()):
                self.failures.write(json.dumps({"input": name, "error": outcome.error}) + "\n")
        elif outcome.result.skipped:
            self.num_skipped += 1
        else:
            self.num_done += 1
            self.num_replaced += outcome.result.replaced

    def lose(self, num: int) -> None:
        """Take back ``num`` that were done: they went into a file that was not finished, and is not there."""
        self.num_done -= num
        self.num_lost += num

    def close(self) -> None:
        """Let go of the scratch file."""
        self.failures.close()

    @property
    def exit_code(self) -> int:
        """0 all done, 1 all failed, 3 some failed."""
        if not self.num_failed:
            return 0
        return 3 if self.num_done + self.num_skipped else 1

    def summary(self, verb: str, noun: str, *, num_left: int | None = 0) -> str:
        """One line: how many, how fast, how many skipped, failed and lost.

        ``num_left`` are those that a job which stopped early did not come to; None: it is not known how many.
        """
        seconds = time.monotonic() - self.begun
        parts = [f"{verb} {self.num_done} {noun}{'' if self.num_done == 1 else 's'} in {seconds:.1f} s"]
        if self.num_done:
            parts[0] += f" ({self.num_done / max(seconds, 1e-9):.2f} {noun}s/s)"
        if self.num_replaced:
            parts.append(f"{self.num_replaced} in place of codes of other images")
        if self.num_skipped:
            parts.append(f"{self.num_skipped} already done")
        if self.num_failed:
            parts.append(f"{self.num_failed} failed")
        if self.num_lost:
            parts.append(f"{self.num_lost} lost, for the file that was to hold them is not finished")
        if num_left != 0:
            parts.append(f"stopped early: {'the rest was' if num_left is None else num_left} not done")
        return ", ".join(parts)

    def write_failures(self, path: Path) -> None:
        """One JSON object a line; an empty file where nothing failed. Raises as :func:`check_failures`."""
        check_failures(path)
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            self.failures.seek(0)
            shutil.copyfileobj(self.failures, file)
            self.failures.seek(0, os.SEEK_END)


def check_failures(path: Path) -> None:
    """Raise OccupiedError where a file stands that is no list of failures, so that it would be lost."""
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline(2**20))
        if first.keys() == {"input", "error"}:
            return
    except (ValueError, AttributeError):
        pass
    raise OccupiedError(
        f"--failures {path}: is there already, and is no list of failures", hint="name another file"
    )
