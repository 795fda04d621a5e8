"""The training loop that every method shares: a generator of records; the caller logs and stops.

Step k is a function of (settings, seed, k) and of the weights alone. Its images, flips, timesteps,
noise and dropout come from generators keyed by k, so nothing but weights, their average and the
optimiser's moments has to be kept for a run to go on bit for bit.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from rdm_cli.data.images import to_unit_range
from rdm_cli.errors import ImageError, RdmError
from rdm_cli.kernels.randomness import key_to_seed, keyed_generator
from rdm_cli.training.checkpoint import Progress
from rdm_cli.training.ema import WeightAverage
from rdm_cli.training.interrupts import ignore_interrupts
from rdm_cli.training.order import BatchOrder

if TYPE_CHECKING:
    from accelerate import Accelerator


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

    def lr_at(self, step: int, fraction: float) -> float:
        """Learning rate at ``step``: a linear warm-up, flat, then linear to zero at the end."""
        rise = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        fall = min(1.0, (1 - fraction) / self.decay_fraction) if self.decay_fraction else 1.0
        return self.lr * rise * fall


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One optimiser step, as it is logged. ``loss`` is the mean over this step's images."""

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


def stratified_timesteps(batch: int, num_train_steps: int, generator: torch.Generator) -> Tensor:
    """Timesteps (B,), each uniform on 0..T-1, jointly spread evenly: less noise in the loss."""
    offset = torch.rand(1, generator=generator, dtype=torch.float64)
    places = (torch.arange(batch, dtype=torch.float64) + offset) / batch
    return (places * num_train_steps).long().clamp(max=num_train_steps - 1)


def training_batch(
    stored: Tensor,
    *,
    num_train_steps: int,
    flip: bool,
    seed: int,
    key: tuple[int | str, ...],
    x_T_shape: tuple[int, ...] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 (B, 3, H, W) to (x_0, t, eps), with the flips, timesteps and noise of ``key``.

    ``stored`` may also be latents, float16 (B, V, P, c, h, w): V is 2 where mirrored ones are there too, P is
    2, mean and standard deviation, where they are to be drawn. eps has the shape ``x_T_shape``; None: that of
    an image.
    """
    generator = keyed_generator(seed, "batch", *key)
    num = len(stored)
    t = stratified_timesteps(num, num_train_steps, generator)
    eps = torch.randn((num, *(x_T_shape or stored.shape[1:])), generator=generator)
    flipped = torch.rand(num, generator=generator) < 0.5 if flip else torch.zeros(num, dtype=torch.bool)
    if stored.is_floating_point():
        mean, *std = stored[torch.arange(num), flipped.long()].float().unbind(1)
        if std:
            mean = mean + std[0] * torch.randn(mean.shape, generator=generator)
        return mean, t, eps
    x_0 = to_unit_range(stored)
    if flip:
        x_0 = torch.where(flipped[:, None, None, None], x_0.flip(3), x_0)
    return x_0, t, eps


def make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Adam, with decoupled weight decay where there is any, over the trainable parameters."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)


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
) -> Iterator[StepRecord]:
    """Train until the budget is spent, yielding after each step.

    ``model(x_0, t, eps)`` returns the loss of each image, (B,). Model and optimiser are prepared by
    ``accelerator`` already; ``images`` yields uint8 (3, H, W), or latents, or pairs of these and a class,
    int64 (), which the model then takes as well. eps has the shape ``x_T_shape``; None: that of an image.
    Raises DivergedError where a loss or a gradient is not finite.
    """
    order = BatchOrder(
        num_items=len(cast(Sized, images)),
        batch_size=settings.batch_size,
        seed=settings.seed,
        first_step=start.step,
        process=accelerator.process_index,
        num_processes=accelerator.num_processes,
        num_accumulations=settings.num_accumulations,
    )
    batches = iter(
        DataLoader(
            images,
            batch_sampler=order,
            num_workers=settings.num_workers,
            persistent_workers=settings.num_workers > 0,
            worker_init_fn=ignore_interrupts,
        )
    )
    bare = accelerator.unwrap_model(model)
    progress = start
    pace: list[tuple[float, int]] = []
    begun = time.monotonic() - start.elapsed_seconds
    while budget.fraction(progress) < 1:
        step = progress.step
        lr = settings.lr_at(step, budget.fraction(progress))
        for group in optimizer.param_groups:
            group["lr"] = lr
        model.train()
        losses = []
        for i in range(settings.num_accumulations):
            key = (step, accelerator.process_index, i)
            stored, *y = _fetch(batches)
            x_0, t, eps = training_batch(
                stored,
                num_train_steps=num_train_steps,
                flip=settings.flip,
                seed=settings.seed,
                key=key,
                x_T_shape=x_T_shape,
            )
            torch.manual_seed(key_to_seed(settings.seed, "dropout", *key))
            with _sync_on_last(accelerator, model, last=i == settings.num_accumulations - 1):
                loss = model(*(part.to(accelerator.device) for part in (x_0, t, eps, *y))).mean()
                accelerator.backward(loss / settings.num_accumulations)
            losses.append(loss.detach())
        grad_norm = accelerator.clip_grad_norm_(bare.parameters(), settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(bare)
        mean_loss = float(accelerator.reduce(torch.stack(losses).mean(), "mean"))
        _refuse_diverged(step + 1, mean_loss, float(grad_norm), accelerator)
        progress = Progress(
            step=step + 1,
            num_images=progress.num_images + settings.batch_size,
            elapsed_seconds=_shared_seconds(accelerator, time.monotonic() - begun),
        )
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


def _fetch(batches: Iterator[Tensor | list[Tensor]]) -> list[Tensor]:
    """The next batch, and its classes where there are any.

    What a worker process could not read is told without the worker's traceback.
    """
    try:
        batch = next(batches)
        return [batch] if isinstance(batch, Tensor) else batch
    except ImageError as error:
        last_line = error.message.strip().splitlines()[-1]
        raise ImageError(last_line.removeprefix(f"{ImageError.__module__}.ImageError: ")) from error


def _refuse_diverged(step: int, loss: float, grad_norm: float, accelerator: Accelerator) -> None:
    if not math.isfinite(loss):
        raise DivergedError(f"step {step}: the loss is {loss}")
    # fp16's scaler meets infinite gradients now and then; it leaves such a step out by itself
    if accelerator.scaler is None and not math.isfinite(grad_norm):
        raise DivergedError(f"step {step}: the gradient's norm is {grad_norm}")


def _shared_seconds(accelerator: Accelerator, seconds: float) -> float:
    """The main process's clock: learning rate and end of training must be the same everywhere."""
    if accelerator.num_processes == 1:
        return seconds
    from accelerate.utils import broadcast

    clock = torch.tensor(seconds, dtype=torch.float64, device=accelerator.device)
    return float(broadcast(clock))


def _sync_on_last(accelerator: Accelerator, model: nn.Module, *, last: bool) -> Any:
    return contextlib.nullcontext() if last else accelerator.no_sync(model)


def _pace(pace: list[tuple[float, int]]) -> float:
    """Images a second over the last steps; the first step has nothing to compare with."""
    (t_0, n_0), (t_1, n_1) = pace[0], pace[-1]
    return (n_1 - n_0) / max(t_1 - t_0, 1e-9)


def average_weights(model: nn.Module, average: WeightAverage) -> Mapping[str, Tensor]:
    """The model's state with its trainable parameters averaged: what a bundle stores."""
    return {**model.state_dict(), **average.averages}
