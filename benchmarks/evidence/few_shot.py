"""Samples like a few labelled examples: a classifier on z, and draws of the prior that it accepts."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evidence.contenders import WITH_Z
from evidence.study import SEED, Bench, Folders, Settings, Sizes, Study, titled
from rdm_cli.errors import BundleError, RdmError
from rdm_cli.evaluation.figures import Figure, Part, Scalar, Sheet, drawn, estimated, rows_of_points
from rdm_cli.evaluation.judging import provenance_of
from rdm_cli.evaluation.material import SHOWN, Material, Subject
from rdm_cli.jobs.conditional import Condition, accepted_draws, few_shot_condition
from rdm_cli.jobs.pictures import Draws
from rdm_cli.metrics.intervals import share_estimate
from rdm_cli.pipeline.running import Advance
from rdm_cli.reports.plots import Plot
from rdm_cli.training.pixel_judge import PixelJudge

NAME = "share that shows it"
SHARE_OF_SET = "share of a set"
NOTHING, LIKE, UNLIKE = "no examples", "examples", "examples and counter-examples"
ABOUT = (
    "A linear classifier on z is fitted to a handful of labelled images, and draws of the bundle's own prior "
    "are kept where it says yes (Diff-AE's section 5.4, after D2C). The judge of edits, which sees pixels "
    "alone, says how many of the pictures show the attribute; without examples that is the share among all "
    "draws. Examples are training avatars. With examples alone, the prior's own draws are the unlabelled "
    "side. Intervals are about other draws after the same examples; verdicts count sets of examples."
)


def settings(sizes: Sizes) -> dict[str, Any]:
    return {
        "attributes": list(sizes.few_shot_attributes),
        "examples": sizes.num_examples,
        "sets": sizes.num_sets,
        "num": sizes.num_conditional,
        "num_unconditional": sizes.num_unconditional,
        "max_draws": sizes.max_draws,
        "steps": sizes.steps,
        "labelled": sizes.num_train,
    }


def materials(bench: Bench, chosen: Settings) -> dict[str, Material]:
    return {"train": bench.training(chosen["labelled"])}


def work(bench: Bench, chosen: Settings, subject: Subject) -> float:
    return float(chosen["num_unconditional"] + 2 * len(chosen["attributes"]) * chosen["sets"] * chosen["num"])


def measure(bench: Bench, chosen: Settings, subject: Subject, advance: Advance) -> Part:
    """Shares of pictures that show each attribute: of all draws, and of those each way of asking accepts."""
    pipeline, steps = subject.pipeline, chosen["steps"]
    judge = bench.court(chosen["labelled"]).judge(subject)
    try:
        free = pipeline.sample(chosen["num_unconditional"], seed=SEED)
    except BundleError as error:
        return Part(notes=[str(error)])
    pictures = pipeline.decode(free, steps=steps, advance=advance)
    figures: list[Figure] = []
    rows = [("draws, none picked", pictures[:SHOWN])]
    notes: list[str] = []
    for name in chosen["attributes"]:
        if name not in judge.names:
            notes.append(f"{name}: too few examples for a judge to learn it")
            continue
        figures.append(_share(subject, judge, pictures, name, NOTHING, chosen))
        for how in (LIKE, UNLIKE):
            try:
                found = _after_examples(bench, chosen, subject, name, how, advance)
            except RdmError as error:
                notes.append(f"{subject.name}: {name}, {how}: {error}")
                continue
            figures.append(_share(subject, judge, found, name, how, chosen))
            for k, some in enumerate(found.split(chosen["num"])):
                of_set = _share(subject, judge, some, name, how, chosen)
                figures.append(
                    replace(of_set, name=SHARE_OF_SET, condition={**of_set.condition, "set": k + 1})
                )
            rows.append((f"{name}, {how}", found[:SHOWN]))
    caption = f"{subject.name}: draws, and draws accepted after {chosen['examples']} examples"
    return Part(figures=figures, sheets=[Sheet(caption=caption, rows=rows)], notes=notes)


def commands(chosen: Settings, bundles: Sequence[str], folders: Folders) -> list[str]:
    """All of it, and what is drawn after one set of examples."""
    folder = f"{folders.work}/{STUDY.name}/{chosen['attributes'][0]}/0"
    words = f"--n {chosen['num']} --like {folder}/like --unlike {folder}/unlike --steps {chosen['steps']}"
    drawn_after_one = f"rdm sample --bundle {bundles[0]} {words} -o drawn/"
    return [f"make evidence PART={STUDY.name} AGAIN=1", drawn_after_one]


def tables(figures: Sequence[Figure]) -> list[Figure]:
    return [titled(figure) for figure in figures if figure.name == NAME]


def plots(figures: Sequence[Figure]) -> list[Plot]:
    return drawn(rows_of_points([titled(figure) for figure in figures], NAME, "attribute"))


def _after_examples(
    bench: Bench, chosen: Settings, subject: Subject, name: str, how: str, advance: Advance
) -> Tensor:
    """Pictures (sets x num, C, H, W) drawn after each set of examples of ``name``."""
    pipeline, found = subject.pipeline, []
    for k in range(chosen["sets"]):
        folder = bench.work / STUDY.name / name / str(k)
        _write_examples(bench.training(chosen["labelled"]), name, k, chosen["examples"], folder)
        condition: Condition = few_shot_condition(
            pipeline,
            folder / "like",
            unlike=folder / "unlike" if how == UNLIKE else None,
            unlabelled=None,
            seed=k,
        )
        draws, num = Draws(seed=k), chosen["num"]
        taken = accepted_draws(pipeline, condition, num, draws, max_draws=chosen["max_draws"])
        codes = draws.codes(pipeline, draws.z(pipeline, taken.numbers), taken.numbers)
        found.append(pipeline.decode(codes, steps=chosen["steps"], advance=advance))
    return torch.cat(found)


def _write_examples(material: Material, name: str, k: int, num: int, folder: Path) -> None:
    """Set ``k`` of ``num`` images that have ``name``, and of as many that lack it; no two sets share one."""
    values = material.known().only([name]).values[:, 0]
    for kind, answer in (("like", 1.0), ("unlike", 0.0)):
        rows = (values == answer).nonzero()[k * num : (k + 1) * num, 0].tolist()
        shutil.rmtree(folder / kind, ignore_errors=True)
        (folder / kind).mkdir(parents=True)
        for row in rows:
            source = Path(str(material.items[row].source))
            shutil.copyfile(source, folder / kind / source.name)


def _share(
    subject: Subject, judge: PixelJudge, pictures: Tensor, name: str, how: str, chosen: Settings
) -> Figure:
    shown = judge.labels(pictures)[:, judge.names.index(name)]
    condition: dict[str, Scalar] = {"attribute": name, "given": how}
    given = {} if how == NOTHING else {"examples": chosen["examples"], "sets": chosen["sets"]}
    return estimated(
        share_estimate(shown),
        bundle=subject.name,
        name=NAME,
        condition=condition,
        num=len(shown),
        better="higher",
        computed_with={**provenance_of(judge), "T": chosen["steps"], **given, "interval": "Wilson (1927)"},
    )


STUDY = Study(
    name="few-shot",
    title="Samples after a few examples",
    about=ABOUT,
    contenders=WITH_Z,
    uses=("prior",),
    settings=settings,
    materials=materials,
    measure=measure,
    work=work,
    commands=commands,
    tables=tables,
    plots=plots,
)
