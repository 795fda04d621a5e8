"""Training as the terminal sees it: progress, Ctrl-C and how to go on, or with --dry-run a forecast."""

from __future__ import annotations

import atexit
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rdm_cli.console import Console
from rdm_cli.errors import StreamError

if TYPE_CHECKING:
    from accelerate import PartialState

    from rdm_cli.bundles.bundle import Bundle
    from rdm_cli.training.attributes import AttributeFit
    from rdm_cli.training.loop import StepRecord
    from rdm_cli.training.prior import PriorRecord, PriorSettings
    from rdm_cli.training.run.forecast import Forecast
    from rdm_cli.training.run.on_codes import PriorNetwork
    from rdm_cli.training.run.plan import RunPlan, TrainOptions
    from rdm_cli.training.run.run import TrainingRun

INTERRUPTED = 130
LAST_WORDS_SECONDS = 0.2
"""How long a process that has reported why it ends waits before it does: see :func:`_leave`."""
REPORT_SECONDS = 30.0


def train_or_forecast(
    console: Console,
    options: TrainOptions,
    *,
    dry_run: bool = False,
    show: Callable[[TrainOptions], None] | None = None,
) -> RunPlan | None:
    """Train as ``options`` say; returns what was trained.

    Nothing is, where ``show`` is to show the options in effect, or with ``dry_run``, which prints what it
    would be.
    """
    from rdm_cli.training.processes import leave, together
    from rdm_cli.training.run.plan import in_effect, join_processes, make_accelerator, make_plan

    processes = join_processes(device=options.device, threads=options.threads)
    with only_one_reports(processes):
        with together(processes):
            plan = make_plan(
                options,
                num_processes=processes.num_processes,
                on_cpu=processes.device.type == "cpu",
                command=this_command(),
            )
            if show is not None:
                if processes.is_main_process:
                    show(in_effect(options, plan))
                return None
            accelerator = make_accelerator(
                device=options.device,
                threads=options.threads,
                mixed_precision=plan.mixed_precision,
                log=plan.log,
                run_folder=plan.run_folder,
            )
        if not dry_run:
            from rdm_cli.training.run.run import TrainingRun

            follow(console, TrainingRun(plan, accelerator, console.note, console.problem))
            return plan
        from rdm_cli.training.run.forecast import forecast

        with together(processes):
            expected = forecast(plan, num_processes=accelerator.num_processes)
        if processes.is_main_process:
            print_forecast(console, expected)
        leave(accelerator)
    return None


@contextmanager
def only_one_reports(processes: PartialState) -> Iterator[None]:
    """Within the block, one process reports what ends all of them; the others end here, without a word."""
    from rdm_cli.training.processes import ReportedElsewhereError, lost_processes_reported

    if processes.num_processes == 1:
        yield
        return
    try:
        with lost_processes_reported(processes):
            yield
    except BaseException as error:
        if threading.current_thread() is threading.main_thread():
            # a launcher sends it to those who are left when one has gone: these are on their way out
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if isinstance(error, ReportedElsewhereError):
            _leave(error.exit_code)
        if isinstance(error, KeyboardInterrupt) and not processes.is_main_process:
            _leave(INTERRUPTED)
        time.sleep(LAST_WORDS_SECONDS)
        raise
    if not processes.is_main_process:
        _leave(0)
    time.sleep(LAST_WORDS_SECONDS)


def _leave(code: int) -> NoReturn:
    """End this process without Python's own end, in which a thread of torch's that drops a tensor aborts."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def follow(console: Console, training: TrainingRun) -> None:
    """Run ``training`` to its end; the main process alone speaks."""
    plan = training.plan
    if not training.is_main:
        for _ in training.steps():
            pass
        return
    reported_at = time.monotonic()
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
                if now - reported_at >= REPORT_SECONDS or record.fraction >= 1 or record.step == 1:
                    reported_at = now
                    _report(console, record)
    except (KeyboardInterrupt, StreamError):
        if training.saved_step is not None:
            console.problem(f"rdm: saved at step {training.saved_step}; go on with: {resuming(plan.command)}")
        raise


def resuming(command: str) -> str:
    """The command that goes on with what ``command`` began."""
    return command if "--resume" in shlex.split(command) else f"{command} --resume"


def this_command() -> str:
    """The command that this process was given."""
    return shlex.join(["rdm", *sys.argv[1:]])


def follow_prior(
    console: Console,
    bundle: Bundle,
    codes: Path,
    *,
    settings: PriorSettings,
    network: PriorNetwork,
    labels: Path | None,
    seed: int,
    weights: str,
) -> int:
    """Train a prior on ``codes`` and put it into ``bundle``; returns the number of codes."""
    from rdm_cli.runtime import weights_dtype
    from rdm_cli.training.run.on_codes import train_bundle_prior

    had_one = "prior" in bundle.parts
    with console.progress("training the prior", settings.num_steps, unit="steps") as advance:

        def on_record(record: PriorRecord) -> None:
            advance(1.0)
            if record.held_out_loss is None and record.seen_loss is None:
                return
            if console.as_json:
                console.emit(
                    "",
                    step=record.step,
                    loss=record.loss,
                    seen=record.seen_loss,
                    held_out=record.held_out_loss,
                )
            else:
                console.note(
                    f"step {record.step}/{settings.num_steps}: loss on codes seen {record.seen_loss:.4f}, "
                    f"held out {record.held_out_loss or float('nan'):.4f}"
                )

        num_codes = train_bundle_prior(
            bundle,
            codes,
            settings=settings,
            network=network,
            labels=labels,
            seed=seed,
            weights_dtype=weights_dtype(weights),
            on_record=on_record,
            note=console.note,
        )
    if had_one:
        console.note(f"in place of the prior that {bundle.name} had")
    return num_codes


def follow_attributes(
    console: Console,
    bundle: Bundle,
    codes: Path,
    labels: Path,
    *,
    held_out: float = 0.2,
    along: str = "means",
    replace_all: bool = False,
    seed: int,
) -> AttributeFit:
    """Fit attributes to ``codes``, put them into ``bundle``, and say what was left out and is doubtful."""
    from rdm_cli.training.run.on_codes import train_bundle_attributes

    trained = train_bundle_attributes(
        bundle,
        codes,
        labels,
        held_out=held_out,
        seed=seed,
        along=along,
        replace_all=replace_all,
        note=console.note,
    )
    fit = trained.fit
    for name, reason in fit.skipped.items():
        stays = ": the bundle keeps the one it has" if name in trained.kept else ""
        console.problem(f"rdm: {name} left out: {reason}{stays}")
    names = fit.directions.names
    for line in filter(None, map(fit.directions.doubts, names)):
        console.problem(f"rdm: {line}")
    for line in trained.remarks:
        console.problem(f"rdm: {labels.name}: {line}")
    console.note(
        f"{len(names)} attributes from {trained.num_labelled} codes -> {bundle.folder / 'attributes'}"
    )
    for done, others in (("kept", trained.kept), ("dropped", trained.dropped)):
        if others:
            console.note(f"{done}: {', '.join(others)}")
    return fit


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


def print_forecast(console: Console, expected: Forecast) -> None:
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
