"""Work on many files, where one bad file must not stop the rest."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from rdm_cli.data.atomic import atomic_path
from rdm_cli.errors import RdmError

T = TypeVar("T")
K = TypeVar("K")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One input file and where its result goes; ``name`` is what messages call it."""

    source: Path
    target: Path
    name: str


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[K]):
    """What became of one item: data about what was written, or ``error``, one line."""

    item: K
    data: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def run_batches(
    items: Iterable[K],
    *,
    load: Callable[[K], T | Outcome[K]],
    process: Callable[[Sequence[K], Sequence[T]], Sequence[dict[str, Any] | RdmError]],
    batch_size: int,
) -> Iterator[Outcome[K]]:
    """Load items, process the good ones ``batch_size`` at a time, and yield one outcome for each.

    ``load`` may settle an item itself by returning its outcome (already done, say). An RdmError or
    OSError of ``load`` concerns its item alone, and so does one that ``process`` returns in its place. One
    that ``process`` raises (a full disk) concerns its batch, whose items are then tried one by one, so that
    only those that cannot be done fail.
    """
    waiting: list[tuple[K, T]] = []

    def flush() -> Iterator[Outcome[K]]:
        batch, waiting[:] = list(waiting), []
        if batch:
            yield from _process(batch, process)

    for item in items:
        try:
            loaded = load(item)
        except (RdmError, OSError) as error:
            yield Outcome(item=item, error=_told(error))
            continue
        if isinstance(loaded, Outcome):
            yield loaded
            continue
        waiting.append((item, loaded))
        if len(waiting) == batch_size:
            yield from flush()
    yield from flush()


def _process(
    batch: Sequence[tuple[K, T]],
    process: Callable[[Sequence[K], Sequence[T]], Sequence[dict[str, Any] | RdmError]],
) -> Iterator[Outcome[K]]:
    items, loaded = [item for item, _ in batch], [value for _, value in batch]
    try:
        results = process(items, loaded)
    except (RdmError, OSError) as error:
        if len(batch) == 1:
            yield Outcome(item=items[0], error=_told(error))
            return
        for pair in batch:
            yield from _process([pair], process)
        return
    for item, result in zip(items, results, strict=True):
        if isinstance(result, RdmError):
            yield Outcome(item=item, error=_told(result))
        else:
            yield Outcome(item=item, data=result)


def _told(error: RdmError | OSError) -> str:
    if isinstance(error, RdmError):
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


@dataclass(kw_only=True)
class Tally:
    """Counts of a batch job, and what failed."""

    num_done: int = 0
    num_skipped: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def add(self, source: str, outcome: Outcome[Any]) -> None:
        """Count one outcome."""
        if outcome.error is not None:
            self.failures.append({"source": source, "error": outcome.error})
        elif outcome.data.get("skipped"):
            self.num_skipped += 1
        else:
            self.num_done += 1

    @property
    def exit_code(self) -> int:
        """0 all done, 1 all failed, 3 some failed."""
        if not self.failures:
            return 0
        return 3 if self.num_done + self.num_skipped else 1

    def summary(self, verb: str, noun: str) -> str:
        """One line: how many, how fast, how many skipped and failed."""
        seconds = time.monotonic() - self.begun
        parts = [f"{verb} {self.num_done} {noun}{'' if self.num_done == 1 else 's'} in {seconds:.1f} s"]
        if self.num_done:
            parts[0] += f" ({self.num_done / max(seconds, 1e-9):.2f} {noun}s/s)"
        if self.num_skipped:
            parts.append(f"{self.num_skipped} already done")
        if self.failures:
            parts.append(f"{len(self.failures)} failed")
        return ", ".join(parts)

    def write_failures(self, path: Path) -> None:
        """One JSON object a line; an empty file where nothing failed."""
        with atomic_path(path) as temporary:
            temporary.write_text("".join(json.dumps(f) + "\n" for f in self.failures), encoding="utf-8")
