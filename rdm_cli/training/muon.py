r"""Muon: momentum, made orthogonal (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

For a matrix of weights W (out, in), a convolution's taken as (out, in * height * width), with gradient G,

    M = mu M + (1 - mu) G,    U = (1 - mu) G + mu M,    W = (1 - lr wd) W - lr 0.2 sqrt(max(out, in)) orth(U)

orth(U) has U's singular vectors, and singular values near 1 (five Newton-Schulz steps in bfloat16). The
factor makes the update as large as AdamW's usually is, so that both have one learning rate (Liu et al. 2025,
arXiv 2502.16982, section 2.2). Everything that is no matrix, or too narrow a one, is AdamW's.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

MOMENTUM = 0.95
NARROWEST = 16
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 5


def orthogonalised(u: Tensor) -> Tensor:
    """``u`` (N, a, b) with all singular values near 1, in bfloat16."""
    first, third, fifth = _COEFFICIENTS
    tall = u.shape[1] > u.shape[2]
    x = u.mT.bfloat16() if tall else u.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_NUM_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth), x, beta=first)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for matrices and AdamW for the rest, at one learning rate. A step is deterministic.

    The groups' ``lr`` may be a tensor on the parameters' device, so that a CUDA graph can hold a step.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        settings = {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps}
        super().__init__(parameters, {**settings, "fused": True})  # so that a step's number is on its device

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step; ``closure`` is not supported."""
        assert closure is None
        for group in self.param_groups:
            matrices: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            rest = []
            for p in group["params"]:
                if p.grad is None:
                    continue
                if is_matrix(p):
                    matrices[len(p), p[0].numel()].append(p)
                else:
                    rest.append(p)
            for shape, parameters in matrices.items():
                self._muon(parameters, shape, group)
            if rest:
                self._adam(rest, group)

    def _muon(self, parameters: list[Tensor], shape: tuple[int, int], group: dict[str, Any]) -> None:
        """One step of all matrices of a shape, whose products are taken together."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum"] for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)
        updates = orthogonalised(torch.stack([u.reshape(shape) for u in ahead])).to(parameters[0].dtype)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        updates *= group["lr"] * 0.2 * math.sqrt(max(shape))
        torch._foreach_sub_(
            parameters, [u.reshape(p.shape) for u, p in zip(updates, parameters, strict=True)]
        )

    def _adam(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for p in parameters:
            if not self.state[p]:
                self.state[p]["step"] = torch.zeros((), device=p.device)
                self.state[p]["exp_avg"] = torch.zeros_like(p)
                self.state[p]["exp_avg_sq"] = torch.zeros_like(p)
        states = [self.state[p] for p in parameters]
        adamw(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon has it: both sides are wide enough for singular vectors to mean something."""
    return parameter.ndim > 1 and min(len(parameter), parameter[0].numel()) >= NARROWEST
