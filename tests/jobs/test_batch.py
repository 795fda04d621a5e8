"""Batch jobs: one bad item fails alone, and the exit code says how it went."""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rdm_cli.errors import ImageError, OccupiedError
from rdm_cli.jobs.batch import Outcome, Tally, check_failures, run_batches
from rdm_cli.jobs.results import Result


def numbers(
    items: Sequence[int],
    batch_size: int,
    cannot_load: set[int] = frozenset(),
    cannot_do: set[int] = frozenset(),
) -> tuple[list[Outcome[int, Any]], list[list[int]]]:
    """Outcomes of a job over numbers, and the batches that were tried."""
    tried: list[list[int]] = []

    def load(item: int) -> str | Outcome[int, Any]:
        if item in cannot_load:
            raise ImageError(f"{item}: damaged\nbadly", hint="look")
        return Outcome(item=item, result="skipped") if item >= 100 else str(item)

    def process(batch: Sequence[int], loaded: Sequence[str]) -> list[int]:
        tried.append(list(batch))
        assert list(loaded) == [str(item) for item in batch]
        if cannot_do & set(batch):
            raise OSError(errno.ENOSPC, "No space left on device", "out")
        return [2 * item for item in batch]

    return list(run_batches(items, load=load, process=process, batch_size=batch_size)), tried


def test_batches_are_full_but_the_last() -> None:
    outcomes, tried = numbers(range(7), 3)
    assert tried == [[0, 1, 2], [3, 4, 5], [6]]
    assert [(o.item, o.result, o.error) for o in outcomes] == [(i, 2 * i, None) for i in range(7)]


def test_an_unreadable_item_fails_alone() -> None:
    outcomes, tried = numbers(range(5), 2, cannot_load={1})
    assert tried == [[0, 2], [3, 4]]
    assert {o.item for o in outcomes} == set(range(5)) and len(outcomes) == 5
    assert [(o.item, o.error) for o in outcomes if o.error] == [(1, "1: damaged\nbadly; look")]


def test_a_failing_batch_is_retried_one_by_one() -> None:
    outcomes, tried = numbers(range(4), 4, cannot_do={2})
    assert tried == [[0, 1, 2, 3], [0], [1], [2], [3]]
    assert [o.item for o in outcomes] == [0, 1, 2, 3]
    assert [o.error for o in outcomes] == [None, None, "out: No space left on device", None]


def test_what_is_written_is_counted_before_the_next_is() -> None:
    """A process that writes gives each result at once: a caller who stops has seen all that there is."""
    written: list[int] = []

    def process(batch: Sequence[int], _: Sequence[int]) -> Iterator[dict[str, Any]]:
        for item in batch:
            written.append(item)
            yield {"item": item}

    with closing(run_batches(range(8), load=lambda item: item, process=process, batch_size=8)) as outcomes:
        seen = [next(outcomes).item for _ in range(3)]
    assert seen == written == [0, 1, 2]


def test_what_fails_in_the_middle_of_a_batch_spares_what_is_written() -> None:
    written: list[int] = []

    def process(batch: Sequence[int], _: Sequence[int]) -> Iterator[dict[str, Any]]:
        for item in batch:
            if item == 2:
                raise OSError(errno.ENOSPC, "No space left on device", "out")
            written.append(item)
            yield {}

    outcomes = list(run_batches(range(4), load=lambda item: item, process=process, batch_size=4))
    assert written == [0, 1, 3]  # each once
    assert [(o.item, o.error) for o in outcomes if o.error] == [(2, "out: No space left on device")]


def test_outcomes_say_how_long_they_took() -> None:
    """Its own reading, and its part of its batch's processing."""

    def load(item: int) -> int:
        time.sleep(0.02 * item)
        return item

    def process(batch: Sequence[int], _: Sequence[int]) -> list[dict[str, Any]]:
        time.sleep(0.02)
        return [{}] * len(batch)

    outcomes = list(run_batches([0, 3], load=load, process=process, batch_size=2))
    assert 0.01 <= outcomes[0].seconds < outcomes[1].seconds and outcomes[1].seconds >= 0.07


def test_the_next_batch_is_loaded_while_one_is_processed() -> None:
    """Each batch waits in ``process`` for the loading of the next, which would else be a deadlock."""
    loaded = [threading.Event() for _ in range(6)]

    def load(item: int) -> int:
        loaded[item].set()
        return item

    def process(batch: Sequence[int], _: Sequence[int]) -> list[dict[str, Any]]:
        assert loaded[min(batch[-1] + 2, 5)].wait(timeout=30)
        return [{}] * len(batch)

    outcomes = list(run_batches(range(6), load=load, process=process, batch_size=2))
    assert [o.item for o in outcomes] == list(range(6)) and all(o.error is None for o in outcomes)


