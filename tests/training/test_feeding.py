"""How images reach the device, and what is drawn there: the parts that a CPU can run as well."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from rdm_cli.training import batches, feeding, loop
from rdm_cli.training.batches import BatchOrder, Share
from rdm_cli.training.loop import Budget

CPU = torch.device("cpu")


class Numbered(Dataset[Any]):
    """Item i is an image full of i, with class 10 i where ``classes``."""

    def __init__(self, num: int, *, classes: bool) -> None:
        self.num = num
        self.classes = classes

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> Any:
        image = torch.full((3, 2, 2), index, dtype=torch.uint8)
        return (image, torch.tensor(10 * index)) if self.classes else image


@pytest.mark.parametrize("classes", [False, True])
def test_batches_come_in_the_order_s_turn(classes: bool) -> None:
    order = BatchOrder(num_items=10, batch_size=4, seed=3)
    wanted = list(islice(order, 5))
    given = list(islice(feeding.batches_on(CPU, Numbered(10, classes=classes), order, num_workers=0), 5))
    assert [parts[0][:, 0, 0, 0].tolist() for parts in given] == wanted
    if classes:
        assert [parts[1].tolist() for parts in given] == [[10 * i for i in one] for one in wanted]


def test_what_is_held_is_every_image_in_order() -> None:
    num = 2 * feeding.READ_AT_ONCE + 5
    images, classes = feeding._read_all(Numbered(num, classes=True), CPU, num_workers=0)
    assert images.shape == (num, 3, 2, 2) and images.dtype == torch.uint8
    assert images[:, 2, 1, 1].tolist() == list(range(num))
    assert classes.tolist() == [10 * i for i in range(num)]


def drawn(start: int, num: int, step: int = 4) -> tuple[Tensor, list[Tensor]]:
    share = Share(step=step, places=range(start, start + num), batch_size=64)
    return batches._drawn_on_a_device(share, 7, [(3, 8, 8), (5,)], CPU)


def test_processes_that_share_a_batch_draw_what_one_draws() -> None:
    chance, (eps, other) = drawn(0, 64)
    parts = [drawn(0, 24), drawn(24, 40)]
    assert torch.equal(torch.cat([part[0] for part in parts]), chance)
    assert torch.equal(torch.cat([part[1][0] for part in parts]), eps)
    assert torch.equal(torch.cat([part[1][1] for part in parts]), other)
    assert not torch.equal(drawn(0, 64, step=5)[1][0], eps)
    assert abs(float(eps.mean())) < 5 / eps.numel() ** 0.5 and abs(float(eps.std()) - 1) < 0.03
    assert 0 <= float(chance.min()) and float(chance.max()) < 1


def test_steps_that_are_given_together_are_the_same_steps(
    make_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = Budget(num_images=28)  # 7 steps of 4
    alone = make_run(dropout=0.3)
    losses = [record.loss for record in alone.steps(budget)]
    monkeypatch.setattr(loop, "_next_stride", lambda seconds, device: 3)
    together = make_run(dropout=0.3)
    records = list(together.steps(budget))
    assert [record.step for record in records] == [1, 4, 7]
    assert [record.loss for record in records] == pytest.approx(
        [losses[0], sum(losses[1:4]) / 3, sum(losses[4:7]) / 3]
    )
    assert records[-1].num_images == 28
    for one, other in zip(alone.model.parameters(), together.model.parameters(), strict=True):
        assert torch.equal(one, other)
    for name, average in alone.average.averages.items():
        assert torch.equal(average, together.average.averages[name])
