"""A training run on disk: start or resume, log, checkpoint, draw sheets, and leave a bundle.

A run's folder holds ``checkpoint.safetensors`` (replaced whole), ``log.jsonl`` (one line a step, cut
back to the checkpoint on resuming), ``sheets/`` and, where asked for, TensorBoard's files.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from rdm_cli.core.bundles import open_bundle, save_bundle
from rdm_cli.core.cards import training_card
from rdm_cli.core.configs import from_json, to_json
from rdm_cli.data.dataset import ImageFolder
from rdm_cli.data.images import grid, save_image, to_pil, to_unit_range
from rdm_cli.errors import CheckpointError, UsageError
from rdm_cli.methods.method import Method, RepresentationModel
from rdm_cli.training import diagnostics
from rdm_cli.training.checkpoint import FILE_NAME, Checkpoint, Progress, load_checkpoint, save_checkpoint
from rdm_cli.training.ema import WeightAverage
from rdm_cli.training.loop import (
    Budget,
    Settings,
    StepRecord,
    average_weights,
    make_optimizer,
    train_steps,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

NUM_SHEET_IMAGES = 8


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What the user asked for.

    ``folder`` of images, ``bundle`` to write, ``run_folder`` for everything else. ``init_from`` is a
    bundle to start from. Minutes say how often a checkpoint and a sheet are written; None: never.
    """

    folder: Path
    bundle: Path
    run_folder: Path
    method: Method
    config: Any
    settings: Settings
    budget: Budget
    command: str
    resume: bool = False
    init_from: str | None = None
    fit: str = "crop"
    weights_dtype: torch.dtype = torch.float32
    checkpoint_minutes: float = 5.0
    sheet_minutes: float | None = 15.0
    tensorboard: bool = False


def stored_settings(run_folder: Path) -> tuple[Settings, Budget, Any]:
    """(settings, budget, config as JSON) of a run that is to be resumed; raises CheckpointError."""
    stored = load_checkpoint(run_folder).settings
    return (
        from_json(Settings, stored["settings"]),
        from_json(Budget, stored["budget"]),
        stored["config"],
    )


