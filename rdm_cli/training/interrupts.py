"""Ctrl-C and SIGTERM take effect between steps: half a step must never become a checkpoint."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Self

IMPATIENT_SECONDS = 1.0
_DEFERRED = (signal.SIGINT, signal.SIGTERM)


class DeferredInterrupt:
    """Within the block Ctrl-C and SIGTERM only set ``asked``; Ctrl-C pressed again interrupts at once.

    A launcher passes on the Ctrl-C that the terminal has sent to each of its processes already, so a
    second one counts after ``IMPATIENT_SECONDS`` only; as SIGTERM it comes when it comes, and is no
    impatience. Outside the main thread nothing is deferred.
    """

    def __init__(self) -> None:
        self.asked = False
        self._asked_at = 0.0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.asked:
            self.asked, self._asked_at = True, now
        elif number == signal.SIGINT and now - self._asked_at > IMPATIENT_SECONDS:
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        self._installed = threading.current_thread() is threading.main_thread()
        if self._installed:
            self._previous = {number: signal.signal(number, self._on_signal) for number in _DEFERRED}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            for number, handler in self._previous.items():
                signal.signal(number, handler)


def ignore_interrupts(worker: int) -> None:
    """Leave Ctrl-C to the main process, and end at SIGTERM; what a DataLoader's worker begins with."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
