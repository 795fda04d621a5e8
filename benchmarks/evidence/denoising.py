"""How far one step of denoising goes: the gap of the posterior's mean, without z and with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from evidence.contenders import DIFFAE, PDAE, PLAIN, TITLES
from evidence.study import HELD_OUT, SEED, Bench, Settings, Sizes, Study, titled, without
from rdm_cli.evaluation.figures import Figure, Part, Scalar, Sheet, curves, drawn, mean_figure
from rdm_cli.evaluation.gap import gaps_of, one_step_rows
from rdm_cli.evaluation.material import Material, Subject
from rdm_cli.pipeline.running import Advance
from rdm_cli.reports.plots import Plot

NAME = "squared gap"
SHOWN_AT = (500, 700, 900)
SHOWN = 8
ABOUT = (
    "At each timestep, the squared distance of the predicted from the true posterior mean of x_(t-1), on "
    "the same noise for all; the less of it is left, the more of x_0 is seen in x_t. The plain DPM is PDAE "
    "without z. LRDM denoises latents and not pixels, so its gap compares with nothing here."
)


def settings(sizes: Sizes) -> dict[str, Any]:
    return {"num": sizes.num_denoised, "every": sizes.every}


def materials(bench: Bench, chosen: Settings) -> dict[str, Material]:
    return {"held-out": bench.images(chosen["num"])}


def work(bench: Bench, chosen: Settings, subject: Subject) -> float:
    return float(chosen["num"] * len(_timesteps(chosen, subject)))


def measure(bench: Bench, chosen: Settings, subject: Subject, advance: Advance) -> Part:
    pipeline = subject.pipeline
    x_0 = bench.images(chosen["num"]).images(pipeline)
    gaps = gaps_of(pipeline, x_0, _timesteps(chosen, subject), seed=SEED, advance=advance)
    figures = [
        mean_figure(
            values,
            seed=SEED,
            bundle=subject.name,
            name=NAME,
            condition=_condition(t, predictor),
            better="lower",
            computed_with={"scale": "images in [-1, 1]", "noise": "normal"},
        )
        for (t, predictor), values in gaps.items()
    ]
    rows = [
        (name, row)
        for name, row in one_step_rows(pipeline, x_0[:SHOWN], SHOWN_AT, seed=SEED)
        if name == "x_0" or not name.startswith("x_")  # noise takes more room than all pictures together
    ]
    caption = f"{subject.name}: x_0 as it is seen in one x_t"
    return Part(figures=figures, sheets=[Sheet(caption=caption, rows=rows)])


def commands(chosen: Settings, bundles: Sequence[str]) -> list[str]:
    words = f"-n {chosen['num']} --every {chosen['every']}"
    return [f"rdm evaluate gap {' '.join(bundles)} {HELD_OUT} {words}"]


def tables(figures: Sequence[Figure]) -> list[Figure]:
    return [_named(figure) for figure in figures]


def plots(figures: Sequence[Figure]) -> list[Plot]:
    return drawn(curves([_named(figure) for figure in figures], NAME, "t", log_y=True))


def _timesteps(chosen: Settings, subject: Subject) -> list[int]:
    """As ``rdm evaluate gap`` has them."""
    last = subject.pipeline.bundle.model.sampling.schedule.num_train_steps - 1
    return sorted({*range(0, last, chosen["every"]), last})


def _condition(t: int, predictor: str) -> dict[str, Scalar]:
    return {"t": t, "predictor": predictor}


def _named(figure: Figure) -> Figure:
    named = titled(figure)
    plain = figure.condition["predictor"] == "without z"
    return replace(without(named, "predictor"), bundle=TITLES[PLAIN] if plain else f"{named.bundle}, with z")


STUDY = Study(
    name="denoising",
    title="One step of denoising",
    about=ABOUT,
    contenders=(DIFFAE, PDAE),
    settings=settings,
    materials=materials,
    measure=measure,
    work=work,
    commands=commands,
    tables=tables,
    plots=plots,
)
