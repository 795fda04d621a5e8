"""How far a bundle's posterior mean lies from the true one at each t, and what one step denoises to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from rdm_cli.core.pipeline import Pipeline
from rdm_cli.core.running import Advance, ignore_progress
from rdm_cli.core.runtime import autocast, default_batch_size
from rdm_cli.errors import UsageError
from rdm_cli.kernels.parameterization import add_noise, to_x_0
from rdm_cli.kernels.randomness import keyed_noise
from rdm_cli.metrics.posterior_gap import posterior_gap

NORMAL_95 = 1.96


@dataclass(frozen=True, kw_only=True)
class GapRecord:
    """The gap at one ``t``: mean over ``num`` images, and half the width of its 95 % interval.

    ``predictor`` says with what it was predicted: "without z" or "with z".
    """

    bundle: str
    predictor: str
    t: int
    gap: float
    half_width: float
    num: int


def noised(
    pipeline: Pipeline, x_0: Tensor, t: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, dict[str, Tensor]]]:
    """Batches of (eps, x_t, eps predicted by each predictor); noise is image i's own at (``seed``, t)."""
    model, device = pipeline.bundle.model, pipeline.bundle.device
    alpha_bar = model.sampling.schedule.alpha_bar()[t]
    size = pipeline.batch_size or default_batch_size(device)
    for start in range(0, len(x_0), size):
        with torch.no_grad(), autocast(device, pipeline.precision):
            part = model.enter(x_0[start : start + size].to(device)).float()
        keys = range(start, start + len(part))
        eps = keyed_noise(seed, keys, part.shape[1:], f"gap {t}").to(device)
        x_t = add_noise(part, eps, alpha_bar.expand(len(part)))
        t_batch = torch.full((len(part),), t, dtype=torch.int64, device=device)
        with torch.no_grad(), autocast(device, pipeline.precision):
            known = {"timesteps": [t]} if model.time_dependent else {}
            predicted = model.one_step(x_t, t_batch, cast(Any, model).encode(part, **known))
        yield eps, x_t, {name: value.float() for name, value in predicted.items()}


def measure_gap(
    pipeline: Pipeline,
    x_0: Tensor,
    timesteps: Sequence[int],
    *,
    seed: int = 0,
    advance: Advance = ignore_progress,
) -> list[GapRecord]:
    """The gap of ``x_0`` (N, 3, H, W) in [-1, 1] at each of ``timesteps``, with and without z."""
    if pipeline.bundle.model.style_shape:
        raise UsageError(f"{pipeline.bundle.name}: a model of style and shape has no gap of one image's own")
    schedule = pipeline.bundle.model.sampling.schedule
    records = []
    for t in timesteps:
        found: dict[str, list[Tensor]] = {}
        for eps, _, predicted in noised(pipeline, x_0, t, seed):
            t_batch = torch.full((len(eps),), t)
            for name, value in predicted.items():
                found.setdefault(name, []).append(posterior_gap(schedule, t_batch, eps, value))
            advance(len(eps))
        for name, parts in found.items():
            gaps = torch.cat(parts)
            spread = float(gaps.std()) if len(gaps) > 1 else math.inf
            records.append(
                GapRecord(
                    bundle=pipeline.bundle.name,
                    predictor=name,
                    t=t,
                    gap=float(gaps.mean()),
                    half_width=NORMAL_95 * spread / math.sqrt(len(gaps)),
                    num=len(gaps),
                )
            )
    return records


def one_step_rows(
    pipeline: Pipeline, x_0: Tensor, timesteps: Sequence[int], *, seed: int = 0
) -> list[tuple[str, Tensor]]:
    """Named rows of a sheet: ``x_0`` and, at each t, x_t and the x_0 that each predictor sees in it."""
    alpha_bar = pipeline.bundle.model.sampling.schedule.alpha_bar()
    rows = [("x_0", x_0)]
    for t in timesteps:
        named: dict[str, list[Tensor]] = {}
        for _, x_t, predicted in noised(pipeline, x_0, t, seed):
            named.setdefault(f"x_{t}", []).append(pipeline.bundle.model.leave(x_t).cpu())
            for name, eps in predicted.items():
                seen = pipeline.bundle.model.leave(to_x_0(eps, x_t, alpha_bar[t].expand(len(x_t))))
                named.setdefault(f"t={t} {name}", []).append(seen.cpu())
        rows += [(name, torch.cat(parts)) for name, parts in named.items()]
    return rows
