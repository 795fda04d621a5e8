"""rdm audit: which attributes drive a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rdm_cli import completion
from rdm_cli import options as o
from rdm_cli.commands.opening import open_model, open_on
from rdm_cli.console import Console
from rdm_cli.errors import UsageError
from rdm_cli.option_groups import spread


@spread
def audit(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL FOLDER", help="A classifier: an ONNX file or a folder; and a folder of images."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="DIR", help="Folder for the report, and for the edited pictures."
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="metadata.csv, metadata.jsonl, or a CelebA list: which attribute the model is about.",
            show_default="not known",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--label",
            metavar="NAME",
            help="The column of the labels that the model is to tell.",
            show_default="the only one, or the one that its scores agree best with",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="NAME",
            help="The attribute that the model is about: it is not accused of looking at that.",
            show_default="the one that agrees best with the labels",
            autocompletion=completion.attributes,
        ),
    ] = None,
    attr: Annotated[
        list[str] | None,
        typer.Option(
            "--attr",
            metavar="NAME",
            help="An attribute to move; repeat it.",
            show_default="all that the bundle knows",
            autocompletion=completion.attributes,
        ),
    ] = None,
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    num: Annotated[
        int | None,
        typer.Option("-n", "--n", metavar="N", min=2, help="Use the first N images.", show_default="all"),
    ] = None,
    num_faces: Annotated[
        int, typer.Option("--faces", metavar="N", min=2, help="Move each attribute on N of the images.")
    ] = 48,
    num_directions: Annotated[
        int,
        typer.Option(
            "--directions",
            metavar="N",
            min=0,
            help="Move N directions without a name, too, that were found in codes.",
        ),
    ] = 4,
    seed: o.Seed = 0,
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="The class that the model is asked about.",
            show_default="the only one, or the second of two",
        ),
    ] = None,
    *,
    classifier: o.Model,
    images: o.SquareFiles,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Find out which attributes a classifier looks at, besides the one that it is to tell.

    Each attribute that the bundle knows is added to faces that lack it and taken from faces that have it, and
    nothing else is changed: the mean change of the model's score, its interval, and whether chance explains
    it. The bundle's classifiers verify each edit; those that fail are left out and counted. Directions that
    nobody has named come with a sheet of pictures each.

    The edited pictures stay in DIR/edits: a second model on the same images, with the same DIR, is asked in
    seconds. The report is audit.html in a folder of DIR with the model's name, and audit.json beside it.

    Examples:
        rdm audit model.onnx faces/ --target smiling -o audit/
        rdm audit --command "python score.py" faces/ --labels labels.csv -o audit/
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    spec, folder = _model_and_folder(words, classifier.command)
    if label is not None and labels is None:
        raise UsageError("--label goes with --labels FILE")
    if target is not None and labels is not None:
        raise UsageError("--target says what the model is about, and so do --labels: give one of them")
    from rdm_cli.data.sinks.outputs import refuse_blocked
    from rdm_cli.evaluation.audit import audit as audited
    from rdm_cli.evaluation.audit import blind_to, class_asked, finding_record
    from rdm_cli.evaluation.audit_page import report_folder, write_audit
    from rdm_cli.evaluation.material import gather, gather_labelled
    from rdm_cli.evaluation.moved import MovedFaces

    refuse_blocked(output)
    if labels is None:
        material = gather(folder, num, images.fit)
    else:
        names = None if label is None else [label]
        material = gather_labelled(folder, num, images.fit, table=labels, names=names, purpose="--label")
    for line in ([str(material.passed_over)] if material.passed_over else []) + list(material.notes):
        console.problem(f"rdm: {line}")
    pipeline = open_on(machine, bundle, images, console.remark)
    model = open_model(spec, classifier, pipeline.bundle.model.image_size)
    class_asked(model, class_name)
    place_of_report = report_folder(model, output)
    for name, value in model.assumed.items():
        console.note(f"rdm: {model.name}: {name}: {value}")
    for name in [*(attr or ()), *([] if target is None else [target])]:
        pipeline.bundle.directions.index(name)  # an unknown one is told before any work
    faces = MovedFaces(
        pipeline=pipeline, material=material, num=num_faces, seed=seed, folder=output / "edits"
    )
    total = len(attr or pipeline.bundle.directions.names) + num_directions
    with console.progress("moving", total, unit="attributes") as advance:
        found = audited(
            faces,
            model,
            class_name=class_name,
            target=target,
            label=label,
            attributes=attr,
            num_concepts=num_directions,
            settings={**material.facts, "seed": seed, "precision": pipeline.precision},
            advance=advance,
        )
    for finding in found.findings:
        record = finding_record(finding)
        effect = "-" if finding.effect is None else f"{finding.effect.value:+.3f}"
        told = f"{finding.name}\t{finding.verdict}\t{effect}\tp {finding.p:.4f}\t{finding.num} faces"
        if finding.num_failed or finding.num_not_alone:
            told += f"\t{finding.num_failed} failed, {finding.num_not_alone} not alone"
        console.emit(told, model=model.name, bundle=found.bundle, **{"class": found.class_name}, **record)
    for place in write_audit(found, place_of_report, [item.relative.as_posix() for item in material.items]):
        console.note(f"rdm: {place}")
    for line in found.notes:
        console.problem(f"rdm: {line}")
    known = [finding.name for finding in found.findings if not finding.is_concept]
    console.note(f"rdm: not seen: {blind_to(found, known)[0]}")
    console.note(f"rdm: {found.summary}")


def _model_and_folder(words: list[str], command: str | None) -> tuple[str | None, Path]:
    """The two arguments; with a program instead of a model, the only one is the folder."""
    wanted = 1 if command is not None else 2
    if len(words) != wanted:
        raise UsageError(
            f"{'a folder' if wanted == 1 else 'a model and a folder'} expected, not {len(words)} words",
            hint="rdm audit MODEL FOLDER, or rdm audit --command PROGRAM FOLDER",
        )
    return (None if command is not None else words[0]), Path(words[-1])
