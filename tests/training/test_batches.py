"""Which images a step sees, and what is drawn for them."""

from __future__ import annotations

from itertools import chain, islice
from typing import Any

import pytest
import torch
from torch import Tensor

from rdm_cli.kernels.randomness import keyed_generator
from rdm_cli.training.batches import BatchOrder, Share, stratified_timesteps, training_batch

PIXELS = torch.randint(0, 256, (6, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def share(step: int = 3, start: int = 0, num: int = 6, batch_size: int = 6) -> Share:
    return Share(step=step, places=range(start, start + num), batch_size=batch_size)


def batch(pixels: Tensor = PIXELS, *, seed: int = 0, flip: bool = True, **words: Any) -> Any:
    given = {"num_train_steps": 1000, "flip": flip, "seed": seed, "share": share()} | words
    return training_batch(pixels, **given)


def test_timesteps_are_uniform_each_and_spread_together() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([stratified_timesteps(4, 20, generator) for _ in range(8000)])  # (8000, 4)
    assert drawn.min() == 0 and drawn.max() == 19
    # one in each quarter of 0..19, always
    assert torch.equal(drawn // 5, torch.arange(4).expand(8000, 4))
    counts = torch.bincount(drawn.flatten(), minlength=20)
    # an image's place in the batch is random, so uniform together is uniform for each: 1600 +- 36
    assert (counts - 1600).abs().max() < 5 * 36


def test_timesteps_come_as_often_as_their_shares_say() -> None:
    generator, shares = torch.Generator().manual_seed(0), torch.tensor([0.5, 0.0, 0.375, 0.125]).double()
    drawn = torch.stack([stratified_timesteps(8, 4, generator, shares) for _ in range(500)])
    counts = torch.stack([torch.bincount(row, minlength=4) for row in drawn])
    assert torch.equal(counts, torch.tensor([4, 0, 3, 1]).expand(500, 4))  # spread evenly: so in every batch


def test_a_batch_is_noised_by_shares_where_there_are_some() -> None:
    shares = torch.zeros(1000, dtype=torch.float64)
    shares[700] = 1
    assert batch(timestep_shares=shares)[1].tolist() == [700] * 6
    assert len(set(batch()[1].tolist())) == 6


def test_timesteps_of_a_batch_larger_than_the_schedule_cover_it() -> None:
    t = stratified_timesteps(100, 10, torch.Generator().manual_seed(1))
    counts = torch.bincount(t, minlength=10)
    assert counts.sum() == 100 and (counts - 10).abs().max() <= 1


def test_what_is_drawn_is_the_seed_s_and_the_step_s() -> None:
    torch.manual_seed(1)
    first = batch()
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first[:3], batch()[:3], strict=True))
    for other in (batch(seed=1), batch(share=share(step=4))):
        assert not torch.equal(first[2], other[2]) and not torch.equal(first[1], other[1])
    assert len({tuple(eps.flatten().tolist()) for eps in first[2]}) == 6
    # flipping changes neither noise nor timesteps
    plain = batch(flip=False)
    assert torch.equal(plain[1], first[1]) and torch.equal(plain[2], first[2])
    torch.testing.assert_close(plain[0], PIXELS / 127.5 - 1)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_what_is_drawn_does_not_depend_on_who_has_the_image(size: int) -> None:
    """A batch in parts, as several processes or passes have it, is the batch in one, bit for bit."""
    shapes = {"z": (5,), "warp": (2, 2)}
    whole = batch(noise_shapes=shapes)
    parts = [
        batch(PIXELS[i : i + size], share=share(start=i, num=size), noise_shapes=shapes)
        for i in range(0, 6, size)
    ]
    for k in range(3):
        assert torch.equal(torch.cat([part[k] for part in parts]), whole[k])
    for name, shape in shapes.items():
        assert whole[3][name].shape == (6, *shape)
        assert torch.equal(torch.cat([part[3][name] for part in parts]), whole[3][name])


def test_noise_of_all_kinds_is_independent_and_normal() -> None:
    num = 4096
    pixels = torch.zeros(num, 3, 2, 2, dtype=torch.uint8)
    everyone = share(num=num, batch_size=num)
    _, t, eps, noise = batch(pixels, share=everyone, noise_shapes={"z": (12,)})
    both = torch.cat([eps.flatten(1), noise["z"]], dim=1)  # (4096, 24)
    # means and covariances of 4096 draws: five standard deviations of 1 / sqrt(4096)
    assert both.mean(dim=0).abs().max() < 5 / 64
    assert (both.T.cov() - torch.eye(24)).abs().max() < 5 * 2**0.5 / 64
    assert torch.equal(t.sort().values, t)


def test_half_of_the_images_are_mirrored() -> None:
    pixels = torch.arange(4, dtype=torch.uint8).expand(1, 3, 4, 4).repeat(1000, 1, 1, 1)
    x_0 = batch(pixels, share=share(num=1000, batch_size=1000))[0]
    plain = pixels[0] / 127.5 - 1
    mirrored = [torch.equal(image, plain.flip(2)) for image in x_0]
    assert all(torch.equal(image, plain) for image, turned in zip(x_0, mirrored, strict=True) if not turned)
    assert abs(sum(mirrored) - 500) < 5 * 16  # 5 standard deviations of a fair coin


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


@pytest.mark.parametrize(("num_items", "batch_size"), [(1000, 64), (3, 8)])
def test_an_epoch_s_order_is_that_of_its_key_and_drawn_once(
    num_items: int, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit the order of earlier runs, which are resumed in it; each epoch's is drawn once."""
    num_epochs = 4
    keyed = torch.cat(
        [
            torch.randperm(num_items, generator=keyed_generator(5, "order", epoch))
            for epoch in range(num_epochs)
        ]
    ).tolist()
    drawn: list[int] = []
    real = torch.randperm

    def counted(num: int, **how: Any) -> Tensor:
        drawn.append(num)
        return real(num, **how)

    monkeypatch.setattr(torch, "randperm", counted)
    num_steps = num_epochs * num_items // batch_size
    seen = flat(BatchOrder(num_items=num_items, batch_size=batch_size, seed=5), num_steps)
    assert seen == keyed[: len(seen)]
    if num_items > batch_size:
        assert len(drawn) == num_epochs