class TrainingRun:
    """One process's part of a run; iterate :meth:`steps`, then read ``bundle`` from the plan."""

    def __init__(self, plan: RunPlan, accelerator: Accelerator, note: Callable[[str], None]) -> None:
        self.plan = plan
        self.accelerator = accelerator
        self.note = note
        checkpoint = self._checkpoint()
        self.images = ImageFolder(
            plan.folder,
            size=_image_size(plan.config),
            fit=cast(Any, plan.fit),
            on_bad=lambda path, error: note(f"left out of training: {error}"),
        )
        if len(self.images) < plan.settings.batch_size // accelerator.num_processes:
            note(f"only {len(self.images)} images: some are seen twice in one step")
        # the weights' start is the seed's, whatever ran before in this process
        torch.manual_seed(plan.settings.seed)
        self.model = build_model(plan.method, plan.config)
        if plan.init_from is not None and checkpoint is None:
            source = open_bundle(plan.init_from)
            self.model.load_state_dict(cast(nn.Module, source.model).state_dict())
        self.model.requires_grad_(True).to(accelerator.device)
        self.optimizer = make_optimizer(self.model, plan.settings)
        self.average = WeightAverage(self.model, plan.settings.ema_decay)
        self.progress = Progress()
        if checkpoint is not None:
            checkpoint.restore(model=self.model, average=self.average, optimizer=self.optimizer)
            self.progress = checkpoint.progress
            self._check_data(checkpoint)
            note(f"resuming at step {self.progress.step}, {self.progress.num_images:,} images seen")
        self.wrapped, self.prepared = accelerator.prepare(self.model, self.optimizer)

    def _checkpoint(self) -> Checkpoint | None:
        folder = self.plan.run_folder
        exists = (folder / FILE_NAME).exists()
        if self.plan.resume:
            return load_checkpoint(folder)
        if exists:
            raise UsageError(
                f"{folder}: a run lies here already",
                hint="continue it with --resume, or name another --run",
            )
        return None

    def _check_data(self, checkpoint: Checkpoint) -> None:
        known = checkpoint.settings.get("num_items")
        if known != len(self.images):
            self.note(
                f"{self.plan.folder} held {known} images when the run began and holds "
                f"{len(self.images)} now: it goes on, in another order"
            )

    @property
    def settings_json(self) -> dict[str, Any]:
        """What a checkpoint records besides tensors."""
        return {
            "method": self.plan.method.name,
            "config": to_json(self.plan.config),
            "settings": to_json(self.plan.settings),
            "budget": to_json(self.plan.budget),
            "num_items": len(self.images),
        }

    def steps(self) -> Iterator[StepRecord]:
        """Train to the end of the budget, saving as planned; yields each step's record.

        Interrupting (Ctrl-C, or closing the generator) saves a checkpoint first.
        """
        plan = self.plan
        is_main = self.accelerator.is_main_process
        if is_main:
            plan.run_folder.mkdir(parents=True, exist_ok=True)
            self._cut_log()
        if plan.tensorboard:
            self.accelerator.init_trackers("tensorboard")
        saved = drawn = time.monotonic()
        log = (plan.run_folder / "log.jsonl").open("a", encoding="utf-8") if is_main else None
        try:
            for record in train_steps(
                self.wrapped,
                average=self.average,
                optimizer=self.prepared,
                images=self.images,
                num_train_steps=cast(RepresentationModel, self.model).sampling.schedule.num_train_steps,
                settings=plan.settings,
                budget=plan.budget,
                start=self.progress,
                accelerator=self.accelerator,
            ):
                self.progress = Progress(
                    step=record.step,
                    num_images=record.num_images,
                    elapsed_seconds=record.elapsed_seconds,
                )
                if plan.tensorboard:
                    self.accelerator.log(
                        {"loss": record.loss, "lr": record.lr, "images/s": record.images_per_second},
                        step=record.step,
                    )
                now = time.monotonic()
                if log is not None:
                    log.write(json.dumps(asdict(record)) + "\n")
                    if now - saved >= 60 * plan.checkpoint_minutes:
                        log.flush()
                        self.save()
                        saved = time.monotonic()
                    if plan.sheet_minutes is not None and now - drawn >= 60 * plan.sheet_minutes:
                        self.draw_sheet()
                        drawn = time.monotonic()
                yield record
        finally:
            if log is not None:
                log.close()
                self.save()
        if plan.tensorboard:
            self.accelerator.end_training()
        if is_main:
            if plan.sheet_minutes is not None:
                self.draw_sheet()
            self.write_bundle()

    def save(self) -> None:
        """Write a checkpoint."""
        save_checkpoint(
            self.plan.run_folder,
            model=self.model,
            average=self.average,
            optimizer=self.optimizer,
            progress=self.progress,
            settings=self.settings_json,
        )

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
                command=self.plan.command,
                data=f"{len(self.images):,} images of {self.plan.folder.name}",
                num_images=self.progress.num_images,
                num_parameters=sum(p.numel() for p in model.parameters()),
            ),
            dtype=self.plan.weights_dtype,
        )

    def draw_sheet(self) -> Path:
        """Draw reconstructions and decodes of z with other x_T, and say how much z is used."""
        model = diagnostics.averaged_copy(self.model, average_weights(self.model, self.average))
        described = cast(RepresentationModel, model)
        x_0 = self._sheet_images()
        rows = diagnostics.picture_rows(described, x_0)
        pictures = [to_pil(picture) for row in rows for picture in row]
        path = self.plan.run_folder / "sheets" / f"{self.progress.step:07d}.png"
        save_image(grid(pictures, len(x_0)), path)
        losses = diagnostics.swapped_z_losses(described, x_0)
        told = ", ".join(f"t={t}: {own:.4f} -> {other:.4f}" for t, (own, other) in losses.items())
        self.note(f"{path}; loss with own -> swapped z at {told}")
        swapped = {"step": self.progress.step, "sheet": path.name, "swapped_z": losses}
        with (self.plan.run_folder / "diagnostics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(swapped) + "\n")
        return path

    def _sheet_images(self) -> Tensor:
        num = min(NUM_SHEET_IMAGES, len(self.images))
        chosen = [i * len(self.images) // num for i in range(num)] * (2 if num == 1 else 1)
        pixels = torch.stack([self.images[i] for i in chosen])
        return to_unit_range(pixels).to(self.accelerator.device)

    def _cut_log(self) -> None:
        """Drop what a killed run logged after its last checkpoint: those steps are run again."""
        path = self.plan.run_folder / "log.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= self.progress.step:
                    kept.append(line + "\n")
            except (ValueError, KeyError):
                break  # a line cut short by the kill; nothing valid follows it
        path.write_text("".join(kept), encoding="utf-8")


def build_model(method: Method, config: Any) -> nn.Module:
    """A method's model with fresh weights."""
    parts = {name: getattr(config, name) for name in method.components}
    return method.build(parts, config.sampling, config.prediction)


def config_from_json(method: Method, values: dict[str, Any]) -> Any:
    """A method's config from a checkpoint; raises CheckpointError where it is another's."""
    preset = next(iter(method.presets.values()))
    try:
        return from_json(type(preset.config), values)
    except ValueError as error:
        raise CheckpointError(f"this run is not one of {method.name} ({error})") from error


def bundle_config(method: Method, name: str) -> Any:
    """The config of a bundle that training is to start from; UsageError for another method's."""
    bundle = open_bundle(name)
    if bundle.method.name != method.name:
        raise UsageError(f"--init-from {name}: a {bundle.method.name} bundle, not one of {method.name}")
    return cast(Any, bundle.model).config


def _image_size(config: Any) -> int:
    return int(config.unet.image_size)
