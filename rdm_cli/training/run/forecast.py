"""What a training run would be, before it is one: its batch, its memory, and what is left to do."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from rdm_cli.training.checkpoint import Progress
from rdm_cli.training.run.plan import RunPlan
from rdm_cli.training.run.start import earlier_checkpoint, training_images
from rdm_cli.training.run.step_memory import step_memory


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A run that has not begun.

    A step sees ``batch_size`` images: ``micro_batch_size`` in each of the ``num_accumulations`` passes of
    each of ``num_processes``. ``num_items`` images lie in its folder. It is to see ``num_images``, or to
    train for ``minutes``; an earlier run has seen ``num_seen`` already and spent ``minutes_spent``.
    ``memory``: bytes a process, by what they are for (:func:`~rdm_cli.training.run.step_memory.step_memory`).
    """

    batch_size: int
    micro_batch_size: int
    num_accumulations: int
    num_processes: int
    num_items: int
    num_images: int | None
    num_seen: int
    minutes: float | None
    minutes_spent: float
    memory: dict[str, int]

    @property
    def num_left(self) -> int | None:
        """Images to go; None where the budget is one of time."""
        return None if self.num_images is None else max(0, self.num_images - self.num_seen)

    @property
    def num_steps_left(self) -> int | None:
        """Steps to go, the last of which may see more images than are left; None likewise."""
        return None if self.num_left is None else math.ceil(self.num_left / self.batch_size)

    def facts(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self) | {
            "num_left": self.num_left,
            "num_steps_left": self.num_steps_left,
            "memory_total": sum(self.memory.values()),
        }


def forecast(plan: RunPlan, *, num_processes: int) -> Forecast:
    """What ``plan`` comes to on ``num_processes``; reads images' names and a checkpoint, writes nothing.

    Raises what the run would raise where it cannot begin; see
    :func:`~rdm_cli.training.run.start.earlier_checkpoint`.
    """
    checkpoint = earlier_checkpoint(plan, tensors=False)
    progress = Progress() if checkpoint is None else checkpoint.progress
    settings, budget = plan.settings, plan.budget
    micro_batch_size = settings.batch_size // (num_processes * settings.num_accumulations)
    timed = budget.minutes is not None
    return Forecast(
        batch_size=settings.batch_size,
        micro_batch_size=micro_batch_size,
        num_accumulations=settings.num_accumulations,
        num_processes=num_processes,
        num_items=len(training_images(plan)),
        num_images=None if timed else budget.num_images,
        num_seen=progress.num_images,
        minutes=budget.minutes,
        minutes_spent=progress.elapsed_seconds / 60,
        memory=step_memory(plan, micro_batch_size=micro_batch_size),
    )
