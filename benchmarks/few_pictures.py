"""Attributes without a table of labels: how well are they learned from five pictures a side, and found?

    rdm data avatars held-out --n 1000 --seed 2 -q >held-out.txt
    python benchmarks/few_pictures.py avatars64-diffae avatars64-pdae avatars128-lrdm \
        --held-out held-out --markdown docs/attributes.md

Learned: for each of twelve labels and each of ten draws of 5 faces with it and 5 without, the bundle is taken
without that attribute, and learns it from the ten. AUROC is on all other faces: by the pictures alone, with
the bundle's 15 other attributes, and with its concepts as well, as ``rdm attributes learn`` does. Then faces
that lack it get it, and faces that have it lose it, as by ``rdm manipulate NAME=yes|no``, steered by what was
learned. The bundle's own classifier of the attribute, which took no part, reads the edited pictures.

Found: of the bundle's concepts, which no label chose, each label's best one is picked on half of the faces
and scored on the others.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from bundle_report import load_folder, told
from report_tables import PageOption, keep_json, publish, refuse_unmarked, table
from torch import Tensor

from rdm_cli import Codes, Pipeline, open_pipeline
from rdm_cli.bundles.bundle import Bundle
from rdm_cli.jobs.learning import candidates
from rdm_cli.kernels.randomness import keyed_generator
from rdm_cli.methods.concepts import different
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.few_pictures import NUM_POPULATION, Learner
from rdm_cli.metrics.intervals import mean_estimate
from rdm_cli.metrics.ranking import auroc
from rdm_cli.runtime import set_up

SCRIPT = "few_pictures"
LEARNED = (
    "smiling", "glasses", "sunglasses", "beard", "moustache", "hat", "long_hair", "black_hair", "brown_hair",
    "blond_hair", "grey_hair", "red_hair",
)  # fmt: skip
FOUND = 0.9  # AUROC from which on a direction is the label's
NUMS_SHOWN = (12, 64)


def without(bundle: Bundle, name: str, *, also: Directions | None = None) -> Bundle:
    """The bundle as it would be without its attribute ``name``, and with ``also``."""
    others = {one: one for one in bundle.directions.names if one != name}
    known = bundle.directions.select(others)
    found = replace(bundle)
    found.__dict__["directions"] = known if also is None else known.updated(also)
    found.__dict__["transports"] = bundle.transports.select(others)
    return found


def draw(labels: Tensor, number: int, num: int) -> tuple[Tensor, Tensor]:
    """The faces of a draw that have it, and those that do not, (num,) each."""
    generator = keyed_generator(number, "five a side")
    sides = []
    for has in (labels > 0, labels == 0):
        rows = has.nonzero()[:, 0]
        sides.append(rows[torch.randperm(len(rows), generator=generator)[:num]])
    return sides[0], sides[1]


def success(
    pipeline: Pipeline, name: str, learned: Directions, codes: Codes, labels: Tensor, num: int
) -> list[float]:
    """Whether each of ``num`` faces that lack it gets it, and of ``num`` that have it loses it."""
    learner = replace(pipeline, bundle=without(pipeline.bundle, name, also=learned), batch_size=num)
    row, done = pipeline.bundle.directions.index(name), []
    for value in (True, False):
        chosen = (labels == float(not value)).nonzero()[:num, 0].tolist()
        edited = learner.edit(codes.select(chosen), {name: value}, keep=[])
        z = pipeline.encode(edited.pictures.clamp(-1, 1), with_x_T=False).z
        done += ((pipeline.bundle.directions.logits(z)[:, row] > 0) == value).float().tolist()
    return done


def learned_figures(
    pipeline: Pipeline,
    x_0: Tensor,
    labels: dict[str, Tensor],
    *,
    a_side: int,
    draws: int,
    faces: int,
    edited_draws: int,
) -> dict[str, Any]:
    """AUROC of each label, a number a draw, and the share of edits that show, by label."""
    bundle = pipeline.bundle
    z = pipeline.encode(x_0, with_x_T=False).z.flatten(1)
    population = pipeline.sample_z([f"population {i}" for i in range(NUM_POPULATION)], seed=0).flatten(1)
    assert bundle.domain is not None
    figures: dict[str, Any] = {}
    for name in LEARNED:
        known = without(bundle, name).directions
        ways = {"pictures": None, "attributes": known, "concepts": candidates(known, bundle.concepts)}
        scores: dict[str, list[float]] = {way: [] for way in ways}
        shows: list[float] = []
        for number in range(draws):
            ours, others = draw(labels[name], number, a_side)
            rest = ~labels[name].isnan()
            rest[ours], rest[others] = False, False
            for way, known_ones in ways.items():
                learner = Learner(
                    z=torch.cat([z[ours], z[others]]),
                    has=torch.arange(2 * a_side) < a_side,
                    population=population,
                    domain=bundle.domain,
                    candidates=known_ones,
                    num_known=len(known.names),
                    unlabelled=False,
                )
                learned = learner.directions(name)
                scores[way].append(auroc(learned.logits(z[rest])[:, 0], labels[name][rest] > 0))
            if faces and number < edited_draws:
                left = rest.nonzero()[:, 0]
                # a few of either answer, others for each draw
                some = left[torch.randperm(len(left), generator=keyed_generator(number, "edited"))]
                lacking, having = (some[labels[name][some] == v][:faces] for v in (0, 1))
                edited = torch.cat([lacking, having])
                codes = replace(pipeline, batch_size=len(edited)).encode(x_0[edited])
                shows.append(
                    sum(success(pipeline, name, learned, codes, labels[name][edited], faces)) / len(edited)
                )
        figures[name] = {**scores, "success": shows}
        told(f"{name}: " + ", ".join(f"{w} {sum(v) / len(v):.3f}" for w, v in figures[name].items() if v))
    return figures


def found_figures(pipeline: Pipeline, x_0: Tensor, labels: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """AUROC of each label's best concept, on faces that did not choose it: of those shown, and of all."""
    concepts = pipeline.bundle.concepts
    assert concepts is not None
    z = pipeline.encode(x_0, with_x_T=False).z.flatten(1)
    population = pipeline.sample_z([f"population {i}" for i in range(NUM_POPULATION)], seed=0).flatten(1)
    said = concepts.logits(z)
    first = torch.arange(len(z)) % 2 == 0
    figures: dict[str, dict[str, float]] = {}
    for num in (*NUMS_SHOWN, len(concepts.names)):
        shown = concepts.names if num == len(concepts.names) else different(concepts, population, num)
        rows = [concepts.index(name) for name in shown]
        for name, label in labels.items():
            chosen, scored = first & ~label.isnan(), ~first & ~label.isnan()
            on_half = torch.tensor([auroc(said[chosen, row], label[chosen] > 0) for row in rows])
            row = rows[int((on_half - 0.5).abs().argmax())]
            found = auroc(said[scored, row], label[scored] > 0)
            figures.setdefault(name, {})[str(num)] = max(found, 1 - found)
    return figures


