"""rdm train METHOD: a method, or a first stage, on a folder of images.

The options become a plan, the plan a run that is followed on the terminal or, with --dry-run, a forecast.
"""

from __future__ import annotations

import atexit
import inspect
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, get_args

import typer

from rdm_cli import options as o
from rdm_cli.commands.training_words import (
    AROUND,
    FirstStageKind,
    LossWeighting,
    Predicted,
    Tracker,
)
from rdm_cli.console import Console
from rdm_cli.data.images.value_range import parse_range
from rdm_cli.errors import StreamError, UsageError
from rdm_cli.option_groups import spread
from rdm_cli.registry import PRESETS, load

if TYPE_CHECKING:
    from accelerate import PartialState

    from rdm_cli.training.loop import StepRecord
    from rdm_cli.training.run.forecast import Forecast
    from rdm_cli.training.run.plan import TrainOptions
    from rdm_cli.training.run.run import TrainingRun

INTERRUPTED = 130
LAST_WORDS_SECONDS = 0.2
"""How long a process that has reported why it ends waits before it does: see :func:`_leave`."""
REPORT_SECONDS = 30.0


def _of_kind(preset: str | None, kind: FirstStageKind | None) -> str | None:
    """A first stage's preset, which is of a kind; None where neither was named."""
    if preset is None and kind is None:
        return None
    if preset is not None and preset.startswith(tuple(f"{k}-" for k in get_args(FirstStageKind))):
        return preset  # as the list of presets has it
    return f"{kind or 'kl'}-{preset or 'small64'}"


