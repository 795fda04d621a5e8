"""What the commands that work file by file share: inputs, outputs, one line an item, the exit code."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rdm_cli.console import Console
from rdm_cli.core.batch import Outcome, Tally, Task
from rdm_cli.data.shards import WHOLE, Shard, parse_shard, shard_of_environment
from rdm_cli.errors import UsageError

if TYPE_CHECKING:
    from rdm_cli.core.manifests import Part
    from rdm_cli.data.folders import Item

STDIN = "-"


@dataclass(frozen=True, kw_only=True)
class Job:
    """All tasks of a command's shard; ``to_stdout`` where the one result goes to stdout as bytes.

    ``num_items`` are those of all shards. What becomes of the ``part``'s items is written to ``manifest``,
    where there is one.
    """

    tasks: tuple[Task, ...]
    to_stdout: bool
    num_items: int
    part: Part
    manifest: Path | None

    def spare_inputs(self, companion: Callable[[Path], Path]) -> None:
        """Raise UsageError where the file that goes with a result would replace an input."""
        sources = {task.source.resolve() for task in self.tasks}
        for task in self.tasks:
            path = companion(task.target)
            if path.resolve() in sources:
                raise UsageError(
                    f"what goes with the result of {task.name} would replace the input {path}",
                    hint="choose another output folder",
                )


def shard_asked_for(text: str | None) -> tuple[Shard, str]:
    """The shard that --shard names, or else the environment, and what names it; raises UsageError."""
    if text is not None:
        return parse_shard(text), "--shard"
    return shard_of_environment(os.environ) or (WHOLE, "")


@contextmanager
def planned_job(
    console: Console,
    verb: str,
    inputs: list[str] | None,
    *,
    files_from: str | None,
    output: Path | None = None,
    shard: tuple[Shard, str] | None = None,
    manifest: Path | None = None,
    suffixes: frozenset[str],
    result_suffix: str | None = None,
    stdin_suffix: str = ".safetensors",
    companions: tuple[str, ...] = (),
) -> Iterator[Job]:
    """Find inputs, plan outputs, and refuse what cannot work before any work is done.

    ``-`` among the inputs is one file on stdin; ``-o -`` sends one result to stdout. ``companions`` are the
    endings of what is written besides each result; what an earlier run left is no input. ``shard`` is the
    part that is done of all that is planned, with what asked for it; None: all. Without ``manifest`` a
    shard's lies in ``output``. Without ``result_suffix`` inputs are read and nothing is written beside them.
    """
    from rdm_cli.core.manifests import Part
    from rdm_cli.data.folders import find_inputs, plan_outputs

    given = list(inputs or [])
    if files_from is not None:
        given += [str(p) for p in _listed(files_from)]
    if not given:
        raise UsageError("no inputs were given", hint="name files or folders, or use --files-from")
    to_stdout = output == Path(STDIN)
    with tempfile.TemporaryDirectory(prefix="rdm-") as scratch:
        if STDIN in given:
            if given != [STDIN] or files_from == STDIN:
                raise UsageError("- reads one file from stdin and goes with no other input")
            if output is None and result_suffix is not None:
                raise UsageError("an input from stdin has no place of its own", hint="add -o DIR or -o -")
            piped = Path(scratch) / f"stdin{stdin_suffix}"
            piped.write_bytes(sys.stdin.buffer.read())
            given = [str(piped)]
        endings = () if result_suffix is None else (result_suffix, *companions)
        items = find_inputs([Path(p) for p in given], suffixes=suffixes, results=endings)
        if to_stdout and len(items) != 1:
            raise UsageError(f"-o - takes one input, and there are {len(items)}")
        folder = Path(scratch) / "result" if to_stdout else output
        if result_suffix is None:
            planned = [(item, item.source) for item in items]
        else:
            planned = plan_outputs(items, output=folder, suffix=result_suffix)
        mine, asked_by = shard or (WHOLE, "")
        if to_stdout or given[0].startswith(scratch):
            if asked_by == "--shard":
                raise UsageError("- is one file, and --shard divides many")
            mine = WHOLE

        def result_name(item: Item, target: Path) -> str:
            if result_suffix is None:
                return item.relative.as_posix()
            return "" if folder is None else target.relative_to(folder).as_posix()

        tasks = tuple(
            Task(
                source=item.source,
                target=target,
                name=STDIN if item.source.parent == Path(scratch) else str(item.source),
                result=result_name(item, target),
            )
            for item, target in planned
            if mine.holds(item.relative.as_posix())
        )
        part = Part(verb=verb, shard=mine, num_items=len(tasks))
        if mine.count > 1:
            console.note(f"rdm: shard {mine}, by {asked_by}: {len(tasks)} of {len(planned)} items")
            if manifest is None and output is not None:
                manifest = output / part.file_name
        yield Job(tasks=tasks, to_stdout=to_stdout, num_items=len(planned), part=part, manifest=manifest)


def _listed(files_from: str) -> list[Path]:
    from rdm_cli.data.folders import read_path_list

    if files_from == STDIN:
        return read_path_list(sys.stdin)
    with Path(files_from).open(encoding="utf-8") as file:
        return read_path_list(file)


def report(
    console: Console,
    job: Job,
    outcomes: Callable[[Callable[[float], None]], Iterator[Outcome[Task]]],
    *,
    verb: str,
    noun: str,
    failures: Path | None,
    describe: Callable[[dict[str, Any]], str | None] = lambda data: str(data["output"]),
    each: Callable[[dict[str, Any]], None] = lambda data: None,
    conclude: Callable[[], None] = lambda: None,
) -> None:
    """Run a job, print a line an item, sum up on stderr, and exit 1 or 3 where items failed.

    ``outcomes`` takes the progress bar's ``advance``; ``describe`` makes an item's line (None: no line);
    ``each`` gets the data of every item that was done, and ``conclude`` is called after the last.
    """
    if job.to_stdout and console.as_json:
        raise UsageError("-o - sends a file to stdout and --json sends JSON", hint="choose one of them")
    from rdm_cli.core.manifests import open_manifest

    tally = Tally()
    try:
        with (
            open_manifest(job.manifest, job.part) as manifest,
            console.progress(verb, total=float(len(job.tasks))) as advance,
        ):
            for outcome in outcomes(advance):
                name = outcome.item.name
                if outcome.error is not None:
                    # what came by stdin lies in a scratch file, whose name would tell nobody anything
                    error = outcome.error.replace(str(outcome.item.source), name)
                    outcome = replace(outcome, error=error)
                    console.problem(f"rdm: {_named(name, error)}")
                    if console.as_json:
                        console.emit("", source=name, error=error)
                tally.add(name, outcome)
                if manifest is not None:
                    manifest.add(outcome)
                if outcome.error is not None:
                    continue
                each(outcome.data)
                if job.to_stdout:
                    console.emit_bytes(Path(outcome.data["output"]).read_bytes())
                elif (line := describe(outcome.data)) is not None:
                    console.emit(line, source=name, **outcome.data)
        conclude()
    finally:
        console.note(tally.summary(verb, noun))
        if failures is not None:
            tally.write_failures(failures)
        tally.close()
    if tally.exit_code:
        raise typer.Exit(tally.exit_code)


def _named(name: str, error: str) -> str:
    return error if f"{name}: " in error else f"{name}: {error}"
