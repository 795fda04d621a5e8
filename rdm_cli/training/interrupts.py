"""Ctrl-C takes effect between steps: half a step must never become a checkpoint."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Self

IMPATIENT_SECONDS = 1.0


class DeferredInterrupt:
    """Within the block Ctrl-C only sets ``asked``; pressed again, it interrupts at once.

    A launcher passes on the Ctrl-C that the terminal has sent to each of its processes already, so a
    second one counts after ``IMPATIENT_SECONDS`` only. Outside the main thread nothing is deferred.
    """

    def __init__(self) -> None:
        self.asked = False
        self._asked_at = 0.0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.asked:
            self.asked, self._asked_at = True, now
        elif now - self._asked_at > IMPATIENT_SECONDS:
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        self._installed = threading.current_thread() is threading.main_thread()
        if self._installed:
            self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._previous)


def ignore_interrupts(worker: int) -> None:
    """Leave Ctrl-C to the main process; what a DataLoader's worker begins with."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
