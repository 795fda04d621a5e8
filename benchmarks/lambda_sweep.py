"""LRDM's trade: what z alone brings back, and how like images samples from N(0, I) are, lambda by lambda.

    for w in 1e-5 1e-4 1e-3; do
        rdm train lrdm train --first-stage my-stage -o runs/sweep-$w --kl-weight $w --images 60000 --seed 1
    done
    python benchmarks/lambda_sweep.py runs/sweep-1e-5 runs/sweep-1e-4 runs/sweep-1e-3 \
        --held-out held-out --output docs/figures

Bundles may differ in lambda alone, or the figures say nothing about it. What is measured is kept in
lambda-sweep.json, under the bundle's digest and the settings, and not measured again; docs/evidence.md shows
it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from evidence.findings import SWEEP
from evidence.page import figures_table
from evidence.running import machine
from evidence.store import Entry, Store

from rdm_cli import open_pipeline
from rdm_cli.console import say
from rdm_cli.errors import RdmError, UsageError
from rdm_cli.evaluation.figures import Figure, Part
from rdm_cli.evaluation.generation import Reference, measure_generation
from rdm_cli.evaluation.material import Subject, gather
from rdm_cli.evaluation.reconstruction import measure_reconstruction
from rdm_cli.metrics.features import FeatureExtractor, open_effnet_lite0
from rdm_cli.pipeline.running import ignore_progress
from rdm_cli.runtime import set_up

SEED = 0


def weight_of(subject: Subject) -> float:
    """The lambda that a bundle was trained with; raises UsageError where it has none."""
    config: Any = subject.pipeline.bundle.model
    representation = getattr(getattr(config, "config", None), "representation", None)
    if representation is None:
        raise UsageError(f"{subject.name}: has no lambda: this is {subject.pipeline.bundle.method.title}")
    return float(representation.kl_weight)


def measured(
    subject: Subject, folder: Path, *, num: int, num_samples: int, steps: int, extractor: FeatureExtractor
) -> list[Figure]:
    """Reconstruction and samples in ``steps``, each figure with its lambda."""
    back: Part = measure_reconstruction(
        subject,
        gather(folder, num),
        steps=[steps],
        inversion="ddim",
        distances=[],
        seed=SEED,
        advance=ignore_progress,
    )
    made: Part = measure_generation(
        subject,
        Reference(material=gather(folder, num_samples), extractor=extractor),
        num=num_samples,
        steps=[steps],
        seed=SEED,
        advance=ignore_progress,
    )
    weight = weight_of(subject)
    return [
        replace(f, bundle="LRDM", condition={"lambda": weight, **f.condition})
        for f in (*back.figures, *made.figures)
        if not f.detail and f.condition.get("prior") in (None, "gaussian")
    ]


def sweep(
    bundles: list[str], held_out: Path, output: Path, *, num: int, num_samples: int, steps: int
) -> None:
    """Measure every bundle that is not kept yet, and print the table; raises RdmError."""
    store = Store(folder=output)
    extractor = open_effnet_lite0()
    data = gather(held_out, max(num, num_samples))
    settings = {"num": num, "num_samples": num_samples, "steps": steps, "data_sha256": data.digest}
    opened = [open_pipeline(bundle, device=set_up(), batch_size=40) for bundle in bundles]
    subjects = [Subject(name=pipeline.bundle.name, pipeline=pipeline) for pipeline in opened]
    names = {subject.name: f"{weight_of(subject):g}" for subject in subjects}
    if len(set(names.values())) < len(subjects):
        raise UsageError(f"two bundles have one lambda: {', '.join(f'{n} {w}' for n, w in names.items())}")
    for subject in subjects:
        key = {"bundle": subject.pipeline.bundle.digest, "settings": settings}
        kept = store.entries(SWEEP).get(names[subject.name])
        if kept is None or kept.key != key:
            begun = time.perf_counter()
            found = measured(
                subject, held_out, num=num, num_samples=num_samples, steps=steps, extractor=extractor
            )
            seconds = time.perf_counter() - begun
            entry = Entry(key=key, seconds=seconds, machine=machine(), figures=tuple(found))
            store.keep(SWEEP, names[subject.name], entry)
        say(f"lambda {names[subject.name]}: {subject.name}")
    entries = store.entries(SWEEP).values()
    print(figures_table([figure for entry in entries for figure in entry.figures]))


def main(
    bundles: Annotated[list[str], typer.Argument(help="LRDMs that differ in lambda alone.")],
    held_out: Annotated[Path, typer.Option(help="Images to measure on.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for lambda-sweep.json.")],
    num: Annotated[int, typer.Option(help="Images to reconstruct.")] = 100,
    num_samples: Annotated[int, typer.Option(help="Samples.")] = 500,
    steps: Annotated[int, typer.Option(help="DDIM steps.")] = 20,
) -> None:
    """Measure, keep, and print the table."""
    try:
        sweep(bundles, held_out, output, num=num, num_samples=num_samples, steps=steps)
    except RdmError as error:
        say(f"error: {error}")
        raise typer.Exit(error.exit_code) from None


if __name__ == "__main__":
    typer.run(main)
