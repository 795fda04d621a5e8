"""How far one step of denoising goes: the gap of the posterior's mean, without z and with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from evidence.contenders import DIFFAE, PDAE, PLAIN, TITLES
from evidence.study import SEED, Bench, Folders, Settings, Sizes, Study, titled, without
from rdm_cli.evaluation.figures import Figure, Part, Sheet, curves, drawn
from rdm_cli.evaluation.gap import GAP, GapPlan, gap_work, measure_gap
from rdm_cli.evaluation.material import Material, Subject
from rdm_cli.pipeline.running import Advance
from rdm_cli.reports.plots import Plot

SHOWN_AT = (500, 700, 900)
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
    return gap_work(subject, bench.images(chosen["num"]), _plan(chosen))


def measure(bench: Bench, chosen: Settings, subject: Subject, advance: Advance) -> Part:
    part = measure_gap(subject, bench.images(chosen["num"]), _plan(chosen), seed=SEED, advance=advance)
    (sheet,) = part.sheets
    # noise takes more room than all pictures together
    rows = [(name, row) for name, row in sheet.rows if name == "x_0" or not name.startswith("x_")]
    caption = f"{subject.name}: x_0 as it is seen in one x_t"
    return replace(part, sheets=[Sheet(caption=caption, rows=rows)])


def commands(chosen: Settings, bundles: Sequence[str], folders: Folders) -> list[str]:
    words = f"-n {chosen['num']} --every {chosen['every']}"
    return [f"rdm evaluate gap {' '.join(bundles)} {folders.held_out} {words}"]


def tables(figures: Sequence[Figure]) -> list[Figure]:
    return [_named(figure) for figure in figures]


def plots(figures: Sequence[Figure]) -> list[Plot]:
    return drawn(curves([_named(figure) for figure in figures], GAP, "t", log_y=True))


def _plan(chosen: Settings) -> GapPlan:
    return GapPlan(every=chosen["every"], shown_at=SHOWN_AT)


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
