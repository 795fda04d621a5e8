"""Which part of a job is whose: settled by a hash of each name, so that nobody has to be asked.

Item ``name`` belongs to shard 1 + (64 bits of BLAKE2b of name) mod n of n. What a shard does depends on the
names and on n alone: a re-run does the same again, and no item is left out or done twice, in whatever order
and on whichever machine the shards run.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from rdm_cli.errors import UsageError

HINT = "give it with --shard i/n, i from 1; --shard 1/1 does all"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Part ``index`` (from 1) of ``count`` parts."""

    index: int
    count: int

    def holds(self, name: str) -> bool:
        """Whether the item or the stream of this name is this shard's to do."""
        return self.count == 1 or fingerprint(name) % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def label(self) -> str:
        """The shard in a file's name: ``00003-of-00008``; names of one job sort by it."""
        return f"{self.index:05d}-of-{self.count:05d}"


WHOLE = Shard(index=1, count=1)


def fingerprint(name: str) -> int:
    """64 bits of a name: the same everywhere and for ever, unlike Python's ``hash``."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "big")


def parse_shard(text: str) -> Shard:
    """``"3/8"`` as a shard; raises UsageError for what is none."""
    match = re.fullmatch(r"(\d+)/(\d+)", text, flags=re.ASCII)
    if match is None:
        raise UsageError(f"--shard {text}: i/n was expected, such as 3/8")
    return _checked(int(match[1]), int(match[2]), f"--shard {text}")


def shard_of_environment(environment: Mapping[str, str]) -> tuple[Shard, str] | None:
    """The shard that a job array or a launcher assigned to this process, and the variables that say so.

    Tasks of a SLURM array (``SLURM_ARRAY_TASK_ID``, ``_MIN``, ``_MAX``, ``_STEP``, ``_COUNT``) and processes
    of a launcher such as torchrun (``RANK``, ``WORLD_SIZE``); where a task of an array launches several, each
    does its part of the task's part. None where neither is there. Raises UsageError for numbers that fit no
    shard.
    """
    shard, said = WHOLE, list[str]()
    if "SLURM_ARRAY_TASK_ID" in environment:
        shard = _of_array(environment)
        said.append("SLURM_ARRAY_TASK_ID")
    if "RANK" in environment and "WORLD_SIZE" in environment:
        rank, size = (_number(environment, name) for name in ("RANK", "WORLD_SIZE"))
        own = _checked(rank + 1, size, f"RANK={rank} of WORLD_SIZE={size}")
        shard = Shard(index=(shard.index - 1) * size + own.index, count=shard.count * size)
        said.append("RANK")
    return (shard, " and ".join(said)) if said else None


def _of_array(environment: Mapping[str, str]) -> Shard:
    prefix = "SLURM_ARRAY_TASK_"
    task = _number(environment, f"{prefix}ID")
    first = _number(environment, f"{prefix}MIN", default=1)
    step = max(1, _number(environment, f"{prefix}STEP", default=1))
    if f"{prefix}COUNT" in environment:
        count = _number(environment, f"{prefix}COUNT")
    else:
        count = (_number(environment, f"{prefix}MAX") - first) // step + 1
    last = _number(environment, f"{prefix}MAX", default=first + (count - 1) * step)
    what = f"{prefix}ID={task}, MIN={first}, MAX={last}, STEP={step}, COUNT={count}"
    # the first two are the same in all tasks, so that an array with gaps is refused before any does its part
    if last != first + (count - 1) * step or (task - first) % step:
        raise UsageError(f"{what}: this array has gaps, from which no shard can be told", hint=HINT)
    return _checked((task - first) // step + 1, count, what)


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    if name not in environment and default is not None:
        return default
    try:
        return int(environment[name])
    except KeyError:
        raise UsageError(f"{name} is not set, so this task's shard cannot be told", hint=HINT) from None
    except ValueError:
        raise UsageError(f"{name}={environment[name]}: a whole number was expected", hint=HINT) from None


def _checked(index: int, count: int, what: str) -> Shard:
    if not 1 <= index <= count:
        raise UsageError(f"{what}: there is no part {index} of {count}", hint=HINT)
    return Shard(index=index, count=count)
