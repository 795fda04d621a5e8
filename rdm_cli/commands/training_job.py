"""Training, as commanded: words become a plan, the plan a run or a forecast; one process speaks for all."""

from __future__ import annotations

import atexit
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rdm_cli.commands.training_progress import follow
from rdm_cli.console import Console
from rdm_cli.data.sources.folders import class_names

if TYPE_CHECKING:
    from accelerate import PartialState

    from rdm_cli.training.run.forecast import Forecast

INTERRUPTED = 130
LETTING_GO_SECONDS = 0.2
"""For what :func:`_leave` tells of, where this process has something to say before it ends."""


def carry_out(
    console: Console,
    method: str,
    *,
    folder: Path,
    run_folder: Path,
    adopting: Mapping[str, Any],
    classes: bool,
    resume: bool,
    kept: Mapping[str, str | int | None],
    tensorboard: bool,
    device: str,
    threads: int | None,
    dry_run: bool,
    **words: Any,
) -> None:
    """Train ``method`` as ``words`` say, or with ``dry_run`` say what that would be.

    ``classes`` makes each sub-folder of ``folder`` one. ``kept`` are the words that a resumed run has from
    its checkpoint unless they are named again, ``words`` the rest of
    :func:`~rdm_cli.training.run.plan.make_plan`'s.
    """
    from rdm_cli.training.processes import together
    from rdm_cli.training.run import plan as training_plan
    from rdm_cli.training.run import run as training_run

    processes = training_plan.join_processes(device=device, threads=threads)
    with one_voice(processes):
        with together(processes):
            settled = training_plan.settle_words(resume_from=run_folder if resume else None, **kept)
            accelerator = training_plan.make_accelerator(
                device=device,
                threads=threads,
                mixed_precision=settled["mixed_precision"],
                tracker_folder=run_folder if tensorboard else None,
            )
            plan = training_plan.make_plan(
                method,
                folder=folder,
                run_folder=run_folder,
                adopting={**adopting, **({"classes": class_names(folder)} if classes else {})},
                resume=resume,
                num_processes=accelerator.num_processes,
                on_cpu=accelerator.device.type == "cpu",
                command=shlex.join(["rdm", *sys.argv[1:]]),
                tensorboard=tensorboard,
                **settled,
                **words,
            )
        if not dry_run:
            follow(console, training_run.TrainingRun(plan, accelerator, console.note, console.problem))
            return
        from rdm_cli.training.run.forecast import forecast

        with together(processes):
            expected = forecast(plan, num_processes=accelerator.num_processes)
        if processes.is_main_process:
            tell(console, expected)
        accelerator.end_training()


@contextmanager
def one_voice(processes: PartialState) -> Iterator[None]:
    """Within the block, what ends all is told by one process; the others end here, without a word."""
    from rdm_cli.training.processes import ToldElsewhereError, lost_processes_told

    if processes.num_processes == 1:
        yield
        return
    try:
        with lost_processes_told(processes):
            yield
    except BaseException as error:
        if threading.current_thread() is threading.main_thread():
            # a launcher sends it to those who are left when one has gone: these are on their way out
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if isinstance(error, ToldElsewhereError):
            _leave(error.exit_code)
        if isinstance(error, KeyboardInterrupt) and not processes.is_main_process:
            _leave(INTERRUPTED)
        time.sleep(LETTING_GO_SECONDS)
        raise
    if not processes.is_main_process:
        _leave(0)
    time.sleep(LETTING_GO_SECONDS)


def _leave(code: int) -> NoReturn:
    """End this process without Python's own end, in which a thread of torch's that drops a tensor aborts."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def tell(console: Console, expected: Forecast) -> None:
    """Print a forecast: a line a subject or, with --json, one object."""
    console.emit_document("\n".join(_lines(expected)), **expected.facts())


def _lines(expected: Forecast) -> Iterator[str]:
    of = expected
    yield (
        f"batch\t{_many(of.batch_size, 'image')}: {of.micro_batch_size} in a pass, "
        f"{_many(of.num_accumulations, 'pass', 'es')}, {_many(of.num_processes, 'process', 'es')}"
    )
    yield f"images\t{of.num_items:,} found"
    if of.minutes is not None:
        left = max(0.0, of.minutes - of.minutes_spent)
        yield f"to go\t{left:.1f} of {of.minutes:g} minutes; {_many(of.num_seen, 'image')} seen"
    else:
        assert of.num_left is not None and of.num_steps_left is not None
        yield (
            f"to go\t{of.num_left:,} of {of.num_images:,} images, in {_many(of.num_steps_left, 'step')}; "
            f"{_many(of.num_seen, 'image')} seen"
        )
    parts = ", ".join(f"{name} {_bytes(size)}" for name, size in of.memory.items())
    yield f"memory\t{_bytes(sum(of.memory.values()))} a process: {parts}"


def _many(num: int, thing: str, plural: str = "s") -> str:
    return f"{num:,} {thing}{'' if num == 1 else plural}"


def _bytes(size: int) -> str:
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.0f} MB"
