"""A training run on disk: start or resume, log, checkpoint, draw sheets, and leave a bundle.

A run's folder holds ``checkpoint.safetensors`` (replaced whole), ``log.jsonl`` and
``diagnostics.jsonl`` (see :mod:`rdm_cli.training.run.log`), ``sheets/``, ``run.html`` that shows all of these
(:mod:`rdm_cli.training.run.page`) and, where asked for, TensorBoard's files; until the run is over also
``pixels-DIGEST.u8``, the decoded images (:mod:`rdm_cli.data.pixel_cache`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rdm_cli.bundles.cards import training_card
from rdm_cli.bundles.config_json import to_json
from rdm_cli.bundles.writing import save_bundle
from rdm_cli.data.io.atomic import remove_leftovers
from rdm_cli.data.pixel_cache import PATTERN, PixelCache, remove_pixels
from rdm_cli.errors import ImageError, PictureError, RdmError, UsageError
from rdm_cli.kernels.spacing import even_shares
from rdm_cli.methods.method import RepresentationModel
from rdm_cli.runtime import is_out_of_memory, out_of_memory, weights_dtype
from rdm_cli.training import diagnostics
from rdm_cli.training.checkpoint import Checkpoint, Progress, load_checkpoint, save_checkpoint
from rdm_cli.training.ema import WeightAverage
from rdm_cli.training.interrupts import DeferredInterrupt
from rdm_cli.training.loop import (
    DivergedError,
    StepRecord,
    average_weights,
    make_optimizer,
    train_steps,
)
from rdm_cli.training.processes import (
    ReportedElsewhereError,
    agree,
    dead_workers_reported,
    in_turn,
    is_the_same,
    leave,
    lost_processes_reported,
    together,
)
from rdm_cli.training.run.log import RunLog
from rdm_cli.training.run.page import write_run_page
from rdm_cli.training.run.plan import RunPlan
from rdm_cli.training.run.sheets import draw_sheet
from rdm_cli.training.run.start import (
    file_digests,
    starting_model,
    training_data,
    training_images,
)
from rdm_cli.training.run.trackers import finish_tracker, start_tracker

if TYPE_CHECKING:
    from accelerate import Accelerator


PIXELS_DIGEST_LENGTH = 16


class TrainingRun:
    """One process's part of a run; iterate :meth:`steps`, then read ``bundle`` from the plan.

    ``note`` is told remarks by the main process, ``problem`` of unreadable images by any.
    """

    def __init__(
        self,
        plan: RunPlan,
        accelerator: Accelerator,
        note: Callable[[str], None],
        problem: Callable[[str], None] | None = None,
    ) -> None:
        self.plan = plan
        self.accelerator = accelerator
        self.is_main = accelerator.is_main_process
        self._note = note
        self._log: RunLog | None = None
        self.saved_step: int | None = None
        with together(accelerator):
            checkpoint = load_checkpoint(plan.run_folder) if plan.resume else None
            on_bad, on_remark = partial(_report_bad, problem or note), partial(_report_remark, note)
            self.images = training_images(plan, on_bad=on_bad, on_remark=on_remark)
            if plan.latents is None:  # else each image is read once
                self.images.cache = PixelCache(
                    plan.run_folder / PATTERN.replace("*", self.images.digest()[:PIXELS_DIGEST_LENGTH]),
                    num=len(self.images),
                    shape=(self.images.channels, self.images.size, self.images.size),
                    note=problem or note,
                )
            self.file_digests = file_digests(self.images)
        named_63_bits = int(self.file_digests["named"][:16], 16) >> 1
        agreed = is_the_same(accelerator, named_63_bits)
        device = accelerator.device
        with together(accelerator):
            if not agreed:
                raise UsageError(f"{plan.folder}: not every process finds the same images there")
            if self.images.passed_over:
                self.note(f"{plan.folder}: {self.images.passed_over}")
            if len(self.images) < plan.settings.batch_size:
                self.note(f"only {len(self.images)} images: some are seen twice in one step")
            self.model = starting_model(plan, self.images, device, resumed=checkpoint is not None)
            self.described = cast(RepresentationModel, self.model)  # as the commands use it
            self.optimizer = make_optimizer(self.model, plan.settings)
            self.average = WeightAverage(self.model, plan.settings.ema_decay, only=plan.method.averaged)
            self.progress = Progress()
            if checkpoint is not None:
                self._restore(checkpoint)
        self.data = in_turn(
            accelerator, lambda: training_data(plan, self.images, self.model, device, self.note)
        )
        self.wrapped, self.prepared = accelerator.prepare(self.model, self.optimizer)
        if plan.compile:
            self.wrapped.compile(dynamic=False)

    def note(self, text: str) -> None:
        """A remark, once for all processes."""
        if self.is_main:
            self._note(text)

    def _restore(self, checkpoint: Checkpoint) -> None:
        scaler = self.accelerator.scaler
        checkpoint.restore(model=self.model, average=self.average, optimizer=self.optimizer, scaler=scaler)
        self.progress = checkpoint.progress
        self.saved_step = self.progress.step
        if scaler is not None and checkpoint.scaler is None:
            self.note("the checkpoint does not say how fp16 scaled the loss: that is found anew")
        self._note_changed_images(checkpoint.settings)
        self.note(f"resuming at step {self.progress.step}, {self.progress.num_images:,} images seen")

    def _note_changed_images(self, recorded: Mapping[str, Any]) -> None:
        """Say how the images differ from those of the checkpoint, as far as it says which they were."""
        folder, known = self.plan.folder, recorded.get("num_items")
        named, timed = (recorded.get(f"images_{name}") for name in ("named", "timed"))
        if known != len(self.images):
            self.note(
                f"{folder} held {known} images when the run began and holds "
                f"{len(self.images)} now: it goes on, in another order"
            )
        elif named not in (None, self.file_digests["named"]):
            self.note(f"{folder} holds other images than the run was saved with: it goes on with these")
        elif timed not in (None, self.file_digests["timed"]):
            self.note(
                f"images in {folder} were written since the run was saved, under the same names and in the "
                "same sizes: it goes on with them as they are"
            )

    @property
    def settings_json(self) -> dict[str, Any]:
        """What a checkpoint records besides tensors."""
        return {
            "method": self.plan.method.name,
            "preset": self.plan.preset,
            "init_from": self.plan.init_from,
            "pretrained": self.plan.pretrained,
            "commands": list(self.plan.commands),
            "config": to_json(self.plan.config),
            "settings": to_json(self.plan.settings),
            "budget": to_json(self.plan.budget),
            "num_items": len(self.images),
            "images_named": self.file_digests["named"],
            "images_timed": self.file_digests["timed"],
            "fit": self.plan.fit,
            "mixed_precision": self.plan.mixed_precision,
            "max_pixels": self.plan.max_pixels,
            "value_range": self.plan.value_range,
            "weights": self.plan.weights,
            "latents": None if self.plan.latents is None else str(self.plan.latents),
        }

    def steps(self) -> Generator[StepRecord, None, None]:
        """Train to the end of the budget, saving as planned; yields each step's record.

        Ctrl-C (KeyboardInterrupt, after the step under way) and closing the generator save a checkpoint
        first. Nothing else that ends a run early does: half a step, or weights that are not numbers,
        must not replace the last good one. Raises RdmError where training diverges. What ends one process
        ends all; those that are not the main one raise ReportedElsewhereError.
        """
        plan = self.plan
        with together(self.accelerator):
            if self.is_main:
                plan.run_folder.mkdir(parents=True, exist_ok=True)
                remove_leftovers(plan.run_folder)
                remove_pixels(
                    plan.run_folder, but=None if self.images.cache is None else self.images.cache.path
                )
                self._log = RunLog(plan.run_folder, self.progress.step)
        start_tracker(self.accelerator, plan)
        if plan.budget.fraction(self.progress) >= 1:
            self.note(f"nothing is left to train: {self.progress.num_images:,} images were seen already")
        saved = drawn = time.monotonic()
        whole = True  # the state in memory is that after a step, not within one
        with DeferredInterrupt() as interrupt:
            records = self._records(lambda: interrupt.asked)
            try:
                while True:
                    whole = False
                    record = next(records, None)
                    whole = True
                    if record is None:
                        break
                    self._take(record)
                    now = time.monotonic()
                    if self.is_main and now - saved >= 60 * plan.checkpoint_minutes:
                        self.save()
                        saved = time.monotonic()
                    if self.is_main and plan.sheet_minutes and now - drawn >= 60 * plan.sheet_minutes:
                        self.draw_sheet()
                        drawn = time.monotonic()
                    yield record
            except DivergedError as error:
                if not self.is_main:
                    raise ReportedElsewhereError(error.message) from error
                hint = self._way_back("a lower --lr")
                raise RdmError(f"training stops at {error.message}", hint=hint) from error
            finally:
                if self.is_main and whole:
                    self.save()
                if self._log is not None:
                    self._log.close()
                finish_tracker(self.accelerator)
        if agree(self.accelerator, asked=interrupt.asked):
            leave(self.accelerator)
            if not self.is_main:
                raise ReportedElsewhereError("interrupted")
            raise KeyboardInterrupt
        if self.is_main:
            if plan.sheet_minutes:
                self.draw_sheet()
            self.write_bundle()
            remove_pixels(plan.run_folder)
        leave(self.accelerator)

    def _records(self, asked: Callable[[], bool]) -> Iterator[StepRecord]:
        schedule, drawn = self.described.sampling.schedule, self.plan.settings.timesteps
        shares = None if drawn == "uniform" else even_shares(schedule.alpha_bar(), drawn)
        try:
            with lost_processes_reported(self.accelerator, self._way_back), dead_workers_reported():
                yield from train_steps(
                    self.wrapped,
                    average=self.average,
                    optimizer=self.prepared,
                    images=self.data,
                    num_train_steps=schedule.num_train_steps,
                    timestep_shares=shares,
                    x_T_shape=self.described.x_T_shape,
                    settings=self.plan.settings,
                    budget=self.plan.budget,
                    start=self.progress,
                    accelerator=self.accelerator,
                    noise_shapes=self.described.noise_shapes,
                    asked=asked,
                )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            hint = self._way_back("a smaller --batch-size or more --gradient-accumulation")
            raise out_of_memory(f"training stops at step {self.progress.step + 1}", hint) from error

    def _take(self, record: StepRecord) -> None:
        self.progress = Progress(
            step=record.step, num_images=record.num_images, elapsed_seconds=record.elapsed_seconds
        )
        if self._log is not None:
            self._log.write(record)
        if self.plan.log:
            values = {"loss": record.loss, "lr": record.lr, "images/s": record.images_per_second}
            self.accelerator.log(values, step=record.step)

    def _way_back(self, other: str = "") -> str:
        if not self.is_main:  # which alone knows what it has saved
            return "go on with --resume from the last checkpoint, where there is one"
        if self.saved_step is None:
            return f"start again with {other}" if other else "start again"
        again = f"--resume and {other}" if other else "--resume"
        return f"the checkpoint of step {self.saved_step} is kept: go on with {again}"

    def save(self) -> None:
        """Write a checkpoint, and the log up to it."""
        if self._log is not None:
            self._log.flush()
        save_checkpoint(
            self.plan.run_folder,
            model=self.model,
            average=self.average,
            optimizer=self.optimizer,
            progress=self.progress,
            settings=self.settings_json,
            scaler=self.accelerator.scaler,
        )
        self.saved_step = self.progress.step

    def write_bundle(self) -> None:
        """Write the averaged weights as a bundle."""
        model = diagnostics.averaged_copy(self.model, average_weights(self.model, self.average))
        save_bundle(
            self.plan.bundle,
            self.plan.method,
            model,
            card=training_card(
                name=self.plan.bundle.name,
                title=self.plan.method.title,
                commands=self.plan.commands,
                data=f"{len(self.images):,} images of {self.plan.folder.name}",
                num_images=self.progress.num_images,
                num_parameters=sum(p.numel() for p in model.parameters()),
                is_first_stage=not self.plan.method.samples,
            ),
            dtype=weights_dtype(self.plan.weights),
        )

    def draw_sheet(self) -> None:
        """Draw a sheet with the averaged weights, say how much z is used, and write the run's page anew."""
        path = self.plan.run_folder / "sheets" / f"{self.progress.step:07d}.png"
        model = diagnostics.averaged_copy(self.model, average_weights(self.model, self.average))
        try:
            losses, remark = draw_sheet(model, self.images, path, self.accelerator.device, self._record())
        except PictureError as error:  # a sheet is no reason to end a run
            self.note(f"{path}: {error.message}")
            return
        pairs = ", ".join(f"t={t}: {own:.4f} -> {other:.4f}" for t, (own, other) in losses.items())
        remark = f"loss with own -> swapped z at {pairs}" if losses else remark
        self.note(f"{path}; {remark}" if remark else str(path))
        if self._log is not None:
            self._log.write_diagnostics(step=self.progress.step, sheet=path.name, swapped_z=losses)
            self._log.flush()
            write_run_page(self.plan.run_folder, name=self.plan.bundle.name, facts=self._facts())

    def _record(self) -> dict[str, Any]:
        """What a sheet records of the run."""
        return {
            "bundle": self.plan.bundle.name,
            "command": self.plan.commands[0],
            "seed": self.plan.settings.seed,
            "step": self.progress.step,
            "num_images": self.progress.num_images,
        }

    def _facts(self) -> dict[str, object]:
        """What the run's page says of it."""
        return {
            "method": self.plan.method.title,
            "command": "\n".join(self.plan.commands),
            "data": f"{len(self.images):,} images of {self.plan.folder.name}",
            "parameters": f"{sum(p.numel() for p in self.model.parameters()):,}",
        }


def _report_bad(say: Callable[[str], None], path: Path, error: ImageError) -> None:
    say(f"left out of training: {error}")


def _report_remark(note: Callable[[str], None], name: str, text: str) -> None:
    note(f"{name}: {text}")
