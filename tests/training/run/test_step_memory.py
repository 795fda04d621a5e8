"""A step's memory, counted without computing anything, is that of a step that is computed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from rdm_cli.methods.method import RepresentationModel
from rdm_cli.training.muon import is_matrix
from rdm_cli.training.run.plan import RunPlan, TrainOptions, make_plan
from rdm_cli.training.run.step_memory import LiveBytes, pass_peak, step_memory

MIB = 2**20


@pytest.fixture
def plan(tmp_path: Path) -> RunPlan:
    """small32 of Diff-AE."""
    options = TrainOptions(
        method="diffae", folder=tmp_path / "faces", bundle=tmp_path / "out", run_folder=tmp_path / "run",
        preset="small32",
    )  # fmt: skip
    return make_plan(options, num_processes=1, on_cpu=True, command="rdm train")


def test_tensors_are_counted_from_their_making_to_their_end() -> None:
    with LiveBytes() as live:
        a = torch.zeros(MIB // 4)
        assert (live.now, live.peak) == (MIB, MIB)
        b = torch.cat([a, a])
        assert live.now == 3 * MIB
        view = b[1:].view(-1)
        assert live.now == 3 * MIB  # a view is no memory
        del b
        assert live.now == 3 * MIB  # which it keeps
        del view
        assert (live.now, live.peak) == (MIB, 3 * MIB)
        a.add_(1)
        assert live.now == MIB
    del a
    assert live.now == 0


def test_views_of_what_was_there_before_are_no_memory() -> None:
    weight = torch.zeros(512, 512)
    with LiveBytes() as live:
        turned = weight.t()
        weight.add_(1)
        assert turned.shape == (512, 512) and live.peak == 0


def test_what_backward_needs_is_kept_until_then() -> None:
    x = torch.zeros(MIB // 4, requires_grad=True)
    with LiveBytes() as live:
        y = x.exp().exp()  # each is kept for its own gradient
        assert live.now == 2 * MIB
        y.sum().backward()
        assert live.peak >= 3 * MIB
        del y
        assert live.now == MIB  # x's gradient alone


def test_what_is_kept_is_counted_by_the_weight(plan: RunPlan) -> None:
    parameters = list(plan.method.model(plan.config).parameters())
    weights = sum(p.numel() for p in parameters)
    matrices = sum(p.numel() for p in parameters if is_matrix(p))  # of which Muon keeps one moment
    memory = step_memory(plan, micro_batch_size=1)
    assert (memory["gradients"], memory["optimiser"], memory["average"]) == (
        4 * weights, 8 * weights - 4 * matrices, 4 * weights,
    )  # fmt: skip
    assert 0 <= memory["weights"] - 4 * weights < MIB  # buffers


def test_a_pass_without_values_takes_what_one_with_values_takes(plan: RunPlan) -> None:
    size = 12  # so that activations, and not the gradients that stay, are the peak
    model = plan.method.model(plan.config).train()
    x_T_shape = cast(RepresentationModel, model).x_T_shape
    with LiveBytes() as live:
        x_0 = torch.rand(size, 3, 32, 32) * 2 - 1
        t, eps = torch.arange(size) * 80, torch.randn(size, *x_T_shape)
        model(x_0, t, eps).mean().backward()
    # all but the inputs, and the few kilobytes that only a CPU's kernels ask for
    assert step_memory(plan, micro_batch_size=size)["activations"] == pytest.approx(live.peak, rel=0.01)


@pytest.mark.long
def test_activations_grow_with_the_pass_and_shrink_with_precision(plan: RunPlan) -> None:
    memory = {n: step_memory(plan, micro_batch_size=n) for n in (4, 8, 16)}
    found = {n: memory[n]["activations"] for n in memory}
    assert found[16] - found[8] == pytest.approx(2 * (found[8] - found[4]), rel=0.05)
    half = step_memory(dataclasses.replace(plan, mixed_precision="bf16"), micro_batch_size=16)
    assert 0.4 * found[16] < half["activations"] < 0.9 * found[16]
    assert half["weights"] == memory[16]["weights"]


def test_gradients_are_not_counted_twice(plan: RunPlan) -> None:
    """One weight after the other gets its gradient and loses it: the peak is a pass's, not the weights'."""

    class Long(nn.Module):
        x_T_shape = (3, 32, 32)
        noise_shapes: dict[str, Any] = {}

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*(nn.Linear(512, 512, bias=False) for _ in range(8)))

        def forward(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
            return self.layers(x_0.flatten(1)[:, :512]).square().mean(1)  # type: ignore[no-any-return]

    assert MIB <= pass_peak(Long(), plan, 1) < 3 * MIB  # of the 8 MiB of all gradients
