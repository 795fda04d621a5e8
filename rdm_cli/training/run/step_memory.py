"""The memory of a training step, counted on tensors that have shapes and no values: nothing is computed.

Every tensor that a step makes is counted from when it is made until it is dropped, and the largest sum is
the step's. What libraries take beside tensors (workspaces, caches, what a GPU's driver keeps) is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rdm_cli.methods.method import RepresentationModel
from rdm_cli.training.muon import is_matrix
from rdm_cli.training.run.plan import RunPlan


class LiveBytes(TorchDispatchMode):
    """How many bytes the tensors made within the block hold ``now``, and the most they held, ``peak``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and count what it made: not the memory of others that it gives a view of."""
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage(), size=0)
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage(), size=tensor.untyped_storage().nbytes())
        return made

    def _count(self, storage: torch.UntypedStorage, *, size: int) -> None:
        key = id(storage)
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def step_memory(plan: RunPlan, *, micro_batch_size: int) -> dict[str, int]:
    """What ``plan`` takes of a process's memory, in bytes, by what it is for.

    ``activations`` are all that a forward and backward pass of ``micro_batch_size`` images makes, at its
    peak, on a CPU in the plan's arithmetic. The rest is kept all the time: ``weights`` and buffers,
    ``gradients``, ``optimiser`` (two moments of each trained weight; of a matrix Muon keeps
    one), ``average``.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = plan.method.model(plan.config)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        prefix = "" if plan.method.averaged is None else f"{plan.method.averaged}."
        gradients = _size(list(trained.values()))
        return {
            "weights": _size([*model.parameters(), *model.buffers()]),
            "gradients": gradients,
            "optimiser": 2 * gradients - _size(_matrices(plan, trained.values())),
            "average": _size([p for name, p in trained.items() if name.startswith(prefix)]),
            "activations": pass_peak(model, plan, micro_batch_size),
        }


def pass_peak(model: nn.Module, plan: RunPlan, size: int) -> int:
    """The most bytes that a pass of ``size`` images, and back, holds besides weights and their gradients."""
    described = cast(RepresentationModel, model)
    image = plan.config if hasattr(plan.config, "image_size") else plan.config.unet
    shape = (image.image_channels, image.image_size, image.image_size)
    stored = torch.zeros(size, *(described.x_T_shape if plan.latents is not None else shape))
    y = [torch.zeros(size, dtype=torch.int64)] if plan.class_names else []
    noise = {name: torch.zeros(size, *one) for name, one in described.noise_shapes.items()}
    t, eps = torch.zeros(size, dtype=torch.int64), torch.zeros(size, *described.x_T_shape)
    half = plan.mixed_precision != "no"
    model.train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_forget_gradient)
    with LiveBytes() as live:
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            loss = model(stored, t, eps, *y, **({"noise": noise} if noise else {})).mean()
        loss.backward()
    return live.peak


def _matrices(plan: RunPlan, trained: Iterable[Tensor]) -> list[Tensor]:
    """Those that Muon has, where it is the optimiser."""
    return [p for p in trained if plan.settings.optimizer == "muon" and is_matrix(p)]


def _forget_gradient(parameter: Tensor) -> None:
    parameter.grad = None


def _size(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