def test_the_next_batch_is_computed_while_one_is_processed() -> None:
    """Each batch waits in ``process`` for the computing of the next, which would else be a deadlock."""
    computed = [threading.Event() for _ in range(5)]

    def compute(loaded: Sequence[int]) -> list[str]:
        for item in loaded:
            computed[item].set()
        return [str(item) for item in loaded]

    def process(batch: Sequence[int], values: Sequence[str]) -> Iterator[int]:
        assert computed[min(batch[-1] + 1, 4)].wait(timeout=30)
        assert list(values) == [str(item) for item in batch]
        yield from batch

    outcomes = list(
        run_batches(range(5), load=lambda item: item, compute=compute, process=process, batch_size=2)
    )
    assert [(o.item, o.result) for o in outcomes] == [(i, i) for i in range(5)]


@pytest.mark.parametrize("fails_in", ["compute", "process"])
def test_a_batch_that_cannot_be_computed_is_retried_one_by_one(fails_in: str) -> None:
    tried: list[list[int]] = []

    def compute(loaded: Sequence[int]) -> list[int]:
        tried.append(list(loaded))
        if fails_in == "compute" and 2 in loaded:
            raise ImageError("too large for this machine")
        return [10 * item for item in loaded]

    def process(batch: Sequence[int], values: Sequence[int]) -> Iterator[int]:
        for item, value in zip(batch, values, strict=True):
            if fails_in == "process" and item == 2:
                raise ImageError("too large for this machine")
            yield value

    outcomes = list(
        run_batches(range(6), load=lambda item: item, compute=compute, process=process, batch_size=3)
    )
    assert sorted(o.result for o in outcomes if o.error is None) == [0, 10, 30, 40, 50]
    assert [(o.item, o.error) for o in outcomes if o.error] == [(2, "too large for this machine")]
    retried = [[0], [1], [2]] if fails_in == "compute" else [[2]]
    assert sorted(tried) == sorted([[0, 1, 2], [3, 4, 5], *retried])


def test_a_caller_who_stops_has_seen_all_that_is_written_where_batches_are_computed_ahead() -> None:
    written: list[int] = []

    def process(batch: Sequence[int], _: Sequence[int]) -> Iterator[dict[str, Any]]:
        for item in batch:
            written.append(item)
            yield {}

    def compute(loaded: Sequence[int]) -> Sequence[int]:
        return loaded

    ran = run_batches(range(9), load=lambda item: item, compute=compute, process=process, batch_size=2)
    with closing(ran) as outcomes:
        seen = [next(outcomes).item for _ in range(3)]
    assert seen == written == [0, 1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("computing")]


def test_an_item_may_be_settled_without_work() -> None:
    outcomes, tried = numbers([0, 100, 1], 2)
    assert tried == [[0, 1]]
    assert sorted(o.item for o in outcomes if o.result != "skipped") == [0, 1]


def test_a_bug_is_not_swallowed() -> None:
    def load(_: int) -> str:
        raise KeyError("a mistake of ours")

    with pytest.raises(KeyError):
        list(run_batches([1], load=load, process=lambda *_: [], batch_size=1))


DONE, SKIPPED = (Outcome(item=0, result=Result(output="a", skipped=skipped)) for skipped in (False, True))
FAILED: Outcome[int, Result] = Outcome(item=0, error="bad")


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], 0),
        ([DONE, SKIPPED], 0),
        ([FAILED, FAILED], 1),
        ([DONE, FAILED], 3),
        ([SKIPPED, FAILED], 3),
    ],
)
def test_exit_codes(outcomes: list[Outcome[int, Result]], code: int) -> None:
    tally = Tally()
    for i, outcome in enumerate(outcomes):
        tally.add(str(i), outcome)
    assert tally.exit_code == code
    tally.close()


def test_summary_and_failures(tmp_path: Path) -> None:
    tally = Tally()
    for name, outcome in (("a", DONE), ("b", SKIPPED), ("c", FAILED), ("ü\n", FAILED)):
        tally.add(name, outcome)
    summary = tally.summary("encoded", "image")
    assert summary.startswith("encoded 1 image in ") and summary.endswith(", 1 already done, 2 failed")
    assert "images/s" in summary
    tally.write_failures(tmp_path / "deep" / "failures")
    lines = (tmp_path / "deep" / "failures").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"input": "c", "error": "bad"},
        {"input": "ü\n", "error": "bad"},
    ]
    tally.lose(1)
    summary = tally.summary("encoded", "image", num_left=3)
    assert summary.startswith("encoded 0 images in ") and "1 lost, for the file" in summary
    assert summary.endswith("stopped early: 3 not done")
    tally.close()
    with closing(Tally()) as nothing:
        nothing.write_failures(tmp_path / "none")
    assert (tmp_path / "none").read_text() == ""


@pytest.mark.parametrize(
    "content", [b"a.png\nb.png\n", b'{"input": "a", "output": "b"}\n', b"\x89PNG\r\n", b"[]"]
)
def test_a_list_of_failures_takes_no_other_files_place(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "list"
    path.write_bytes(content)
    with closing(Tally()) as tally, pytest.raises(OccupiedError, match="no list of failures"):
        tally.write_failures(path)
    assert path.read_bytes() == content


def test_a_list_of_failures_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "list"
    for content in ("", '{"input": "a.png", "error": "damaged"}\n'):
        path.write_text(content)
        check_failures(path)
