"""One optimiser step: forward, backward, clipping and the optimiser's own; on one GPU recorded and replayed.

A small network's step is two thousand short kernels, and a GPU waits for Python to start each. Recorded once
as a CUDA graph they start together. A recorded step computes what the step itself does, from the same memory
every time: batches are copied into it, and the learning rate is a number on the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from accelerate import Accelerator

STEPS_BEFORE_RECORDING = 5
"""Taken as they are: they make the optimiser's state, compile, and let libraries choose their kernels."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What the model is given for one pass: ``given`` in order, ``noise`` by name, all on its device."""

    given: Sequence[Tensor]
    noise: Mapping[str, Tensor]
    dropout_seed: int

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, in one order."""
        return [*self.given, *self.noise.values()]


class Step:
    """Takes steps of ``model``; ``__call__`` gives the mean loss and the gradient's norm, on the device.

    ``clip_norm`` is the most that the gradient's norm may be. Several passes make one step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        *,
        clip_norm: float,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.accelerator = accelerator
        self.clip_norm = clip_norm
        self.bare = accelerator.unwrap_model(model)

    def set_lr(self, lr: float) -> None:
        """The learning rate from now on."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def __call__(self, passes: Sequence[Pass]) -> tuple[Tensor, Tensor]:
        """Take one step."""
        losses = []
        for i, one in enumerate(passes):
            torch.manual_seed(one.dropout_seed)
            is_last = i == len(passes) - 1  # processes average their gradients after it alone
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.model):
                losses.append(self._learn(one, len(passes)))
        return torch.stack(losses).mean(), self._finish()

    def _learn(self, one: Pass, num_passes: int) -> Tensor:
        """Add the gradients of ``one`` of ``num_passes``; its mean loss."""
        noise = {"noise": dict(one.noise)} if one.noise else {}
        loss: Tensor = self.model(*one.given, **noise).mean()
        self.accelerator.backward(loss / num_passes)
        return loss.detach()

    def _finish(self) -> Tensor:
        """Change the weights by the gradients, and forget these; their norm before clipping."""
        norm = self.accelerator.clip_grad_norm_(self.bare.parameters(), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return torch.as_tensor(norm)


class RecordedStep(Step):
    """A step of one pass on one GPU, recorded after a few."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        *,
        clip_norm: float,
    ) -> None:
        super().__init__(model, optimizer, accelerator, clip_norm=clip_norm)
        self._lr = torch.zeros((), device=accelerator.device)
        for group in optimizer.param_groups:
            group["lr"] = self._lr
        self._stream = torch.cuda.Stream(accelerator.device)
        self._num_before = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._seen: Pass | None = None
        self._result: tuple[Tensor, Tensor] | None = None

    def set_lr(self, lr: float) -> None:
        """The learning rate from now on."""
        self._lr.fill_(lr)

    def __call__(self, passes: Sequence[Pass]) -> tuple[Tensor, Tensor]:
        """Take one step."""
        (one,) = passes
        if self._graph is None and self._num_before < STEPS_BEFORE_RECORDING:
            self._num_before += 1
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                result = super().__call__(passes)
            torch.cuda.current_stream().wait_stream(self._stream)
            return result
        torch.manual_seed(one.dropout_seed)
        if self._seen is None:
            self._seen = replace(
                one,
                given=[part.clone() for part in one.given],
                noise={name: part.clone() for name, part in one.noise.items()},
            )
        else:
            torch._foreach_copy_(self._seen.tensors, one.tensors)
        if self._graph is None:
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                loss = self._learn(self._seen, 1)
                self._result = loss, self._finish()
            self._graph = graph
        self._graph.replay()
        assert self._result is not None
        return self._result


def make_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    *,
    clip_norm: float,
    num_passes: int,
) -> Step:
    """A step of ``model``: recorded where one process takes it in one pass on a GPU, but not in fp16."""
    alone = accelerator.num_processes == 1 and num_passes == 1 and accelerator.scaler is None
    kind = RecordedStep if alone and accelerator.device.type == "cuda" else Step
    return kind(model, optimizer, accelerator, clip_norm=clip_norm)
