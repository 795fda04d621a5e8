"""Muon: orthogonal steps for matrices, AdamW's for the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rdm_cli.training.loop import Budget
from rdm_cli.training.muon import Muon, is_matrix, orthogonalised


def test_singular_values_come_near_1_and_vectors_stay() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((2, 16, 40), (2, 40, 16), (1, 16, 16)):
        u = torch.randn(shape, generator=generator)
        left, _, right = torch.linalg.svd(u, full_matrices=False)
        found = orthogonalised(u).float()
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.3 and values.max() < 1.4
        # in the old vectors' basis it is diagonal, but for bfloat16
        inside = left.mT @ found @ right.mT
        assert (inside - torch.diag_embed(inside.diagonal(dim1=1, dim2=2))).abs().max() < 0.1


def test_what_is_no_matrix_steps_as_adamw_does() -> None:
    torch.manual_seed(0)
    norms = [nn.GroupNorm(4, 32), nn.GroupNorm(4, 32)]
    norms[1].load_state_dict(norms[0].state_dict())
    ours = Muon(norms[0].parameters(), lr=0.1, weight_decay=0.01)
    theirs = torch.optim.AdamW(norms[1].parameters(), lr=0.1, weight_decay=0.01)
    x = torch.randn(4, 32, 5)
    for _ in range(3):
        for norm, optimizer in zip(norms, (ours, theirs), strict=True):
            optimizer.zero_grad()
            norm(x).pow(3).sum().backward()
            optimizer.step()
    torch.testing.assert_close(norms[0].weight, norms[1].weight)


def test_the_step_of_a_convolution_is_as_large_as_adams() -> None:
    """Root mean square 0.2 times the learning rate, whatever the gradient's size."""
    for scale in (1e-3, 1e3):
        torch.manual_seed(0)
        conv = nn.Conv2d(16, 32, 3)
        assert is_matrix(conv.weight) and conv.bias is not None and not is_matrix(conv.bias)
        before = conv.weight.detach().clone()
        conv.weight.grad = scale * torch.randn_like(conv.weight)
        Muon([conv.weight], lr=0.01, weight_decay=0.0).step()
        moved = (conv.weight - before).square().mean().sqrt()
        assert 0.0013 < float(moved.detach()) < 0.0024


@pytest.mark.long
def test_a_run_goes_on_from_a_checkpoint_bit_for_bit(make_run: Callable[..., Any], tmp_path: Path) -> None:
    budget = Budget(num_images=24)
    whole = make_run(optimizer="muon")
    losses = [record.loss for record in whole.steps(budget)]
    first = make_run(optimizer="muon")
    first.take(3, budget)
    first.save(tmp_path)
    second = make_run(optimizer="muon")
    second.restore(tmp_path)
    assert [record.loss for record in second.steps(budget)] == losses[3:]
    for ours, theirs in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
