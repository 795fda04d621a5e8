"""The training loop that every method shares: a generator of records; the caller logs and stops.

Step k is a function of (settings, seed, k) and of the weights alone. Its images, flips, timesteps,
noise and dropout come from generators keyed by k, so nothing but weights, their average and the
optimiser's moments has to be kept for a run to go on bit for bit. Several processes share a step's batch, and
take the step that one of them would take, but for rounding and dropout.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from rdm_cli.errors import ImageError, RdmError
from rdm_cli.kernels.randomness import key_to_seed
from rdm_cli.training.batches import BatchOrder, Shape, training_batch
from rdm_cli.training.checkpoint import Progress
from rdm_cli.training.ema import WeightAverage
from rdm_cli.training.feeding import batches_on
from rdm_cli.training.muon import Muon
from rdm_cli.training.processes import agree, dead_workers_reported, mean_and_clock
from rdm_cli.training.step import Pass, make_step

if TYPE_CHECKING:
    from accelerate import Accelerator


SECONDS_AHEAD = 0.5
MOST_STEPS_AHEAD = 100


class DivergedError(RdmError):
    """Loss or gradient stopped being a number: the weights in memory are worth nothing any more."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When training ends: after ``num_images`` seen, or after ``minutes`` of training if given."""

    num_images: int
    minutes: float | None = None

    def fraction(self, progress: Progress) -> float:
        """How much of the budget is spent, 0 to 1."""
        if self.minutes is not None:
            return min(1.0, progress.elapsed_seconds / (60 * self.minutes))
        return min(1.0, progress.num_images / self.num_images)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run is made of besides network, data and budget; see ``Recipe`` for the fields' sense."""

    batch_size: int
    lr: float
    weight_decay: float
    warmup_steps: int
    decay_fraction: float
    ema_decay: float
    flip: bool
    seed: int = 0
    clip_norm: float = 1.0
    num_accumulations: int = 1
    num_workers: int = 0
    optimizer: Literal["adam", "muon"] = "adam"
    timesteps: Literal["uniform", "log-snr"] = "uniform"

    def lr_at(self, step: int, fraction: float) -> float:
        """Learning rate at ``step``: a linear warm-up, flat, then linear to zero at the end."""
        rise = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        fall = min(1.0, (1 - fraction) / self.decay_fraction) if self.decay_fraction else 1.0
        return self.lr * rise * fall


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One optimiser step, as it is logged, or on a GPU the last of several.

    ``loss`` is the mean over the images of all of them.
    """

    step: int
    num_images: int
    loss: float
    grad_norm: float
    lr: float
    images_per_second: float
    elapsed_seconds: float
    fraction: float = field(default=0.0)

    @property
    def seconds_left(self) -> float:
        """Time left at the pace so far."""
        return self.elapsed_seconds * (1 - self.fraction) / max(self.fraction, 1e-9)


def make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """The settings' optimiser of the trainable parameters, with decoupled weight decay where there is any."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if settings.optimizer == "muon":
        return Muon(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(
        parameters,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        fused=True,
        capturable=parameters[0].is_cuda,  # a CUDA graph may hold a step
    )


def train_steps(
    model: nn.Module,
    *,
    average: WeightAverage,
    optimizer: torch.optim.Optimizer,
    images: Dataset[Any],
    num_train_steps: int,
    x_T_shape: tuple[int, ...] | None = None,
    settings: Settings,
    budget: Budget,
    start: Progress,
    accelerator: Accelerator,
    noise_shapes: Mapping[str, Shape] | None = None,
    timestep_shares: Tensor | None = None,
    asked: Callable[[], bool] = lambda: False,
) -> Iterator[StepRecord]:
    """Train until the budget is spent or any process is ``asked`` to end, yielding after each step.

    A GPU is given the steps of half a second at a time, and it is yielded after these.

    ``model(x_0, t, eps)`` returns the loss of each image, (B,). Model and optimiser are prepared by
    ``accelerator`` already; ``images`` yields uint8 (3, H, W), or latents, or pairs of these and a class,
    int64 (), which the model then takes as well. eps has the shape ``x_T_shape``; None: that of an image.
    A model that draws more than eps is given the ``noise`` of its ``noise_shapes``. ``timestep_shares`` (T,)
    say how often each timestep is drawn; None: all alike.

    Raises DivergedError where a loss or a gradient is not finite. Where a process cannot read its images,
    none takes the step, and all raise, as :func:`~rdm_cli.training.processes.agree` does.
    """
    device = accelerator.device
    order = BatchOrder(
        num_items=len(cast(Sized, images)),
        batch_size=settings.batch_size,
        seed=settings.seed,
        first_step=start.step,
        process=accelerator.process_index,
        num_processes=accelerator.num_processes,
        num_accumulations=settings.num_accumulations,
    )
    batches = batches_on(device, images, order, num_workers=settings.num_workers)
    bare = accelerator.unwrap_model(model)
    take = make_step(
        model,
        optimizer,
        accelerator,
        clip_norm=settings.clip_norm,
        num_passes=settings.num_accumulations,
    )
    progress = start
    pace: list[tuple[float, int]] = []
    begun = time.monotonic() - start.elapsed_seconds
    stride = 1
    while budget.fraction(progress) < 1:
        model.train()
        first, total = progress, torch.zeros((), device=device)
        while progress.step < first.step + stride and budget.fraction(progress) < 1:
            step = progress.step
            stored, error = _fetch(batches, settings.num_accumulations)
            if agree(accelerator, asked=asked(), error=error):
                return
            passes = []
            for i, (images_of_pass, *y) in enumerate(stored):
                x_0, t, eps, noise = training_batch(
                    images_of_pass,
                    share=order.share(step, i),
                    num_train_steps=num_train_steps,
                    timestep_shares=timestep_shares,
                    flip=settings.flip,
                    seed=settings.seed,
                    x_T_shape=x_T_shape,
                    noise_shapes=noise_shapes,
                )
                dropout = key_to_seed(settings.seed, "dropout", step, accelerator.process_index, i)
                passes.append(Pass(given=[x_0, t, eps, *y], noise=noise, dropout_seed=dropout))
            lr = settings.lr_at(step, budget.fraction(progress))
            take.set_lr(lr)
            loss, grad_norm = take(passes)
            total = total + loss  # not in place: a loss in float64 stays one
            average.update(bare)
            progress = replace(progress, step=step + 1, num_images=progress.num_images + settings.batch_size)
        num_steps = progress.step - first.step
        mean_loss, seconds = mean_and_clock(accelerator, float(total) / num_steps, time.monotonic() - begun)
        _refuse_diverged(progress.step, mean_loss, float(grad_norm), accelerator)
        progress = replace(progress, elapsed_seconds=seconds)
        stride = _next_stride((seconds - first.elapsed_seconds) / num_steps, device)
        pace = [*pace[-19:], (progress.elapsed_seconds, progress.num_images)]
        yield StepRecord(
            step=progress.step,
            num_images=progress.num_images,
            loss=mean_loss,
            grad_norm=float(grad_norm),
            lr=lr,
            images_per_second=_pace(pace),
            elapsed_seconds=progress.elapsed_seconds,
            fraction=budget.fraction(progress),
        )


def _next_stride(seconds_per_step: float, device: torch.device) -> int:
    """How many steps a GPU is given before the CPU waits for it, to read the loss and save what is due."""
    if device.type == "cpu":
        return 1
    return max(1, min(MOST_STEPS_AHEAD, round(SECONDS_AHEAD / max(seconds_per_step, 1e-6))))


def _fetch(batches: Iterator[list[Tensor]], num: int) -> tuple[list[list[Tensor]], RdmError | None]:
    """The next ``num`` passes' images, and their classes where there are any; or why there are none.

    What a worker process could not read is reported without the worker's traceback.
    """
    try:
        with dead_workers_reported():
            return [next(batches) for _ in range(num)], None
    except ImageError as error:
        last_line = error.message.strip().splitlines()[-1]
        bare = ImageError(last_line.removeprefix(f"{ImageError.__module__}.ImageError: "))
        bare.__cause__ = error
        return [], bare
    except RdmError as error:
        return [], error


def _refuse_diverged(step: int, loss: float, grad_norm: float, accelerator: Accelerator) -> None:
    if not math.isfinite(loss):
        raise DivergedError(f"step {step}: the loss is {loss}")
    # fp16's scaler meets infinite gradients now and then; it leaves such a step out by itself
    if accelerator.scaler is None and not math.isfinite(grad_norm):
        raise DivergedError(f"step {step}: the gradient's norm is {grad_norm}")


def _pace(pace: list[tuple[float, int]]) -> float:
    """Images a second over the last steps; the first step has nothing to compare with."""
    (t_0, n_0), (t_1, n_1) = pace[0], pace[-1]
    return (n_1 - n_0) / max(t_1 - t_0, 1e-9)


def average_weights(model: nn.Module, average: WeightAverage) -> Mapping[str, Tensor]:
    """The model's state with its trainable parameters averaged: what a bundle stores."""
    return {**model.state_dict(), **average.averages}
