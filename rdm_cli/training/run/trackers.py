"""Trackers beside a run's own log: tensorboard, trackio and Weights & Biases, each by accelerate.

What they print goes to stderr, for stdout carries data only.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rdm_cli.errors import RdmError, UsageError, setting
from rdm_cli.training.processes import together

if TYPE_CHECKING:
    from accelerate import Accelerator

    from rdm_cli.training.run.plan import RunPlan

PROJECT = "rdm"


def refuse_missing(tracker: str) -> None:
    """Raise UsageError where the package of ``tracker`` is not installed, or accelerate does not know it."""
    from accelerate.tracking import get_available_trackers

    if tracker in map(str, get_available_trackers()):
        return
    needed = "a later accelerate" if find_spec(tracker) else tracker
    package = "-U accelerate" if find_spec(tracker) else tracker
    raise UsageError(f"{setting('log')} {tracker} needs {needed}", hint=f"pip install {package}")


def start_tracker(accelerator: Accelerator, plan: RunPlan) -> None:
    """Start the run in ``plan.log``: of project ``rdm``, called as the bundle, with the settings.

    tensorboard writes into the run's folder; trackio, where a run is gone on with, adds to the earlier one.
    Raises RdmError where the tracker cannot start, as one that asks for a login.
    """
    tracker, name = plan.log, plan.bundle.name
    if tracker is None:
        return
    options: dict[str, dict[str, Any]] = {
        "trackio": {"name": name, "resume": "allow" if plan.resume else "never"},
        "wandb": {"name": name, "dir": str(plan.run_folder)},
    }
    facts = {"method": plan.method.name, "preset": plan.preset, "command": plan.command}
    with together(accelerator):
        try:
            with redirect_stdout(sys.stderr):
                if tracker == "tensorboard":
                    accelerator.init_trackers(tracker)
                else:
                    config = facts | asdict(plan.settings)
                    accelerator.init_trackers(PROJECT, config=config, init_kwargs=options)
        except Exception as error:  # each has kinds of its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RdmError(f"{setting('log')} {tracker}: {reason}") from error


def finish_tracker(accelerator: Accelerator) -> None:
    """Let the tracker write what it holds; once, though accelerate asks at its end, too."""
    with redirect_stdout(sys.stderr):
        while accelerator.trackers:
            accelerator.trackers.pop().finish()
