"""Following a training run on the terminal: a bar, a line now and then, and how to go on after Ctrl-C."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

from rdm_cli.console import Console
from rdm_cli.errors import StreamError

if TYPE_CHECKING:
    from rdm_cli.training.loop import StepRecord
    from rdm_cli.training.run.run import TrainingRun

REPORT_SECONDS = 30.0


def follow(console: Console, training: TrainingRun) -> None:
    """Run ``training`` to its end; the main process alone speaks."""
    plan = training.plan
    if not training.is_main:
        for _ in training.steps():
            pass
        return
    told = time.monotonic()
    try:
        # closed whatever happens: closing is what saves the state
        with (
            console.progress("training", 100.0, in_logs=False) as advance,
            closing(training.steps()) as records,
        ):
            done = 0.0
            for record in records:
                advance(100 * record.fraction - done)
                done = 100 * record.fraction
                now = time.monotonic()
                if now - told >= REPORT_SECONDS or record.fraction >= 1 or record.step == 1:
                    told = now
                    _report(console, record)
    except (KeyboardInterrupt, StreamError):
        if training.saved_step is not None:
            again = plan.command if plan.resume else f"{plan.command} --resume"
            console.problem(f"rdm: saved at step {training.saved_step}; go on with: {again}")
        raise
    console.emit(str(plan.bundle), output=str(plan.bundle), run=str(plan.run_folder))


def _report(console: Console, record: StepRecord) -> None:
    minutes, seconds = divmod(int(record.seconds_left), 60)
    console.note(
        f"step {record.step}, {record.num_images:,} images: loss {record.loss:.4f}, "
        f"{record.images_per_second:.1f} images/s, {minutes} min {seconds:02d} s left"
    )
    if console.as_json:
        console.emit(
            "",
            step=record.step,
            num_images=record.num_images,
            loss=record.loss,
            lr=record.lr,
            images_per_second=record.images_per_second,
            seconds_left=record.seconds_left,
        )
