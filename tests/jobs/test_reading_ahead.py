"""Reading ahead: in order, not too far, and gone when nobody wants more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from rdm_cli.jobs.reading_ahead import ahead


def test_values_come_in_order_and_an_error_in_its_place() -> None:
    assert list(ahead(range(100), num=3)) == list(range(100))
    assert list(ahead([], num=1)) == []

    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the disk is gone")

    values = ahead(broken(), num=8)
    assert (next(values), next(values)) == (1, 2)
    with pytest.raises(OSError, match="the disk is gone"):
        next(values)


def test_no_more_than_so_many_wait() -> None:
    drawn: list[int] = []

    def noted() -> Iterator[int]:
        for i in range(50):
            drawn.append(i)
            yield i

    values = ahead(noted(), num=4)
    next(values)
    deadline = time.monotonic() + 30
    while len(drawn) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    assert len(drawn) == 6  # one was taken, four wait, and one is held by the thread
    assert list(values) == list(range(1, 50))


def test_who_stops_early_leaves_no_thread() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    values = ahead(endless(), num=2)
    next(values)
    values.close()
    assert closed.wait(timeout=30)
    assert not any(thread.name == "reading ahead" for thread in threading.enumerate())