def learned_table(figures: dict[str, Any]) -> str:
    """A row a label, and their mean with its interval over the labels' means."""

    def cell(values: list[float], percent: bool) -> str:
        if not values:
            return "-"
        of = mean_estimate(torch.tensor(values), seed=0, bounds=(0.0, 1.0))
        shown = [100 * v for v in (of.value, of.low, of.high)] if percent else [of.value, of.low, of.high]
        form = "{:.0f} % ({:.0f} to {:.0f})" if percent else "{:.3f} ({:.3f} to {:.3f})"
        return form.format(*shown)

    ways = ("pictures", "attributes", "concepts", "success")
    rows = [[name, *(cell(of[way], way == "success") for way in ways)] for name, of in figures.items()]
    means = {way: [sum(of[way]) / len(of[way]) for of in figures.values() if of[way]] for way in ways}
    rows.append(["mean", *(cell(means[way], way == "success") for way in ways)])
    header = ("label", "AUROC, pictures alone", "among 15 attributes", "and concepts", "edits that show")
    return table(header, rows)


def found_table(figures: dict[str, dict[str, float]]) -> str:
    """A row a label, a column a number of directions, and how many labels each finds."""
    nums = list(next(iter(figures.values())))
    rows = [[name, *(f"{of[num]:.3f}" for num in nums)] for name, of in figures.items()]
    found = [sum(of[num] >= FOUND for of in figures.values()) for num in nums]
    rows.append([f"found (AUROC ≥ {FOUND})", *(f"{n} of {len(figures)}" for n in found)])
    return table(("label", *(f"best of {num} directions" for num in nums)), rows)


def main(
    bundles: Annotated[list[str], typer.Argument(help="The bundles.")],
    held_out: Annotated[Path, typer.Option(help="Labelled avatars.")],
    num: Annotated[int, typer.Option("--n", help="How many of them.")] = 1000,
    a_side: Annotated[int, typer.Option(help="Pictures of each kind.")] = 5,
    draws: Annotated[int, typer.Option(help="Draws of such pictures, for each label.")] = 10,
    faces: Annotated[int, typer.Option(help="Faces edited each way in each draw; 0: none.")] = 4,
    edited_draws: Annotated[int, typer.Option(help="In so many draws, the first.")] = 10,
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the figures here.")] = None,
    page: PageOption = None,
) -> None:
    """Measure, and print the tables."""
    refuse_unmarked(page, SCRIPT)
    device = set_up()
    kept: dict[str, Any] = {}
    tables = []
    for name in bundles:
        pipeline = open_pipeline(name, device=device, batch_size=16)
        x_0, labels = load_folder(pipeline, held_out, num)
        learned = learned_figures(
            pipeline, x_0, labels, a_side=a_side, draws=draws, faces=faces, edited_draws=edited_draws
        )
        found = found_figures(pipeline, x_0, labels)
        kept[name] = {"digest": pipeline.bundle.digest, "num": len(x_0), "learned": learned, "found": found}
        if json_file is not None:
            keep_json(
                json_file,
                {
                    "a_side": a_side,
                    "draws": draws,
                    "faces": faces,
                    "edited_draws": edited_draws,
                    "bundles": kept,
                },
            )
        what = f"{len(x_0):,} held-out faces, {draws} draws of {a_side} + {a_side}"
        tables += [f"{name} (`{pipeline.bundle.digest[:12]}`), {what}:"]
        tables += [learned_table(learned), found_table(found)]
    publish("\n\n".join(tables), page, SCRIPT)


if __name__ == "__main__":
    typer.run(main)
