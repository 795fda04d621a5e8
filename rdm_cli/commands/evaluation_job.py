"""What the evaluations share: the user's words, bundles opened in order, and how results are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdm_cli import options as o
from rdm_cli.commands.opening import open_on
from rdm_cli.console import Console
from rdm_cli.data.sinks.outputs import refuse_blocked
from rdm_cli.errors import UsageError

if TYPE_CHECKING:
    from rdm_cli.evaluation.figures import Evaluation, Part
    from rdm_cli.evaluation.material import Material, Subject
    from rdm_cli.pipeline.running import Advance

SHOWN_DIGITS = 12
Work = Callable[["Subject"], float]
Measure = Callable[["Subject", "Advance"], "Part"]


def bundles_then_folder(words: Sequence[str]) -> tuple[list[str], Path]:
    """One bundle or more, and the folder that was named last; raises UsageError, also for a bundle there."""
    from rdm_cli.bundles.places import names_bundle

    if len(words) < 2:
        raise UsageError("name one or more bundles, and then a folder of images")
    *bundles, folder = words
    if names_bundle(folder):
        raise UsageError(
            f"{folder}: this is a bundle, and the folder of images comes last",
            hint="rdm evaluate VERB BUNDLE... FOLDER",
        )
    return bundles, Path(folder)


def numbers(option: str, text: str, kind: type[Any] = int) -> list[Any]:
    """``T,...`` as numbers, each once, in the user's order; raises UsageError, naming ``option``."""
    try:
        return list(dict.fromkeys(kind(word) for word in text.split(",")))
    except ValueError:
        raise UsageError(f"{option} {text}: numbers with commas between them are expected") from None


def step_numbers(text: str) -> list[int]:
    """Numbers of sampling steps, the fewest first; raises UsageError."""
    found = sorted(numbers("--steps", text))
    if found[0] < 1:
        raise UsageError(f"--steps {found[0]}: at least one step is needed")
    return found


def check_output(output: Path | None, name: str) -> None:
    """Raise RdmError where the report ``name`` could not be written, or would replace a user's file."""
    if output is not None:
        from rdm_cli.evaluation.report import refuse_other_files

        refuse_blocked(output)
        refuse_other_files(output, name)


def opened(
    bundles: Sequence[str],
    machine: o.Machine,
    images: o.Images,
    console: Console,
    *,
    solver: o.Solver | None = None,
) -> list[Subject]:
    """Every bundle, opened before any is measured, so that a wrong word is told at once."""
    from rdm_cli.evaluation.material import subjects

    pipelines = [open_on(machine, spec, images, console.remark, solver=solver) for spec in bundles]
    return subjects(bundles, pipelines)


def evaluate(
    console: Console,
    name: str,
    lead: str,
    material: Material,
    subjects: Sequence[Subject],
    *,
    work: Work,
    measure: Measure,
    output: Path | None,
    **rest: Any,
) -> None:
    """Measure every subject, and show what was found; ``rest`` are assembled()'s other arguments.

    ``work`` is how many images' worth a subject is. Raises UsageError where nothing could be measured.
    """
    from rdm_cli.evaluation.assembly import assembled

    if material.passed_over:
        console.note(f"{material.folder}: {material.passed_over}")
    parts = _measured(console, subjects, work, measure)
    _present(console, assembled(name, lead, material, subjects, parts, **rest), output)


def _measured(console: Console, subjects: Sequence[Subject], work: Work, measure: Measure) -> list[Part]:
    """Each subject's part, with a bar for each."""
    parts = []
    for subject in subjects:
        with console.progress(f"measuring {subject.name}", work(subject)) as advance:
            parts.append(measure(subject, advance))
    if not any(part.figures for part in parts):
        raise UsageError("; ".join(dict.fromkeys(note for part in parts for note in part.notes)))
    return parts


def _present(console: Console, evaluation: Evaluation, output: Path | None) -> None:
    """Write the files, print the figures, say what they rest on and what is missing."""
    from rdm_cli.evaluation.report import comparison, provenance, record, save_json, save_report
    from rdm_cli.reports.plots import can_plot

    # first the files: whoever closes the pipe early keeps them
    if output is not None:
        path = output / f"{evaluation.name}.json"
        save_json(evaluation, path)
        save_report(evaluation, path.with_suffix(".html"))
        if evaluation.plots and not can_plot():
            console.note("no plots: matplotlib is not installed; pip install 'rdm-cli[evaluate]'")
        console.note(str(path))
        console.note(str(path.with_suffix(".html")))
    for note in evaluation.notes:
        console.note(note)
    if console.as_json:
        for figure in evaluation.figures:
            console.emit("", **record(evaluation, figure))
    else:
        shown = [figure for figure in evaluation.figures if not figure.detail]
        columns, rows, num_words = comparison(shown)
        settings = "; ".join(f"{key} {_short(key, value)}" for key, value in evaluation.settings.items())
        rests_on = [f"{name}: {text}" for name, text in provenance(shown, digits=SHOWN_DIGITS)]
        console.table(
            f"{evaluation.name}, with 95 % intervals",
            columns,
            rows,
            num_words=num_words,
            below=["", *rests_on, settings],
        )


def _short(key: str, value: object) -> str:
    return str(value)[:SHOWN_DIGITS] if key.endswith("sha256") else str(value)
