"""An iterator that works ahead in a thread, so that neither reading nor the network waits for the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class _End:
    """The last that a thread has to say: nothing more, or what went wrong."""

    error: BaseException | None


def ahead(values: Iterable[T], *, num: int) -> Generator[T, None, None]:
    """``values`` in their order, of which up to ``num`` wait while the caller is busy with those before.

    They are drawn by one thread, from start to end. What they raise is raised here in its place. A caller who
    stops early closes the generator; the thread then ends with the value that it is at.
    """
    ready: queue.Queue[T | _End] = queue.Queue(maxsize=num)
    stopped = threading.Event()

    def hand_over(value: T | _End) -> bool:
        while not stopped.is_set():
            try:
                ready.put(value, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def draw() -> None:
        try:
            for value in values:
                if not hand_over(value):
                    return
        except BaseException as error:  # raised again where the values are wanted
            hand_over(_End(error))
        else:
            hand_over(_End(None))

    thread = threading.Thread(target=draw, name="reading ahead", daemon=True)
    thread.start()
    try:
        while True:
            value = ready.get()
            if isinstance(value, _End):
                if value.error is not None:
                    raise value.error
                return
            yield value
    finally:
        stopped.set()
        thread.join(timeout=1.0)  # a read that hangs must not keep an interrupted job
