"""A tiny training run over pictures in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from rdm_cli.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from rdm_cli.training.ema import WeightAverage
from rdm_cli.training.loop import Budget, Settings, StepRecord, make_optimizer, train_steps

SETTINGS = {
    "batch_size": 4, "lr": 1e-3, "weight_decay": 0.01, "warmup_steps": 3, "decay_fraction": 0.5,
    "ema_decay": 0.99, "flip": True, "seed": 5,
}  # fmt: skip


class Pictures(Dataset[Tensor]):
    """``num`` random pictures, uint8 (3, 16, 16)."""

    def __init__(self, num: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randint(0, 256, (num, 3, 16, 16), generator=generator, dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self.pixels[index]


class Run:
    """What ``train_steps`` needs, from the seed's start or from a checkpoint."""

    def __init__(self, model: nn.Module, images: Dataset[Tensor] | None, **settings: Any) -> None:
        from accelerate import Accelerator

        self.settings = Settings(**{**SETTINGS, **settings})
        self.images = Pictures(10) if images is None else images
        self.model = model
        self.average = WeightAverage(model, self.settings.ema_decay)
        self.optimizer = make_optimizer(model, self.settings)
        self.progress = Progress()
        self.accelerator = Accelerator(cpu=True)

    def steps(self, budget: Budget) -> Iterator[StepRecord]:
        wrapped, prepared = self.accelerator.prepare(self.model, self.optimizer)
        for record in train_steps(
            wrapped,
            average=self.average,
            optimizer=prepared,
            images=self.images,
            num_train_steps=1000,
            settings=self.settings,
            budget=budget,
            start=self.progress,
            accelerator=self.accelerator,
        ):
            self.progress = Progress(
                step=record.step, num_images=record.num_images, elapsed_seconds=record.elapsed_seconds
            )
            yield record

    def take(self, num: int, budget: Budget) -> list[StepRecord]:
        return list(islice(self.steps(budget), num))

    def save(self, folder: Path) -> Path:
        return save_checkpoint(
            folder,
            model=self.model,
            average=self.average,
            optimizer=self.optimizer,
            progress=self.progress,
            settings={"seed": self.settings.seed},
        )

    def restore(self, folder: Path) -> None:
        checkpoint = load_checkpoint(folder)
        checkpoint.restore(model=self.model, average=self.average, optimizer=self.optimizer)
        self.progress = checkpoint.progress


@pytest.fixture
def make_run(tiny_bundle: Path, fresh_accelerate: None) -> Callable[..., Run]:
    """``make_run(dropout=0.0)`` builds the tiny Diff-AE's run; ``make_run(model)`` any module's."""

    from rdm_cli.bundles.bundle import open_bundle

    def build(
        model: nn.Module | None = None,
        images: Dataset[Tensor] | None = None,
        *,
        dropout: float = 0.0,
        **settings: Any,
    ) -> Run:
        if model is None:
            model = open_bundle(str(tiny_bundle)).model.requires_grad_(True)  # type: ignore[attr-defined]
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = dropout
        return Run(model, images, **settings)

    return build
