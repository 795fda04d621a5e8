"""How evenly pictures change on the way between two images: through codes, through noise, through pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rdm_cli.codes.code import Codes
from rdm_cli.errors import CodeError
from rdm_cli.evaluation.distances import PictureDistance, first_choice
from rdm_cli.evaluation.figures import Figure, Part, Scalar, Sheet, drawn, mean_figure, rows_of_points
from rdm_cli.evaluation.material import Material, Subject
from rdm_cli.kernels.interpolation import lerp
from rdm_cli.kernels.randomness import keyed_generator
from rdm_cli.metrics.interpolation import perceptual_path_lengths, smoothness
from rdm_cli.pipeline.pipeline import ZPath
from rdm_cli.pipeline.running import Advance
from rdm_cli.reports.plots import Plot

LEAD = (
    "Ways between pairs of images. z and x_T: the whole code, z on the straight way; z by the prior, x_T: z "
    "through codes that the bundle's prior would draw; z alone: one random x_T for all of a way; DDIM "
    "noise: the x_T of a plain DPM, which has nothing else; pixels: one image fades into the other. PPL is "
    "the change in a small step over its square; smoothness is 1 for even steps. Perceptual distances are "
    "squared ones, so a detour may be below 1. These figures say how pictures change, not whether each is "
    "one: fading is smooth and shows two faces at once, so look at the pictures."
)
PAIRS_SHOWN = 3
PIXELS, NOISE = "pixels", "DDIM noise"
BY_PRIOR = "z by the prior, x_T"


@dataclass(frozen=True, kw_only=True)
class WayPlan:
    """``num_frames`` from image to image, both included; PPL by steps of ``epsilon``; ``steps`` to decode."""

    num_frames: int
    epsilon: float
    steps: int


def ways_of(subject: Subject) -> list[str]:
    """What can be interpolated between two codes of this bundle, and the pixels."""
    pipeline = subject.pipeline
    by_prior = [BY_PRIOR] if pipeline.usual_path == "prior" else []
    return [*(("z and x_T", *by_prior, "z alone") if pipeline.bundle.has_z else (NOISE,)), PIXELS]


def z_path(way: str) -> ZPath:
    """How z changes along a way through codes."""
    return "prior" if way == BY_PRIOR else "lerp"


def lacking(subjects: Sequence[Subject]) -> list[str]:
    """A line where there is nothing that interpolates noise alone."""
    if any(NOISE in ways_of(subject) for subject in subjects):
        return []
    return [f"no {NOISE}: that needs a plain DPM, whose bundle can be named beside these"]


def interpolation_work(subject: Subject, material: Material, plan: WayPlan) -> float:
    """How many images' worth of work :func:`measure_interpolation` is."""
    num_pairs = len(material) // 2
    return float(2 * num_pairs + (len(ways_of(subject)) - 1) * num_pairs * (plan.num_frames + 2))


def measure_interpolation(
    subject: Subject,
    material: Material,
    plan: WayPlan,
    *,
    distances: Sequence[PictureDistance],
    seed: int,
    advance: Advance,
) -> Part:
    """PPL, length, detour, largest step and smoothness of each way, over pairs of images: 0 1, 2 3, ..."""
    pipeline = subject.pipeline
    distance = first_choice(distances, subject)
    x_0, given = material.images(pipeline), material.given(pipeline)
    even = range(0, len(x_0) - 1, 2)
    pairs = [(i, i + 1) for i in even if all(values[i] == values[i + 1] for values in given.values())]
    if not pairs:
        return Part(notes=[f"{subject.name}: no pair of images of one {' and '.join(given)}"])
    codes = material.encoded(pipeline, x_0, steps=plan.steps, advance=advance)
    positions = [_positions(plan, seed, pair) for pair in range(len(pairs))]
    figures: list[Figure] = []
    rows: list[tuple[str, Tensor]] = []
    notes: list[str] = []
    for way in ways_of(subject):
        try:
            frames = (
                _faded(x_0, pairs, positions)
                if way == PIXELS
                else _decoded(subject, codes, pairs, positions, plan, way, seed, advance)
            )
        except CodeError as error:
            notes.append(f"{subject.name}: {way}: {error}")
            continue
        figures += _figures(subject.name, way, frames, distance, plan, seed)
        rows += [(f"pair {k + 1}, {way}", frames[k, :-2]) for k in range(min(PAIRS_SHOWN, len(pairs)))]
    rows.sort(key=lambda row: row[0].partition(",")[0])  # the ways of a pair below each other
    caption = f"{subject.name}: the ways of the first pairs, from one image to the other"
    return Part(figures=figures, sheets=[Sheet(caption=caption, rows=rows)], notes=notes)


