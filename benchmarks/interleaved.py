"""Alternatives timed side by side: each once a round, round after round, so that noise meets all alike."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from statistics import median

Seconds = dict[str, list[float]]
"""By alternative, what each round took."""


def timed_side_by_side(alternatives: Mapping[str, Callable[[], object]], *, rounds: int) -> Seconds:
    """Seconds of every alternative in each of ``rounds``, after one round that is not counted.

    The order turns by one each round, so that none always follows the same other.
    """
    names = list(alternatives)
    seconds: Seconds = {name: [] for name in names}
    for k in range(-1, rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            begun = time.perf_counter()
            alternatives[name]()
            taken = time.perf_counter() - begun
            print(f"round {k + 1}, {name}: {taken:.3f} s", file=sys.stderr, flush=True)
            if k >= 0:
                seconds[name].append(taken)
    return seconds


def times_as_fast(seconds: Seconds, name: str, reference: str) -> tuple[float, float, float]:
    """How many times as fast ``name`` is as ``reference``: the rounds' median, least and greatest ratio."""
    ratios = [theirs / ours for theirs, ours in zip(seconds[reference], seconds[name], strict=True)]
    return median(ratios), min(ratios), max(ratios)


def ratio_text(seconds: Seconds, name: str, reference: str) -> str:
    """The ratio as a table shows it: median, and the range over the rounds."""
    middle, least, greatest = times_as_fast(seconds, name, reference)
    return f"{middle:.2f} ({least:.2f} to {greatest:.2f})"