def training_command(method: str, what: str, *, around: str | None = None) -> Callable[..., None]:
    """The command that trains ``method``; ``what`` names, in its help, what comes of it.

    ``around`` is what it is trained around, "dpm" or "first-stage": the command has options for it.
    """

    @spread
    def train(
        folder: Annotated[Path, typer.Argument(help="Folder of images, searched recursively.")],
        output: Annotated[
            Path, typer.Option("-o", "--output", metavar="BUNDLE", help="The bundle to write.")
        ],
        preset: str | None = None,
        images: Annotated[
            int | None,
            typer.Option(
                "--images", metavar="N", min=1, help="Stop after N images seen.", show_default="the preset's"
            ),
        ] = None,
        steps: Annotated[
            int | None, typer.Option("--steps", metavar="N", min=1, help="Stop after N optimiser steps.")
        ] = None,
        minutes: Annotated[
            float | None,
            typer.Option("--minutes", metavar="MINUTES", min=0.01, help="Stop after so many minutes."),
        ] = None,
        batch_size: Annotated[
            int | None,
            typer.Option(
                "--batch-size",
                metavar="N",
                min=1,
                help="Images in one step, over all processes.",
                show_default="the preset's",
                rich_help_panel="Optimiser",
            ),
        ] = None,
        lr: Annotated[
            float | None,
            typer.Option(
                "--lr",
                metavar="RATE",
                min=0.0,
                help="Learning rate.",
                show_default="the preset's",
                rich_help_panel="Optimiser",
            ),
        ] = None,
        warmup: Annotated[
            int | None,
            typer.Option(
                "--warmup",
                metavar="N",
                min=0,
                help="Steps in which the learning rate rises from 0.",
                show_default="the preset's",
                rich_help_panel="Optimiser",
            ),
        ] = None,
        decay: Annotated[
            float | None,
            typer.Option(
                "--decay",
                metavar="FRACTION",
                min=0.0,
                max=1.0,
                help="Last fraction of training, in which the learning rate falls to 0.",
                show_default="the preset's",
                rich_help_panel="Optimiser",
            ),
        ] = None,
        weight_decay: Annotated[
            float | None,
            typer.Option(
                "--weight-decay",
                metavar="W",
                min=0.0,
                show_default="the preset's",
                help="Weight decay of AdamW.",
                rich_help_panel="Optimiser",
            ),
        ] = None,
        ema: Annotated[
            float | None,
            typer.Option(
                "--ema",
                metavar="DECAY",
                min=0.0,
                max=0.999999,
                help="Decay of the averaged weights.",
                show_default="the preset's",
                rich_help_panel="Optimiser",
            ),
        ] = None,
        flip: Annotated[
            bool | None,
            typer.Option(
                "--flip/--no-flip",
                help="Mirror half of the images.",
                show_default="the preset's",
                rich_help_panel=o.IMAGES,
            ),
        ] = None,
        dpm: Annotated[
            str | None,
            typer.Option(
                "--dpm",
                metavar="BUNDLE",
                help="The pretrained model, which stays frozen; also a diffusers UNet2DModel pipeline.",
                rich_help_panel="Method",
            ),
        ] = None,
        gamma: Annotated[
            float | None,
            typer.Option(
                "--gamma",
                metavar="GAMMA",
                min=0.0,
                help="Weigh the loss by SNR^gamma / (1 + SNR).",
                show_default="0.1 in the preset published, else no weight",
                rich_help_panel="Method",
            ),
        ] = None,
        first_stage: Annotated[
            str | None,
            typer.Option(
                "--first-stage",
                metavar="FOLDER",
                help="The autoencoder, frozen: diffusers' AutoencoderKL, VQModel or AutoencoderTiny.",
                rich_help_panel="Method",
            ),
        ] = None,
        kind: Annotated[
            FirstStageKind | None,
            typer.Option(
                "--kind",
                help="Gaussian latents, or quantised ones.",
                show_default="kl",
                rich_help_panel="Method",
            ),
        ] = None,
        perceptual_weight: Annotated[
            float | None,
            typer.Option(
                "--perceptual-weight",
                metavar="W",
                min=0.0,
                help="Weight of the perceptual distance ST-LPIPS in the loss.",
                show_default="0",
                rich_help_panel="Method",
            ),
        ] = None,
        kl_weight: Annotated[
            float | None,
            typer.Option(
                "--kl-weight",
                metavar="W",
                min=0.0,
                help="The paper's lambda: how far z is pulled to N(0, I).",
                show_default="the preset's",
                rich_help_panel="Method",
            ),
        ] = None,
        predict: Annotated[
            Predicted | None,
            typer.Option(
                "--predict",
                help="What the UNet predicts.",
                show_default="the preset's",
                rich_help_panel="Method",
            ),
        ] = None,
        weighting: Annotated[
            LossWeighting | None,
            typer.Option(
                "--weighting",
                help="Weight of the loss over t: none, likelihood, or other (that of eps for a network that "
                "predicts x_0, and the reverse).",
                show_default="none",
                rich_help_panel="Method",
            ),
        ] = None,
        classes: Annotated[
            bool,
            typer.Option(
                "--classes",
                help="Each sub-folder is a class, which the networks are given.",
                rich_help_panel="Method",
            ),
        ] = False,
        cache_latents: Annotated[
            Path | None,
            typer.Option(
                "--cache-latents",
                metavar="DIR",
                help="Compute the latents once and keep them in DIR.",
                rich_help_panel="Method",
            ),
        ] = None,
        resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")] = False,
        dry_run: Annotated[
            bool,
            typer.Option(
                "--dry-run", help="Print the batch, the memory it needs and the work to do; write nothing."
            ),
        ] = False,
        init_from: Annotated[
            str | None, typer.Option("--init-from", metavar="BUNDLE", help="Start from a bundle's weights.")
        ] = None,
        run: Annotated[
            Path | None,
            typer.Option(
                "--run",
                metavar="DIR",
                help="Folder for checkpoint, log and sheets.",
                show_default="runs/NAME",
                rich_help_panel="Run",
            ),
        ] = None,
        checkpoint_minutes: Annotated[
            float,
            typer.Option(
                "--checkpoint-minutes",
                metavar="MINUTES",
                min=0.0,
                help="Minutes between checkpoints.",
                rich_help_panel="Run",
            ),
        ] = 5.0,
        sheet_minutes: Annotated[
            float,
            typer.Option(
                "--sheet-minutes",
                metavar="MINUTES",
                min=0.0,
                help="Minutes between sheets of pictures; 0: no sheets.",
                rich_help_panel="Run",
            ),
        ] = 15.0,
        mixed_precision: Annotated[
            o.MixedPrecision | None,
            typer.Option(
                "--mixed-precision",
                help="Arithmetic of a step; fp16 needs a GPU.",
                show_default="no",
                rich_help_panel=o.MACHINE,
            ),
        ] = None,
        compile_networks: Annotated[
            bool,
            typer.Option(
                "--compile",
                help="Compile the step with torch.compile: minutes at the start, then faster on a GPU.",
                rich_help_panel=o.MACHINE,
            ),
        ] = False,
        gradient_accumulation: Annotated[
            int | None,
            typer.Option(
                "--gradient-accumulation",
                metavar="N",
                min=1,
                help="Passes in one step: less memory, the same batch.",
                show_default="1",
                rich_help_panel="Optimiser",
            ),
        ] = None,
        weights: Annotated[
            o.Weights | None,
            typer.Option(
                "--weights", help="How the bundle stores weights.", show_default="fp32", rich_help_panel="Run"
            ),
        ] = None,
        log: Annotated[
            Tracker | None, typer.Option("--log", help="Log to tensorboard as well.", rich_help_panel="Run")
        ] = None,
        workers: Annotated[
            int | None,
            typer.Option(
                "--workers",
                metavar="N",
                min=0,
                help="Processes that decode images.",
                show_default="0 on a CPU, else 4",
                rich_help_panel=o.MACHINE,
            ),
        ] = None,
        fit: Annotated[
            o.Fit | None,
            typer.Option(
                "--fit",
                help="How an image becomes a square of the network's size.",
                show_default="crop",
                rich_help_panel=o.IMAGES,
            ),
        ] = None,
        max_pixels: Annotated[
            int | None,
            typer.Option(
                "--max-pixels",
                metavar="N",
                min=1,
                help="Leave out images of more than N pixels (guards against decompression bombs).",
                show_default=str(o.MAX_PIXELS_DEFAULT),
                rich_help_panel=o.IMAGES,
            ),
        ] = None,
        value_range: Annotated[
            str | None,
            typer.Option(
                "--range",
                metavar="LO,HI",
                help="Grey images of more than 8 bits: which values are black and white.",
                show_default="found from each image's values",
                rich_help_panel=o.IMAGES,
            ),
        ] = None,
        seed: Annotated[
            int | None,
            typer.Option(
                "--seed",
                metavar="N",
                help="Seed of everything random.",
                show_default="0",
                rich_help_panel="Run",
            ),
        ] = None,
        *,
        processor: o.Processor,
        voice: o.Voice,
    ) -> None:
        console = Console(as_json=voice.as_json, quiet=voice.quiet)
        if sum(given is not None for given in (images, steps, minutes)) > 1:
            raise UsageError("--images, --steps and --minutes exclude each other")
        if value_range is not None:
            parse_range(value_range)  # a wrong one is told before any work
        from rdm_cli.training.run.plan import TrainOptions

        options = TrainOptions(
            method=method,
            folder=folder,
            bundle=output,
            run_folder=run or Path("runs") / output.name,
            classes=classes,
            preset=_of_kind(preset, kind) if around == "nothing" else preset,
            init_from=init_from,
            pretrained=dpm or first_stage,
            resume=resume,
            num_images=images,
            num_steps=steps,
            minutes=minutes,
            batch_size=batch_size,
            lr=lr,
            warmup_steps=warmup,
            decay_fraction=decay,
            weight_decay=weight_decay,
            ema_decay=ema,
            flip=flip,
            num_accumulations=gradient_accumulation,
            num_workers=workers,
            seed=seed,
            gamma=gamma,
            kl_weight=kl_weight,
            perceptual_weight=perceptual_weight,
            predict=predict,
            weighting=weighting,
            fit=fit,
            mixed_precision=mixed_precision,
            max_pixels=max_pixels,
            value_range=value_range,
            weights=weights,
            latents=cache_latents,
            checkpoint_minutes=checkpoint_minutes,
            sheet_minutes=sheet_minutes or None,
            tensorboard=log is not None,
            compile=compile_networks,
            device=processor.device,
            threads=processor.threads,
        )
        train_or_forecast(console, options, dry_run=dry_run)

    needed = {"dpm": " --dpm my-dpm", "first-stage": " --first-stage vae/"}.get(around or "", "")
    train.__doc__ = f"""Train {what} on any folder of images.

    Runs on one process, or on many under 'torchrun --nproc-per-node N -m -- rdm_cli train {method} ...' (with
    --device cpu, that many processes on the CPU). A run that was stopped or killed goes on with --resume
    as if undisturbed; its settings are kept, and those named again are changed.

    Examples:
        rdm train {method} faces/ -o my-bundle{needed} --preset small64
        rdm train {method} faces/ -o my-bundle{needed} --resume
    """
    foreign = {name for kind, names in AROUND.items() if kind != around for name in names}
    signature = inspect.signature(train, eval_str=True)  # typer does so too, but not with a given one
    presets = load(PRESETS, "method", method)  # names alone, without torch
    kinds = tuple(f"{kind}-" for kind in get_args(FirstStageKind))
    names = dict.fromkeys(name.partition("-")[2] if name.startswith(kinds) else name for name in presets)
    listed = f"Networks and recipe: {', '.join(names)} (docs/training.md)."
    option = typer.Option("--preset", metavar="NAME", help=listed, show_default="small64")
    known = dict(signature.parameters)
    known["preset"] = known["preset"].replace(annotation=Annotated[str | None, option])
    own = [parameter for name, parameter in known.items() if name not in foreign]
    train.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
    return train


def train_or_forecast(console: Console, options: TrainOptions, *, dry_run: bool) -> None:
    """Train as ``options`` say, or with ``dry_run`` print what that would be."""
    from rdm_cli.training.processes import together
    from rdm_cli.training.run.plan import join_processes, make_accelerator, make_plan

    processes = join_processes(device=options.device, threads=options.threads)
    with only_one_reports(processes):
        with together(processes):
            plan = make_plan(
                options,
                num_processes=processes.num_processes,
                on_cpu=processes.device.type == "cpu",
                command=shlex.join(["rdm", *sys.argv[1:]]),
            )
            accelerator = make_accelerator(
                device=options.device,
                threads=options.threads,
                mixed_precision=plan.mixed_precision,
                tracker_folder=plan.run_folder if plan.tensorboard else None,
            )
        if not dry_run:
            from rdm_cli.training.run.run import TrainingRun

            follow(console, TrainingRun(plan, accelerator, console.note, console.problem))
            return
        from rdm_cli.training.run.forecast import forecast

        with together(processes):
            expected = forecast(plan, num_processes=accelerator.num_processes)
        if processes.is_main_process:
            print_forecast(console, expected)
        accelerator.end_training()


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