def interpolation_plots(figures: Sequence[Figure]) -> list[Plot]:
    """PPL and smoothness, way by way."""
    names = [n for n in dict.fromkeys(f.name for f in figures) if n.startswith("PPL") or n == "smoothness"]
    return drawn(*(rows_of_points(figures, name, "way") for name in names))


def _positions(plan: WayPlan, seed: int, pair: int) -> list[float]:
    """Where a way is looked at: at even steps and, last, at two places ``epsilon`` apart for PPL."""
    at = float(torch.rand(1, generator=keyed_generator(seed, "path length", pair))) * (1 - plan.epsilon)
    return [i / (plan.num_frames - 1) for i in range(plan.num_frames)] + [at, at + plan.epsilon]


def _faded(x_0: Tensor, pairs: Sequence[tuple[int, int]], positions: Sequence[Sequence[float]]) -> Tensor:
    """Pixels mixed: (P, F + 2, C, H, W)."""
    ways = zip(pairs, positions, strict=True)
    return torch.stack([lerp(x_0[i], x_0[j], torch.tensor(places)) for (i, j), places in ways])


def _decoded(
    subject: Subject,
    codes: Codes,
    pairs: Sequence[tuple[int, int]],
    positions: Sequence[Sequence[float]],
    plan: WayPlan,
    way: str,
    seed: int,
    advance: Advance,
) -> Tensor:
    """Codes mixed, and decoded: (P, F + 2, C, H, W)."""
    pipeline = subject.pipeline
    given = codes.without_x_T() if way == "z alone" else codes
    between = [
        pipeline.interpolate(given[i], given[j], places, path=z_path(way))
        for (i, j), places in zip(pairs, positions, strict=True)
    ]
    # codes without an x_T share one all along their way: else each frame would be another picture
    keys = [f"way {pair}" for pair, some in enumerate(between) for _ in range(len(some))]
    pictures = pipeline.decode(
        Codes.concatenate(between), steps=plan.steps, seed=seed, keys=keys, advance=advance
    )
    return pictures.unflatten(0, (len(pairs), plan.num_frames + 2))


def _figures(
    bundle: str, way: str, frames: Tensor, distance: PictureDistance, plan: WayPlan, seed: int
) -> list[Figure]:
    smooth = [smoothness(pair[:-2], distance) for pair in frames]
    steps: dict[str, Scalar] = {} if way == PIXELS else {"T": plan.steps}
    by_distance = {"distance": distance.name, **distance.computed_with, **steps}
    about: dict[str, Any] = {"bundle": bundle, "condition": {"way": way}, "seed": seed}
    found = [
        mean_figure(
            perceptual_path_lengths(frames[:, -2], frames[:, -1], distance, epsilon=plan.epsilon),
            name=f"PPL ({distance.name})",
            better="lower",
            computed_with=by_distance | {"epsilon": plan.epsilon},
            **about,
        )
    ]
    for name, better, values in (
        ("length", "lower", [s.length for s in smooth]),
        ("detour", "lower", [s.detour for s in smooth]),
        ("largest step", "lower", [s.largest_step for s in smooth]),
        ("smoothness", "higher", [s.smoothness for s in smooth]),
    ):
        found.append(
            mean_figure(
                torch.tensor(values, dtype=torch.float64),
                name=name,
                better=better,
                computed_with=by_distance | {"frames": plan.num_frames},
                **about,
            )
        )
    return found
