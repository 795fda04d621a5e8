"""rdm explain: pictures that a classifier decides otherwise about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rdm_cli import options as o
from rdm_cli.commands.batch_job import planned_job, report
from rdm_cli.commands.opening import open_model
from rdm_cli.console import Console
from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.errors import UsageError
from rdm_cli.jobs.batch import Outcome, Task
from rdm_cli.option_groups import spread

if TYPE_CHECKING:
    from rdm_cli.jobs.results import Explained

MOST_TOLD = 10  # pictures without an answer, by name


@spread
def explain(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL INPUTS...",
            help="A classifier, an ONNX file or a Hugging Face folder (left out with --command), and files "
            "and folders of images.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="DIR", help="A folder for results.")
    ] = None,
    asked: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="The class in question.",
            show_default="the one that the model says each image is of",
        ),
    ] = None,
    target: Annotated[
        float,
        typer.Option("--target", metavar="P", help="How sure of the other answer the model is to be."),
    ] = 0.9,
    answers: Annotated[
        int,
        typer.Option("--answers", metavar="N", min=1, max=16, help="Look for up to N different answers."),
    ] = 1,
    gradients: Annotated[
        bool, typer.Option("--gradients", help="Move z along the gradients of a Hugging Face folder's model.")
    ] = False,
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    seed: o.Seed = 0,
    force: o.Force = False,
    fit: Annotated[
        o.Fit, typer.Option("--fit", help="How an image becomes a square of the bundle's size.")
    ] = "crop",
    *,
    model: o.Model,
    files: o.ImageFiles,
    work: o.Work,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Show what would have to change in each image for a classifier to decide otherwise.

    The model is asked about edited pictures: with attributes that the bundle knows set otherwise, one, then
    two at a time, and where that does not help, with z moved freely among the codes of such images. a.png
    gives a-explained.png, its difference map a-explained-difference.png and a-explained.json, which says how
    sure the model is before and after and which attributes changed by how much; further answers are
    a-explained-2.png and so on. explain.html shows all. Where a verdict does not change that is said, and the
    exit code is 3. Needs the extra classify.

    Examples:
        rdm explain model.onnx faces/ -o why/ --classes no,yes
        rdm explain --command "python score.py" faces/ -o why/ --class red
    """
    given = list(inputs or [])
    if output is None:
        raise UsageError("a folder for the results is needed", hint="add -o DIR")
    spec = None
    if model.command is None:
        if not given:
            raise UsageError("no model was given", hint="name an ONNX file or a folder, or use --command")
        spec, *given = given
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    with planned_job(
        console,
        "explain",
        given,
        files_from=work.files_from,
        column=work.column,
        output=output,
        suffixes=SUFFIXES,
        result_suffix="-explained.png",
        stdin_suffix=".image",
        companions=("-explained.json", "-explained-difference.png"),
    ) as job:
        from rdm_cli.jobs.explain import ExplanationPage, explain_files
        from rdm_cli.pipeline.explaining import check_question
        from rdm_cli.pipeline.pipeline import open_pipeline
        from rdm_cli.runtime import set_up

        pipeline = open_pipeline(
            bundle,
            device=set_up(device=machine.device, threads=machine.threads),
            precision=machine.precision,
            batch_size=machine.batch_size,
            max_pixels=files.max_pixels,
            value_range=files.value_range,
            on_remark=job.remark,
        )
        pipeline.bundle.require_z("counterfactuals")
        classifier = open_model(spec, model, pipeline.bundle.model.image_size)
        check_question(classifier, asked, target, gradients=gradients)
        for name, value in classifier.assumed.items():
            console.note(f"rdm: {classifier.name}: {name}: {value}")
        page = ExplanationPage(Path(output), classifier, target=target, force=force)

        def outcomes(advance: Callable[[float], None]) -> Iterator[Outcome[Task, Explained]]:
            return explain_files(
                pipeline,
                classifier,
                job.tasks,
                class_name=asked,
                target=target,
                answers=answers,
                gradients=gradients,
                seed=seed,
                fit=fit,
                force=force,
                model_path=spec,
                page=page,
            )

        unanswered: list[str] = []

        def look(result: Explained) -> None:
            if not result.flipped:
                found = result.found
                stays = f"{found['class']} at {found['score']:.3f}"
                nearest = (found["miss"] or found)["score"]
                unanswered.append(f"{result.receipt_file}: {stays} stays; the nearest came to {nearest:.3f}")

        def remarks() -> list[str]:
            some = [f"rdm: {line}" for line in unanswered[:MOST_TOLD]]
            if left := len(unanswered) - len(some):
                some.append(f"rdm: and {left} more pictures without an answer")
            return some

        def conclude() -> None:
            for path in page.save():
                console.note(f"rdm: {path}")

        report(
            console, job, outcomes, verb="explained", noun="image", failures=work.failures, each=look,
            remarks=remarks, conclude=conclude,
        )  # fmt: skip
        if unanswered:
            raise typer.Exit(3)
