"""How far a bundle's posterior mean lies from the true one at each t, and what one step denoises to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rdm_cli.errors import UsageError, setting
from rdm_cli.evaluation.figures import Figure, Part, Sheet, curves, drawn, mean_figure
from rdm_cli.evaluation.material import SHOWN, Material, Subject
from rdm_cli.kernels.parameterization import add_noise, to_x_0
from rdm_cli.kernels.randomness import keyed_noise
from rdm_cli.methods.conditions import NOTHING, Conditions, of_images
from rdm_cli.metrics.posterior_gap import posterior_gap
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.pipeline.running import Advance, ignore_progress
from rdm_cli.reports.plots import Plot
from rdm_cli.runtime import autocast, default_batch_size

LEAD = (
    "PDAE's diagnosis (arXiv 2212.12990): the squared distance of the predicted posterior mean of x_{t-1} "
    "from the true one, without z and with it; a code should close the gap that a plain diffusion model "
    "leaves. Noise is normal, and the same for every bundle of one image size. Means over the images."
)
GAP = "squared gap"


@dataclass(frozen=True, kw_only=True)
class GapPlan:
    """Every ``every``-th timestep is measured, and the last; pictures show those at ``shown_at``."""

    every: int
    shown_at: Sequence[int]

    def timesteps(self, subject: Subject) -> list[int]:
        """Those that are measured of ``subject``; UsageError where pictures would show what it has not."""
        last = subject.pipeline.bundle.model.sampling.schedule.num_train_steps - 1
        if beyond := [t for t in self.shown_at if not 0 <= t <= last]:
            raise UsageError(f"{setting('at')} {beyond[0]}: the timesteps of {subject.name} are 0 to {last}")
        return sorted({*range(0, last, self.every), last})


@dataclass(frozen=True, kw_only=True)
class Noised:
    """A batch at one ``t``: its noise ``eps``, ``x_t``, and eps as each predictor sees it there."""

    t: int
    eps: Tensor
    x_t: Tensor
    predicted: dict[str, Tensor]


@torch.no_grad()
def noised(
    pipeline: Pipeline,
    x_0: Tensor,
    timesteps: Sequence[int],
    seed: int,
    given: Conditions = NOTHING,
) -> Iterator[Noised]:
    """Each batch of ``x_0`` at each of ``timesteps``; noise is image i's own at (``seed``, t).

    ``given`` are the conditions of each image that are given by name, where the bundle's model takes some.
    """
    model = pipeline.network
    device = pipeline.bundle.device
    alpha_bar = model.sampling.schedule.alpha_bar()
    size = pipeline.batch_size or default_batch_size(device)
    for start in range(0, len(x_0), size):
        with autocast(device, pipeline.precision):
            part = model.enter(x_0[start : start + size].to(device)).float()
        keys = range(start, start + len(part))
        conditions = {name: rows[start : start + size].to(device) for name, rows in given.items()}
        for t in timesteps:
            eps = keyed_noise(seed, keys, part.shape[1:], f"gap {t}").to(device)
            x_t = add_noise(part, eps, alpha_bar[t].expand(len(part)))
            t_batch = torch.full((len(part),), t, dtype=torch.int64, device=device)
            with autocast(device, pipeline.precision):
                if "z" not in conditions or model.time_dependent:
                    conditions = model.encode(part, conditions, timesteps=[t])
                predicted = model.one_step(x_t, t_batch, conditions)
            answers = {name: value.float() for name, value in predicted.items()}
            yield Noised(t=t, eps=eps, x_t=x_t, predicted=answers)


def gaps_of(
    pipeline: Pipeline,
    x_0: Tensor,
    timesteps: Sequence[int],
    *,
    given: Conditions = NOTHING,
    seed: int = 0,
    advance: Advance = ignore_progress,
) -> dict[tuple[int, str], Tensor]:
    """The gap of each of ``x_0`` (N, 3, H, W) in [-1, 1], float64 (N,), by t and predictor.

    ``given``: see :func:`noised`. Raises UsageError for a model that is told more of the image than z.
    """
    for name in of_images(pipeline.bundle.model.conditions):
        raise UsageError(f"{pipeline.bundle.name}: no gap is z's own where the image gives a {name}, too")
    schedule = pipeline.bundle.model.sampling.schedule
    found: dict[tuple[int, str], list[Tensor]] = {}
    for batch in noised(pipeline, x_0, timesteps, seed, given):
        t_batch = torch.full((len(batch.eps),), batch.t)
        for name, value in batch.predicted.items():
            gaps = posterior_gap(schedule, t_batch, batch.eps, value)
            found.setdefault((batch.t, name), []).append(gaps)
        advance(len(batch.eps))
    return {key: torch.cat(parts) for key, parts in found.items()}


def gap_work(subject: Subject, material: Material, plan: GapPlan) -> float:
    """How many images' worth of work :func:`measure_gap` is."""
    return float(len(material) * len(plan.timesteps(subject)))


def measure_gap(subject: Subject, material: Material, plan: GapPlan, *, seed: int, advance: Advance) -> Part:
    """The gap of the images at each timestep of ``plan``, with and without z, and one step of denoising."""
    pipeline = subject.pipeline
    x_0, given = material.images(pipeline), material.given(pipeline)
    gaps = gaps_of(pipeline, x_0, plan.timesteps(subject), given=given, seed=seed, advance=advance)
    figures = [
        mean_figure(
            found,
            seed=seed,
            bounds=(0.0, math.inf),
            bundle=subject.name,
            name=GAP,
            condition={"t": t, "predictor": predictor},
            better="lower",
            computed_with={"scale": "images in [-1, 1]", "noise": "normal"},
        )
        for (t, predictor), found in gaps.items()
    ]
    shown = {name: values[:SHOWN] for name, values in given.items()}
    rows = one_step_rows(pipeline, x_0[:SHOWN], plan.shown_at, given=shown, seed=seed)
    return Part(figures=figures, sheets=[Sheet(caption=f"{subject.name}: one step of denoising", rows=rows)])


def gap_plots(figures: Sequence[Figure]) -> list[Plot]:
    """The gap over t."""
    return drawn(curves(figures, GAP, "t", log_y=True))


def one_step_rows(
    pipeline: Pipeline,
    x_0: Tensor,
    timesteps: Sequence[int],
    *,
    given: Conditions = NOTHING,
    seed: int = 0,
) -> list[tuple[str, Tensor]]:
    """Named rows of a sheet: ``x_0`` and, at each t, x_t and the x_0 that each predictor sees in it."""
    model = pipeline.bundle.model
    alpha_bar = model.sampling.schedule.alpha_bar()
    named: dict[str, list[Tensor]] = {"x_0": [x_0]}
    for batch in noised(pipeline, x_0, timesteps, seed, given):
        named.setdefault(f"x_{batch.t}", []).append(model.leave(batch.x_t).cpu())
        for name, eps in batch.predicted.items():
            seen = to_x_0(eps, batch.x_t, alpha_bar[batch.t].expand(len(eps)))
            named.setdefault(f"t={batch.t} {name}", []).append(model.leave(seen).cpu())
    return [(name, torch.cat(parts)) for name, parts in named.items()]
