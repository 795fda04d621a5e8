"""Batches of z alone, several at the same time: what they depend on, and what they leave as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rdm_cli.bundles.places import assets_folder
from rdm_cli.pipeline.batching import batch_size_for_z, batches_at_once, in_padded_batches
from rdm_cli.pipeline.pipeline import Pipeline, open_pipeline

CPU = torch.device("cpu")
ROWS = torch.arange(14.0).reshape(7, 2)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Two threads of torch's, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return open_pipeline("avatars64-diffae", device="cpu")


@pytest.mark.parametrize("columns", [ROWS, list(ROWS)])
def test_batches_at_the_same_time_give_what_they_give_in_turn(columns: Tensor | list[Tensor]) -> None:
    ran: list[tuple[int, str, int]] = []
    both = threading.Barrier(2)  # passed only by two at once
    told: list[tuple[float, str]] = []

    def run(real: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        both.wait(timeout=30)
        ran.append((real, threading.current_thread().name, torch.get_num_threads()))
        assert not torch.is_grad_enabled()
        return rows + 1, rows.sum(dim=1)

    def done(num: float) -> None:
        told.append((num, threading.current_thread().name))

    plus, sums = in_padded_batches(run, columns, size=2, device=CPU, at_once=2, done=done)
    assert torch.equal(plus, ROWS + 1) and torch.equal(sums, ROWS.sum(dim=1))
    assert sorted(real for real, _, _ in ran) == [1, 2, 2, 2]
    assert len({name for _, name, _ in ran}) == 2 and {num for _, _, num in ran} == {1}
    assert told == [(num, threading.current_thread().name) for num in (2, 2, 2, 1)]


def test_threads_that_begin_later_have_as_many_as_before() -> None:
    found: list[int] = []
    in_padded_batches(lambda _, rows: (rows,), ROWS, size=2, device=CPU, at_once=2)
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [2] == [torch.get_num_threads()]


def test_what_one_batch_raises_is_raised() -> None:
    def run(real: int, rows: Tensor) -> tuple[Tensor, ...]:
        if real == 1:
            raise RuntimeError("[enforce fail] can't allocate memory")
        return (rows,)

    with pytest.raises(RuntimeError, match="allocate"):
        in_padded_batches(run, ROWS, size=2, device=CPU, at_once=2)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("side", "size", "usual", "at_once"),
    [(64, 16, 16, 2), (64, 128, 16, 2), (64, 256, 16, 1), (64, 8, 16, 1), (28, 64, 64, 2), (256, 8, 8, 2)],
)
def test_pixels_of_batches_at_the_same_time_are_limited(
    side: int, size: int, usual: int, at_once: int
) -> None:
    assert batch_size_for_z(CPU, (3, side, side)) == usual
    assert batches_at_once(CPU, (3, side, side), size) == at_once
    gpu = torch.device("cuda")
    assert (batch_size_for_z(gpu, (3, side, side)), batches_at_once(gpu, (3, side, side), 64)) == (64, 1)


def test_z_alone_is_that_of_an_image_among_others(pipeline: Pipeline) -> None:
    """The same bytes for one image and for many where the batch size is named, and nearly where it is not."""
    faces = pipeline.load_images(assets_folder() / "faces")
    x_0 = faces.repeat(6, 1, 1, 1)[:40]
    named = replace(pipeline, batch_size=16)
    told: list[float] = []
    many = named.encode(x_0, with_x_T=False, advance=told.append)
    assert told == [16, 16, 8]
    assert torch.equal(many.z, named.encode(list(x_0), with_x_T=False).z)
    for i in (0, 17, 39):
        assert torch.equal(named.encode(x_0[i : i + 1], with_x_T=False).z[0], many.z[i])
    assert torch.equal(pipeline.encode(x_0, with_x_T=False).z, many.z)
    alone = pipeline.encode(x_0[:1], with_x_T=False).z
    with_x_T = pipeline.encode(x_0[:1], steps=2).z
    for z in (alone, with_x_T):
        assert (z - many.z[:1]).norm() <= 1e-5 * many.z[:1].norm()
