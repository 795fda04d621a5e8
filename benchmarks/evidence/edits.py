"""Whether an edit shows, and what else it changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evidence.contenders import WITH_Z
from evidence.study import SEED, Bench, Folders, Settings, Sizes, Study, listed, titled
from rdm_cli.evaluation.edit import LEAD, EditPlan, edit_plots, edit_work, measure_edits
from rdm_cli.evaluation.figures import Figure, Part, Sheet
from rdm_cli.evaluation.judging import Court
from rdm_cli.evaluation.material import Material, Subject
from rdm_cli.pipeline.running import Advance
from rdm_cli.reports.plots import Plot

TABLED = ("success", "others changed")


def settings(sizes: Sizes) -> dict[str, Any]:
    return {
        "attributes": list(sizes.attributes),
        "scales": list(sizes.scales),
        "num": sizes.num_edited,
        "labelled": sizes.num_train,
        "steps": sizes.steps,
    }


def materials(bench: Bench, chosen: Settings) -> dict[str, Material]:
    found = _court(bench, chosen)
    return {"held-out": found.edited, "train": found.learned}


def work(bench: Bench, chosen: Settings, subject: Subject) -> float:
    return edit_work(subject, _court(bench, chosen), _plan(chosen))


def measure(bench: Bench, chosen: Settings, subject: Subject, advance: Advance) -> Part:
    return measure_edits(
        subject,
        _court(bench, chosen),
        _plan(chosen),
        distances=bench.distances,
        seed=SEED,
        advance=advance,
    )


def commands(chosen: Settings, bundles: Sequence[str], folders: Folders) -> list[str]:
    attributes = " ".join(f"--attr {name}" for name in chosen["attributes"])
    words = f"--judge-data {folders.train} --labelled {chosen['labelled']} {attributes}"
    more = f"--scales={listed(chosen['scales'])} -n {chosen['num']} --steps {chosen['steps']}"
    return [f"rdm evaluate edit {' '.join(bundles)} {folders.held_out} {words} {more}"]


def tables(figures: Sequence[Figure]) -> list[Figure]:
    """Success and what else changed; at scale 0 nothing was to succeed."""
    return [titled(f) for f in figures if f.name in TABLED and (f.condition["scale"] or f.name != "success")]


def plots(figures: Sequence[Figure]) -> list[Plot]:
    """How often smiles were put on or taken away, over the scale."""
    return edit_plots(
        [
            titled(f)
            for f in figures
            if f.name == "success" and f.condition["scale"] and f.condition["edit"] == "added"
        ]
    )


def shows(sheet: Sheet) -> bool:
    return sheet.caption.endswith("images that lack it")


def _court(bench: Bench, chosen: Settings) -> Court:
    return bench.court(chosen["labelled"])


def _plan(chosen: Settings) -> EditPlan:
    return EditPlan(
        attributes=chosen["attributes"],
        scales=chosen["scales"],
        num=chosen["num"],
        steps=chosen["steps"],
    )


STUDY = Study(
    name="edits",
    title="Edits",
    about=LEAD,
    contenders=WITH_Z,
    uses=("attributes",),
    settings=settings,
    materials=materials,
    measure=measure,
    work=work,
    commands=commands,
    tables=tables,
    plots=plots,
    shows=shows,
)
