"""Which images a step sees."""

from __future__ import annotations

from itertools import chain, islice

import pytest

from rdm_cli.training.order import BatchOrder


def flat(order: BatchOrder, num_steps: int) -> list[int]:
    return list(chain.from_iterable(order.indices(step) for step in range(num_steps)))


@pytest.mark.parametrize(("num_items", "batch_size"), [(12, 4), (10, 4), (7, 3), (3, 8), (1, 2)])
def test_each_epoch_is_a_permutation_of_its_own(num_items: int, batch_size: int) -> None:
    order = BatchOrder(num_items=num_items, batch_size=batch_size, seed=1)
    seen = flat(order, 6 * num_items)
    epochs = [seen[k : k + num_items] for k in range(0, len(seen) - num_items + 1, num_items)]
    assert len(epochs) >= 6
    assert all(sorted(epoch) == list(range(num_items)) for epoch in epochs)
    if num_items > 6:
        assert len({tuple(epoch) for epoch in epochs[:6]}) == 6


def test_a_step_depends_on_seed_and_number_alone() -> None:
    order, again = (BatchOrder(num_items=11, batch_size=4, seed=2) for _ in range(2))
    later = [again.indices(step) for step in (7, 3)]
    assert [order.indices(3), order.indices(7)] == later[::-1]
    assert flat(BatchOrder(num_items=11, batch_size=4, seed=3), 5) != flat(order, 5)


def test_iterating_begins_at_the_first_step() -> None:
    whole = list(islice(BatchOrder(num_items=11, batch_size=4, seed=2), 9))
    rest = list(islice(BatchOrder(num_items=11, batch_size=4, seed=2, first_step=5), 4))
    assert rest == whole[5:]


@pytest.mark.parametrize(("processes", "accumulations"), [(2, 1), (1, 3), (2, 3), (6, 2)])
def test_processes_and_passes_share_each_batch(processes: int, accumulations: int) -> None:
    def order(**place: int) -> BatchOrder:
        return BatchOrder(num_items=17, batch_size=12, seed=0, num_accumulations=accumulations, **place)

    shards = [
        list(islice(order(process=p, num_processes=processes), 3 * accumulations)) for p in range(processes)
    ]
    for step in range(3):
        passes = slice(step * accumulations, (step + 1) * accumulations)
        micro_batches = [micro for shard in shards for micro in shard[passes]]
        assert {len(micro) for micro in micro_batches} == {12 // (processes * accumulations)}
        assert list(chain.from_iterable(micro_batches)) == order().indices(step)
