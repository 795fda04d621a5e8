"""A batch job: tasks that come one at a time, what is known of all of them, and the sink of their results."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from rdm_cli.data.images.pixels import Remark, warn_of
from rdm_cli.data.io.places import Place
from rdm_cli.data.sinks.outputs import Itself, Plan, Sink, check_plan
from rdm_cli.data.sources.folders import Item, PassedOver
from rdm_cli.data.sources.shards import Shard
from rdm_cli.data.sources.source import Source, all_of
from rdm_cli.errors import RdmError, UsageError
from rdm_cli.jobs.batch import Outcome, Task
from rdm_cli.jobs.manifests import Part
from rdm_cli.jobs.results import Result


@dataclass(frozen=True, kw_only=True)
class Job:
    """Tasks of a command's shard, gone through from the beginning each time that :attr:`tasks` is asked for.

    ``num_items`` are those of all shards, None where they come from streams and are not counted; ``part``
    says how many are this shard's. With ``to_stdout`` the one result goes to stdout as bytes. What becomes of
    the items is written to ``manifest``, where there is one. ``remark`` says what was left out of an image,
    whose file it calls by the name that the user knows.
    """

    sources: Sequence[Source]
    sink: Sink
    ending: str
    part: Part
    num_items: int | None
    names: dict[str, str] = field(default_factory=dict)
    plan: Plan = Plan()
    to_stdout: bool = False
    manifest: str | None = None
    remark: Remark = warn_of

    @property
    def tasks(self) -> Iterator[Task]:
        """One for each input, in their order."""
        holds = self.part.shard.holds
        items = (item for source in self.sources for item in source.items(holds))
        for item, error in self.plan.apply(items):
            if error is None:
                place = self.sink.place(item, self.ending)
                self.sink.expect(place)
            else:
                place = cast(Place, item.source)  # nothing is written for it
            name = str(item.source)
            yield Task(
                source=item.source,
                target=place,
                name=self.names.get(name, name),
                result=self.sink.name(item, self.ending),
                error=error,
            )

    @property
    def passed_over(self) -> PassedOver:
        """What the searched folders hold that is no input, as of the latest time that they were searched."""
        found = PassedOver()
        for source in self.sources:
            found.update(source.passed_over)
        return found

    def settle(self, outcome: Outcome[Task, Result]) -> None:
        """Tell the sink what became of a task that it expects."""
        if outcome.item.error is None:
            kept = outcome.occupied or (outcome.result is not None and outcome.result.skipped)
            self.sink.settle(outcome.item.target, kept=kept)


def plan_job(
    sources: Sequence[Source],
    sink: Sink,
    ending: str,
    *,
    verb: str,
    shard: Shard,
    spared: Sequence[str] = (),
    names: dict[str, str] | None = None,
) -> Job:
    """The job of a ``verb`` over ``sources``; finds what cannot work before any work is done.

    ``ending`` is that of each result, ``spared`` those of what is written besides; ``names`` are what some
    inputs are called in messages. A task that has no place for its result, or no input, has an error; see
    :func:`~rdm_cli.data.sinks.outputs.check_plan`. Raises UsageError where all tasks have the same one.
    """
    if not all(source.counted for source in sources):
        part = Part(verb=verb, shard=shard, num_items=None)
        return Job(sources=sources, sink=sink, ending=ending, part=part, num_items=None, names=names or {})

    every = _Every(sources, shard)
    if isinstance(sink, Itself):
        plan = Plan()
        deque(every(), maxlen=0)
    else:
        plan = check_plan(every, sink, ending, spared=spared)
    num_items, num_mine = every.num_items, every.num_mine
    if not num_items:
        raise UsageError("no inputs were given", hint="the list of files is empty")
    if plan.repeated or plan.faults:
        num_items = num_mine = 0
        found: dict[str, RdmError | None] = {}  # the first two things to be said of items
        for item, error in plan.apply(every()):
            num_items += 1
            num_mine += shard.holds(item.relative.as_posix())
            if len(found) < 2:
                found.setdefault(str(error), error)
        (only, *others) = found.values()
        if plan.faults and only is not None and not others:
            raise only
    part = Part(verb=verb, shard=shard, num_items=num_mine)
    return Job(
        sources=sources, sink=sink, ending=ending, part=part, num_items=num_items, names=names or {},
        plan=plan,
    )  # fmt: skip


class _Every:
    """All items of ``sources``, each time that they are asked for, and how many they were the last time."""

    def __init__(self, sources: Sequence[Source], shard: Shard) -> None:
        self._sources, self._shard = sources, shard
        self.num_items = self.num_mine = 0

    def __call__(self) -> Iterator[Item[Any]]:
        self.num_items = self.num_mine = 0
        for source in self._sources:
            for item in source.items(all_of):
                self.num_items += 1
                self.num_mine += self._shard.holds(item.relative.as_posix())
                yield item
