"""The training loop: its numbers, and that a run which was stopped goes on as if undisturbed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from rdm_cli.errors import ImageError
from rdm_cli.training import loop
from rdm_cli.training.checkpoint import Progress
from rdm_cli.training.loop import (
    Budget,
    DivergedError,
    Settings,
    StepRecord,
    average_weights,
)

Make = Callable[..., Any]


def numbers(records: list[StepRecord]) -> list[tuple[int, float, float, float]]:
    return [(r.step, r.loss, r.grad_norm, r.lr) for r in records]


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "batch_size": 4, "lr": 2.0, "weight_decay": 0.0, "warmup_steps": 4, "decay_fraction": 0.25,
        "ema_decay": 0.9, "flip": False,
    }  # fmt: skip
    return Settings(**values | changes)


def test_learning_rate_rises_stays_and_falls() -> None:
    s = settings()
    assert [s.lr_at(step, 0.0) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert [s.lr_at(100, fraction) for fraction in (0.5, 0.75, 0.875, 1.0)] == [2.0, 2.0, 1.0, 0.0]
    flat = settings(warmup_steps=0, decay_fraction=0.0)
    assert [flat.lr_at(0, fraction) for fraction in (0.0, 0.5, 1.0)] == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("num_accumulations", [1, 2])
def test_a_stopped_run_goes_on_bit_for_bit(
    make_run: Make, tmp_path: Path, dropout: float, num_accumulations: int
) -> None:
    def fresh() -> Any:
        return make_run(dropout=dropout, num_accumulations=num_accumulations)

    budget = Budget(num_images=4 * 8)
    undisturbed = fresh()
    whole = list(undisturbed.steps(budget))
    assert [r.num_images for r in whole] == list(range(4, 36, 4))
    stopped = fresh()
    before = stopped.take(3, budget)
    stopped.save(tmp_path)
    torch.manual_seed(99)
    resumed = fresh()
    resumed.restore(tmp_path)
    after = list(resumed.steps(budget))
    assert numbers(before + after) == numbers(whole)
    for kept, other in ((undisturbed.model, resumed.model),):
        for name, value in kept.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    weights = average_weights(undisturbed.model, undisturbed.average)
    for name, value in average_weights(resumed.model, resumed.average).items():
        assert torch.equal(value, weights[name]), name


def test_dropout_and_seed_change_the_losses(make_run: Make) -> None:
    budget = Budget(num_images=8)
    runs = [make_run(), make_run(dropout=0.5), make_run(seed=6)]
    assert len({tuple(numbers(list(run.steps(budget)))) for run in runs}) == 3


def test_worker_processes_change_nothing(make_run: Make) -> None:
    budget = Budget(num_images=8)
    runs = [make_run(num_workers=num) for num in (0, 1)]
    alone, helped = (numbers(list(run.steps(budget))) for run in runs)
    assert alone == helped


class NoiseFree(nn.Module):
    """A loss of the images alone: what stays comparable when passes draw their own noise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3 * 16 * 16, 1)

    def forward(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return (self.layer(x_0.flatten(1))[:, 0] - 1).square()


def test_passes_are_one_batch(make_run: Make) -> None:
    """What is drawn for an image is not the pass's that sees it: N passes are one N times as large."""
    budget = Budget(num_images=4 * 8)
    runs = [make_run(num_accumulations=n) for n in (1, 2, 4)]
    whole, *shared = [list(run.steps(budget)) for run in runs]
    for found in shared:
        assert [r.loss for r in found] == pytest.approx([r.loss for r in whole], rel=1e-5)
        assert [r.grad_norm for r in found] == pytest.approx([r.grad_norm for r in whole], rel=1e-4)
        assert [r.loss for r in found] != [r.loss for r in whole]  # sums in another order


def test_minutes_end_a_run_and_bend_its_learning_rate(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    run = make_run(NoiseFree(), warmup_steps=0, decay_fraction=1.0, lr=1.0)
    records = list(run.steps(Budget(num_images=1, minutes=0.1)))
    assert [r.elapsed_seconds for r in records] == [1, 2, 3, 4, 5, 6]
    assert [r.lr for r in records] == pytest.approx([1 - k / 6 for k in range(6)])
    assert records[2].fraction == pytest.approx(0.5)
    assert records[2].seconds_left == pytest.approx(3.0)
    assert records[2].images_per_second == pytest.approx(4.0)


def test_a_spent_budget_takes_no_step(make_run: Make) -> None:
    run = make_run(NoiseFree())
    run.progress = Progress(step=5, num_images=20)
    assert list(run.steps(Budget(num_images=12))) == []


class Failing(nn.Module):
    """Turns ``kind`` (loss or gradient) into something else than a number at the third pass."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.kind = kind
        self.passes = 0

    def forward(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        self.passes += 1
        loss = self.weight * x_0.square().mean(dim=(1, 2, 3))
        if self.passes < 3:
            return loss
        if self.kind == "loss":
            return loss * float("inf")
        return loss + (self.weight - self.weight.detach()).sqrt()  # 0, with a slope of infinity


@pytest.mark.parametrize(("kind", "said"), [("loss", "the loss is inf"), ("gradient", "norm is inf")])
def test_a_run_that_diverges_stops_at_once(make_run: Make, kind: str, said: str) -> None:
    steps = make_run(Failing(kind)).steps(Budget(num_images=40))
    assert [next(steps).step for _ in range(2)] == [1, 2]
    with pytest.raises(DivergedError, match=f"step 3: .*{said}"):
        next(steps)


class Unreadable(Dataset[Tensor]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        raise ImageError("4 of the 4 images cannot be read")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_cannot_be_read_is_one_line_from_a_worker_as_well(make_run: Make, num_workers: int) -> None:
    run = make_run(NoiseFree(), Unreadable(), num_workers=num_workers)
    with pytest.raises(ImageError) as caught:
        next(run.steps(Budget(num_images=40)))
    assert caught.value.message == "4 of the 4 images cannot be read"
