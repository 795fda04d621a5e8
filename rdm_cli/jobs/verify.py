"""Whether a batch job's results are all there, and are what its manifests say."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rdm_cli.codes.code import Codes
from rdm_cli.data.io.atomic import atomic_path
from rdm_cli.data.io.places import Blob, digest_of, fetched
from rdm_cli.data.sources.folders import CODE_SUFFIX
from rdm_cli.data.sources.shards import Shard, fingerprint
from rdm_cli.errors import CodeError, OccupiedError, UsageError
from rdm_cli.jobs.batch import Outcome, Task, run_batches
from rdm_cli.jobs.manifests import Part, Record, age, latest, place_among, read_manifest
from rdm_cli.jobs.results import CheckedCode


@dataclass(frozen=True, kw_only=True)
class PartStatus:
    """How far a shard is; ``manifest`` None: no manifest of it was found.

    ``num_torn`` lines were cut short, by a process that was killed. A shard of a sharding that is not the
    verb's latest is not ``is_counted``.
    """

    verb: str
    shard: Shard
    manifest: Path | None
    num_items: int | None = None
    num_done: int = 0
    num_failed: int = 0
    num_torn: int = 0
    is_counted: bool = True

    @property
    def num_others(self) -> int:
        """Records of inputs beyond those that the last run had: of another job, or since removed."""
        return 0 if self.num_items is None else max(0, self.num_done + self.num_failed - self.num_items)

    @property
    def num_left(self) -> int | None:
        """Items of which nothing is recorded; None where it is not known how many there are."""
        if self.num_items is None:
            return None
        return max(0, self.num_items - self.num_done - self.num_failed)

    @property
    def is_complete(self) -> bool:
        """Whether every item was done."""
        return self.num_left == 0 and not self.num_failed


def statuses(manifests: Sequence[Path]) -> list[PartStatus]:
    """One for each manifest, and one for each shard of the same jobs that has none; in the shards' order.

    Where a verb has manifests of several shardings, of 4 shards and of 8, the latest written to says which is
    counted, and of the others only the manifests that are there are given.
    """
    found = [_status(path) for path in sorted(manifests, key=age)]
    counted = {status.verb: status.shard.count for status in found}  # the last of each verb
    known = {(status.verb, status.shard) for status in found}
    found = [replace(one, is_counted=one.shard.count == counted[one.verb]) for one in found]
    for verb, count in counted.items():
        every = (Shard(index=i + 1, count=count) for i in range(count))
        found += [
            PartStatus(verb=verb, shard=shard, manifest=None) for shard in every if (verb, shard) not in known
        ]
    return sorted(found, key=lambda status: (status.verb, status.shard.count, status.shard.index))


def failures(manifests: Sequence[Path]) -> Iterator[Record]:
    """The latest record of each input that failed."""
    return (record for record in latest(manifests) if record.error is not None)


def merge_manifests(manifests: Sequence[Path], output: Path) -> PartStatus:
    """Write the latest record of every input to one manifest, as of one unsharded run; returns its status.

    How many items there are is known of it where that is known of all shards. Raises UsageError for manifests
    of several verbs.
    """
    parts = [part for part in statuses(manifests) if part.is_counted]
    verbs = sorted({part.verb for part in parts})
    if len(verbs) > 1:
        raise UsageError(f"these are manifests of {' and of '.join(verbs)}", hint="merge those of each apart")
    known = [part.num_items for part in parts if part.num_items is not None]
    num_items = sum(known) if len(known) == len(parts) else None
    part = Part(verb=verbs[0], shard=Shard(index=1, count=1), num_items=num_items)
    for line in read_manifest(output) if output.is_file() else ():  # raises where it is another file
        if isinstance(line, Part) and (line.verb, line.shard) != (verbs[0], part.shard):
            raise OccupiedError(
                f"{output}: is there already, and is the manifest of {line.verb}, shard {line.shard}",
                hint="name another file with -o",
            )
    with atomic_path(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(part.as_line())
        file.writelines(record.as_line() for record in latest(manifests))
    return _status(output)


def verify_codes(tasks: Iterable[Task], manifests: Sequence[Path]) -> Iterator[Outcome[Task, CheckedCode]]:
    """Read every task's code, and compare its bytes with those that were recorded of it, if any were.

    After them comes an outcome, with an error, for each result that was recorded and is not among them. Takes
    17 bytes of memory a record.
    """
    expected = _Expected(manifests)

    def load(task: Task) -> Outcome[Task, CheckedCode]:
        recorded = expected.take(task)  # first: what is damaged is there
        source = fetched(task.source)
        Codes.load(source)
        digest = digest_of(source)
        if recorded is not None and recorded != _short(digest):
            raise CodeError(
                f"{task.name}: not the bytes that its manifest records", hint="encode it again with --force"
            )
        checked = CheckedCode(output=task.name, digest=digest, recorded=recorded is not None)
        return Outcome(item=task, result=checked)

    def never(batch: Sequence[Task], loaded: Sequence[Task]) -> list[CheckedCode]:
        raise AssertionError("each code is settled when it is read")

    yield from run_batches(tasks, load=load, process=never, batch_size=1)
    for record in expected.left():
        missing = Path(record.output)
        yield Outcome(
            item=Task(source=missing, target=missing, name=record.output, result=record.output),
            error=f"{record.output}: recorded as made from {record.input}, and not there",
        )


class _Expected:
    """What the manifests say was written, as fingerprints of names and the first 64 bits of digests."""

    def __init__(self, manifests: Sequence[Path]) -> None:
        self.manifests = manifests
        names, digests = array("Q"), array("Q")
        for record in self._records():
            names.append(fingerprint(record.output))
            digests.append(_short(record.digest or ""))
        found = np.array(names, dtype=np.uint64)
        order = np.argsort(found)
        self.names, self.digests = found[order], np.array(digests, dtype=np.uint64)[order]
        self.seen = np.zeros(len(found), bool)

    def take(self, task: Task) -> int | None:
        """The 64 bits recorded of a result; None where nothing is recorded of it."""
        names = [task.result, task.name]
        if isinstance(task.source, Blob):
            # of files, an archive's results are recorded without the archive
            names.append(task.result.partition("/")[2])
        for name in names:
            place = self._find(name)
            if place is not None:
                self.seen[place] = True
                return int(self.digests[place])
        return None

    def left(self) -> Iterator[Record]:
        """The records that were not taken."""
        if self.seen.all():
            return
        for record in self._records():
            place = self._find(record.output)
            if place is not None and not self.seen[place]:
                yield record

    def _records(self) -> Iterator[Record]:
        for record in latest(self.manifests):
            if record.digest is not None and record.output.endswith(CODE_SUFFIX):
                yield record

    def _find(self, name: str) -> int | None:
        return place_among(self.names, fingerprint(name))


def _short(digest: str) -> int:
    return int(digest[:16] or "0", 16)


def _status(path: Path) -> PartStatus:
    part: Part | None = None
    num_torn = 0
    for line in read_manifest(path):
        if isinstance(line, Part):
            if part is not None and part.verb != line.verb:
                raise UsageError(
                    f"{path}: {part.verb} and {line.verb} share this manifest, so neither can be counted",
                    hint="delete it, and run each again with a manifest of its own",
                )
            part = line
        num_torn += line is None
    num_failed = num_done = 0
    for record in latest([path]):
        num_failed += record.error is not None
        num_done += record.error is None
    return PartStatus(
        verb=part.verb if part else "?",
        shard=part.shard if part else Shard(index=1, count=1),
        manifest=path,
        num_items=part.num_items if part else None,
        num_done=num_done,
        num_failed=num_failed,
        num_torn=num_torn,
    )
