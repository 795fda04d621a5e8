"""The ways between pairs of images: how evenly they change, and whether what lies halfway is a face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from evidence.contenders import ALL
from evidence.study import SEED, Bench, Folders, Settings, Sizes, Study, titled, turned
from rdm_cli.codes.code import Codes
from rdm_cli.evaluation.figures import Figure, Part, drawn, rows_of_points
from rdm_cli.evaluation.generation import distance_figures, features
from rdm_cli.evaluation.interpolation import (
    LEAD,
    PIXELS,
    WayPlan,
    interpolation_work,
    measure_interpolation,
    ways_of,
    z_path,
)
from rdm_cli.evaluation.material import Material, Subject
from rdm_cli.kernels.interpolation import lerp
from rdm_cli.pipeline.running import Advance
from rdm_cli.reports.plots import Plot

HALFWAY = "halfway, "  # before the name of a distance of distributions
ABOUT = (
    f"{LEAD} So the pictures halfway between each image and the next are also compared with images as "
    "samples are: by the kernel distance."
)
TABLED = ("PPL", "largest step", "smoothness", HALFWAY)


def settings(sizes: Sizes) -> dict[str, Any]:
    return {
        "pairs": sizes.num_pairs,
        "frames": sizes.num_frames,
        "epsilon": 0.01,
        "halfway": sizes.num_halfway,
        "reference": sizes.num_samples,
        "steps": sizes.steps,
    }


def materials(bench: Bench, chosen: Settings) -> dict[str, Material]:
    return {
        "held-out": bench.images(max(2 * chosen["pairs"], chosen["halfway"])),
        "reference": bench.images(chosen["reference"]),
    }


def work(bench: Bench, chosen: Settings, subject: Subject) -> float:
    ways = interpolation_work(subject, bench.images(2 * chosen["pairs"]), _plan(chosen))
    return ways + len(ways_of(subject)) * chosen["halfway"]


def measure(bench: Bench, chosen: Settings, subject: Subject, advance: Advance) -> Part:
    part = measure_interpolation(
        subject,
        bench.images(2 * chosen["pairs"]),
        _plan(chosen),
        distances=bench.distances,
        seed=SEED,
        advance=advance,
    )
    return replace(part, figures=[*part.figures, *_halfway(bench, chosen, subject, advance)])


def commands(chosen: Settings, bundles: Sequence[str], folders: Folders) -> list[str]:
    words = f"-n {chosen['pairs']} --frames {chosen['frames']} --steps {chosen['steps']}"
    evaluated = f"rdm evaluate interpolation {' '.join(bundles)} {folders.held_out} {words}"
    return [evaluated, f"make evidence PART={STUDY.name} AGAIN=1"]  # the second for what lies halfway


def tables(figures: Sequence[Figure]) -> list[Figure]:
    """A way a row; fading pixels is the same beside every bundle."""
    return [turned(f, _way(f)) for f in _once(figures) if f.name.startswith(TABLED)]


def plots(figures: Sequence[Figure]) -> list[Plot]:
    shown = [
        replace(f, bundle=f.name, condition={"way": _way(f)})
        for f in _once(figures)
        if f.name.startswith(("PPL", HALFWAY))
    ]
    return drawn(*(rows_of_points(shown, name, "way") for name in dict.fromkeys(f.name for f in shown)))


def _halfway(bench: Bench, chosen: Settings, subject: Subject, advance: Advance) -> list[Figure]:
    """The kernel distance of pictures halfway to the next image: by each way through a code, by fading."""
    pipeline, num = subject.pipeline, chosen["halfway"]
    real = features(bench.extractor, bench.images(chosen["reference"]).images(pipeline))
    x_0 = bench.images(num).images(pipeline)
    codes = pipeline.encode(x_0, steps=chosen["steps"], advance=advance)
    found: dict[str, Tensor] = {}
    for way in ways_of(subject):
        if way == PIXELS:
            found[way] = torch.cat([lerp(a, b, torch.tensor([0.5])) for a, b in _neighbours(x_0)])
            continue
        given = codes.without_x_T() if way == "z alone" else codes
        middles = [
            pipeline.interpolate(given[i], given[(i + 1) % len(given)], [0.5], path=z_path(way))
            for i in range(len(given))
        ]
        found[way] = pipeline.decode(
            Codes.concatenate(middles), steps=chosen["steps"], seed=SEED, advance=advance
        )
    figures = []
    for way, pictures in found.items():
        made = features(bench.extractor, pictures)
        kinds = distance_figures(subject.name, {"way": way}, real, made, bench.extractor, SEED)
        figures += [replace(f, name=f"{HALFWAY}{f.name}") for f in kinds if f.name.startswith("KD-")]
    return figures


def _neighbours(x_0: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(x_0[i], x_0[(i + 1) % len(x_0)]) for i in range(len(x_0))]


def _once(figures: Sequence[Figure]) -> list[Figure]:
    first = next((f.bundle for f in figures if f.condition["way"] == PIXELS), "")
    through_codes = [f for f in figures if f.condition["way"] != PIXELS]
    return through_codes + [f for f in figures if f.condition["way"] == PIXELS and f.bundle == first]


def _way(figure: Figure) -> str:
    way = str(figure.condition["way"])
    return way if way == PIXELS else f"{titled(figure).bundle}: {way}"


def _plan(chosen: Settings) -> WayPlan:
    return WayPlan(num_frames=chosen["frames"], epsilon=chosen["epsilon"], steps=chosen["steps"])


STUDY = Study(
    name="interpolation",
    title="Interpolation",
    about=ABOUT,
    contenders=ALL,
    settings=settings,
    materials=materials,
    measure=measure,
    work=work,
    commands=commands,
    tables=tables,
    plots=plots,
    row="way",
    extracts=True,
)
