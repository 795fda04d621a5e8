"""What a line through z says about attributes, beside what it says on pixels and on a random network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from evidence.contenders import WITH_Z
from evidence.study import SEED, Bench, Folders, Settings, Sizes, Study, titled, without
from rdm_cli.evaluation.attributes import LEAD, MEAN, attributes_plots, measure_attributes
from rdm_cli.evaluation.figures import Figure, Part
from rdm_cli.evaluation.material import Material, Subject
from rdm_cli.pipeline.running import Advance
from rdm_cli.reports.plots import Plot


def settings(sizes: Sizes) -> dict[str, Any]:
    return {"num": sizes.num_probed}


def materials(bench: Bench, chosen: Settings) -> dict[str, Material]:
    return {"held-out": bench.labelled(chosen["num"])}


def work(bench: Bench, chosen: Settings, subject: Subject) -> float:
    return float(chosen["num"])


def measure(bench: Bench, chosen: Settings, subject: Subject, advance: Advance) -> Part:
    return measure_attributes(subject, bench.labelled(chosen["num"]), seed=SEED, advance=advance)


def commands(chosen: Settings, bundles: Sequence[str], folders: Folders) -> list[str]:
    return [f"rdm evaluate attributes {' '.join(bundles)} {folders.held_out} -n {chosen['num']}"]


def tables(figures: Sequence[Figure]) -> list[Figure]:
    """The means alone; each attribute is in the plot."""
    return [without(titled(f), "attribute") for f in figures if f.condition["attribute"] == MEAN]


def plots(figures: Sequence[Figure]) -> list[Plot]:
    """Of the baselines, those with the fewest features are like those of any other bundle: one is enough."""
    chosen = [f for f in figures if f.name == "AUROC"]
    first = chosen[0].bundle if chosen else ""
    shown = [
        replace(without(titled(f), "features"), bundle=_name(f))
        for f in chosen
        if f.condition["features"] == "z" or f.bundle == first
    ]
    return attributes_plots(shown)


def keeps(figure: Figure) -> bool:
    return figure.name == "AUROC" or not figure.detail


def _name(figure: Figure) -> str:
    kind = str(figure.condition["features"])
    return f"z of {titled(figure).bundle}" if kind == "z" else kind


STUDY = Study(
    name="attributes",
    title="What z says about attributes",
    about=LEAD,
    contenders=WITH_Z,
    settings=settings,
    materials=materials,
    measure=measure,
    work=work,
    commands=commands,
    tables=tables,
    plots=plots,
    keeps=keeps,
)
