"""Ctrl-C waits for the end of a step."""

from __future__ import annotations

import os
import signal

import pytest

from rdm_cli.training import interrupts
from rdm_cli.training.interrupts import DeferredInterrupt


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_is_remembered_and_the_handler_restored() -> None:
    before = signal.getsignal(signal.SIGINT)
    with DeferredInterrupt() as interrupt:
        assert not interrupt.asked
        press()
        press()  # the launcher's copy of the same Ctrl-C
        assert interrupt.asked
    assert signal.getsignal(signal.SIGINT) is before


def test_an_impatient_second_one_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "IMPATIENT_SECONDS", -1.0)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), DeferredInterrupt():
        press()
        press()
    assert signal.getsignal(signal.SIGINT) is before
