"""What the commands that work file by file share: inputs, outputs, one line an item, the exit code."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from rdm_cli.console import Console, say
from rdm_cli.data.io.atomic import naming
from rdm_cli.data.sources.folders import CODE_SUFFIX
from rdm_cli.data.sources.shards import WHOLE, Shard, parse_shard, shard_of_environment
from rdm_cli.errors import UsageError
from rdm_cli.jobs.batch import Outcome, Tally, Task, check_failures
from rdm_cli.jobs.results import OfImage, Result

if TYPE_CHECKING:
    from rdm_cli.data.sinks.outputs import Sink
    from rdm_cli.data.sources.source import Source
    from rdm_cli.jobs.job import Job

STDIN = "-"
R = TypeVar("R", bound=Result)


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
    column: str | None = None,
    output: str | None = None,
    as_tar: bool = False,
    shard: tuple[Shard, str] | None = None,
    manifest: str | None = None,
    suffixes: frozenset[str],
    result_suffix: str | None = None,
    stdin_suffix: str = ".safetensors",
    companions: tuple[str, ...] = (),
    spared: tuple[str, ...] = (),
) -> Iterator[Job]:
    """Find inputs, plan outputs, and find what cannot work before any work is done.

    ``column`` is that of the images in Parquet files. ``-`` among the inputs is one file on stdin; ``-o -``
    sends one result to stdout; an ``-o`` with a suffix of results is the file that the one result becomes;
    ``as_tar`` collects results in tar files. ``companions`` are the endings of
    what is written besides each result: what an earlier run left is no input, and those that are ``spared``
    must replace none. ``shard`` is the part that is done of all that is planned, with what asked for it;
    None: all. Without ``manifest`` a shard's lies in ``output``. Without ``result_suffix`` inputs are read
    and nothing is written beside them.
    """
    from rdm_cli.data.sinks.outputs import Beside, File, Itself
    from rdm_cli.data.sources.opening import sources_of
    from rdm_cli.data.sources.remote import local_name, writable_place
    from rdm_cli.jobs.job import plan_job

    given = list(inputs or [])
    if not given and files_from is None:
        raise UsageError("no inputs were given", hint="name files or folders, or use --files-from")
    with tempfile.TemporaryDirectory(prefix="rdm-") as scratch:
        names = {}
        if STDIN in given:
            if given != [STDIN] or files_from is not None:
                raise UsageError("- reads one file from stdin and goes with no other input")
            if output is None and result_suffix is not None:
                raise UsageError("an input from stdin has no place of its own", hint="add -o DIR or -o -")
            given = [str(_spooled(Path(scratch) / f"stdin{stdin_suffix}"))]
            names = {given[0]: STDIN}
        sources = sources_of(
            given,
            list_file=None if files_from is None else _list_file(files_from, Path(scratch)),
            suffixes=suffixes,
            results=() if result_suffix is None else (result_suffix, *companions),
            column=column,
        )
        mine, asked_by = shard or (WHOLE, "")
        to_stdout = output == STDIN
        one_file = output is not None and not to_stdout and _is_file(output, result_suffix)
        if one_file and as_tar:
            raise UsageError(f"-o {output} is one file, and --tar writes archives", hint="name a folder")
        if one_file:
            _refuse_several(f"-o {output}", sources)
        if names or to_stdout or one_file:
            if asked_by == "--shard":
                raise UsageError(f"{output if one_file else STDIN} is one file, and --shard divides many")
            mine = WHOLE
        if result_suffix is None:
            sink: Sink = Itself()
        elif output is None:
            _refuse_no_place(sources, as_tar)
            sink = Beside()
        else:
            place = local_name(str(Path(scratch) / "result") if to_stdout else output)
            if one_file:
                sink = File(writable_place(place), result_suffix)
            else:
                sink = _sink(place, as_tar=as_tar, verb=verb, shard=mine, sources=sources)
        job = plan_job(sources, sink, result_suffix or "", verb=verb, shard=mine, spared=spared, names=names)
        if to_stdout and job.num_items != 1:
            count = "a stream of them" if job.num_items is None else job.num_items
            raise UsageError(f"-o - takes one input, and there are {count}")
        if mine.count > 1:
            known = job.num_items is not None
            how_many = f": {job.part.num_items} of {job.num_items} items" if known else ""
            told = f"rdm: shard {mine}, by {asked_by}{how_many}"
            if asked_by == "--shard":
                console.note(told)
            else:
                say(f"{told}; --shard 1/1 does all")  # with --quiet too, for nobody asked for it
            if manifest is None and output is not None:
                manifest = f"{local_name(output).rstrip('/')}/{job.part.file_name}"

        def remark(source: str, text: str) -> None:
            console.note(f"rdm: {names.get(source, source)}: {text}")

        yield replace(job, to_stdout=to_stdout, manifest=manifest, remark=remark)


FOLDER_HINT = "name a folder for the results"


def _is_file(output: str, result_suffix: str | None) -> bool:
    """Whether ``-o`` is the file that the one result is to become; raises UsageError for another kind."""
    from rdm_cli.data.images.record import WRITTEN
    from rdm_cli.data.sinks.outputs import is_file_name

    if result_suffix is None:
        return False
    return is_file_name(output, (CODE_SUFFIX,) if result_suffix.endswith(CODE_SUFFIX) else WRITTEN)


def _refuse_several(option: str, sources: Sequence[Source]) -> None:
    """Raise UsageError where the inputs are other than one file."""
    from rdm_cli.data.sources.source import Local

    if folder := next((str(s.path) for s in sources if isinstance(s, Local) and s.path.is_dir()), None):
        raise UsageError(f"{option} is one file, and {folder} is a folder", hint=FOLDER_HINT)
    if not all(source.counted for source in sources):
        raise UsageError(f"{option} is one file, and archives and tables hold several", hint=FOLDER_HINT)
    if sum(1 for source in sources for _ in source.items()) > 1:
        raise UsageError(f"{option} is one file, and there are several inputs", hint=FOLDER_HINT)


def _spooled(path: Path) -> Path:
    """All of stdin as a file."""
    with naming(path), path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


def _list_file(files_from: str, scratch: Path) -> Path:
    """A list of paths that can be read more than once, which a pipe cannot."""
    if files_from == STDIN:
        return _spooled(scratch / "names")
    if not Path(files_from).is_file():
        names = scratch / "names"
        with naming(names), Path(files_from).open("rb") as file, names.open("wb") as copy:
            shutil.copyfileobj(file, copy)
        return names
    return Path(files_from)


def _sink(output: str, *, as_tar: bool, verb: str, shard: Shard, sources: Sequence[Source]) -> Sink:
    from rdm_cli.data.sinks.outputs import Folder, refuse_blocked
    from rdm_cli.data.sinks.tar import Tars
    from rdm_cli.data.sources.remote import RemoteFolder, is_url

    far = RemoteFolder(output) if is_url(output) else None
    if far is None:
        refuse_blocked(Path(output))
    if not as_tar:
        return far or Folder(Path(output))
    if sources[0].counted:
        return Tars(output, f"{verb}-{shard.label}")
    in_parts = shard.count > 1 and not all(source.whole for source in sources)
    return Tars(output, None, f"-{shard.label}" if in_parts else "")


def _refuse_no_place(sources: Sequence[Source], as_tar: bool) -> None:
    if as_tar:
        raise UsageError("--tar needs a folder for its archives", hint="add -o DIR")
    if not all(source.counted for source in sources):
        raise UsageError("what comes from an archive or a table has no place beside it", hint="add -o DIR")


def report(
    console: Console,
    job: Job,
    outcomes: Callable[[Callable[[float], None]], Iterator[Outcome[Task, R]]],
    *,
    verb: str,
    noun: str,
    failures: Path | None,
    describe: Callable[[R], str | None] = lambda result: result.output,
    each: Callable[[R], None] = lambda result: None,
    conclude: Callable[[], None] = lambda: None,
    as_one: bool = False,
    remarks: Callable[[], Sequence[str]] = lambda: (),
) -> None:
    """Run a job, print a line an item, sum up on stderr, and exit 1 or 3 where items failed.

    ``outcomes`` takes the progress bar's ``advance``; ``describe`` makes an item's line (None: no line);
    ``each`` gets the result of every item that was done, and ``conclude`` is called after the last.
    ``as_one``: all results are one file, which is there only when the last is done. ``remarks`` gives what
    else is to be said, once, above the sum.
    """
    if job.to_stdout and console.as_json:
        raise UsageError("-o - sends a file to stdout and --json sends JSON", hint="choose one of them")
    from rdm_cli.jobs.manifests import open_manifest

    if failures is not None:
        check_failures(failures)
    tally = Tally()
    complete = False
    try:
        with (
            open_manifest(job.manifest, job.part) as manifest,
            console.progress(verb, job.part.num_items, unit=f"{noun}s") as shown,
            _closing(job.sink),
        ):
            progress = _Progress(shown)
            for outcome in outcomes(progress.advance):
                progress.settle()
                name = outcome.item.name
                if outcome.error is not None:
                    # what came by stdin lies in a scratch file, whose name would tell nobody anything
                    error = outcome.error.replace(str(outcome.item.source), name)
                    if job.to_stdout:
                        error = error.replace(str(outcome.item.target), STDIN)
                    outcome = replace(outcome, error=error)
                    console.problem(f"rdm: {_named(name, error)}")
                tally.add(name, outcome)
                if manifest is not None:
                    manifest.add(outcome)
                job.settle(outcome)
                if (result := outcome.result) is None:
                    if console.as_json:
                        console.emit("", input=name, error=outcome.error)
                    continue
                each(result)
                if job.to_stdout:
                    console.emit_bytes(Path(result.output).read_bytes())
                elif (line := describe(result)) is not None:
                    console.emit(line, input=name, **result.as_json())
        complete = True
        conclude()
    finally:
        num_left: int | None = 0
        if not complete:
            tally.lose(tally.num_done if as_one or job.to_stdout else job.sink.num_unfinished)
            num_left = _num_left(job.part.num_items, tally)
        for line in remarks():
            console.note(line)
        said = str(job.passed_over)
        console.note(tally.summary(verb, noun, num_left=num_left) + (f", {said}" if said else ""))
        with closing(tally):
            if failures is not None:
                tally.write_failures(failures)
    if tally.exit_code:
        raise typer.Exit(tally.exit_code)


class Fitted:
    """Counts the images of another size than what their codes bring back, to say so once a run."""

    def __init__(self, fit: str) -> None:
        self._fit = fit
        self._num = self._num_other = 0
        self._first = ""

    def add(self, result: Result) -> None:
        """One image that was worked on."""
        if not isinstance(result, OfImage):
            return  # it was there already
        size, side = result.source_size, result.image_size
        self._num += 1
        if size != (side, side):
            self._num_other += 1
            self._first = self._first or f"{size[0]}x{size[1]} comes back as {side}x{side}"

    def remarks(self) -> list[str]:
        """A line, where there were such images."""
        if not self._num_other:
            return []
        return [
            f"rdm: a code brings back the fitted image, not the file: {self._first} (--fit {self._fit}); "
            f"{self._num_other} of {self._num} images had another size"
        ]


class _Progress:
    """A job's progress by network calls; an item that needed none (it failed) counts when it is settled."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        self._advance = advance
        self._told = 0.0
        self._num_settled = 0

    def advance(self, amount: float) -> None:
        """So many items' worth of work was done."""
        self._told += amount
        self._advance(amount)

    def settle(self) -> None:
        """What became of one item is known."""
        self._num_settled += 1
        self.advance(max(0.0, self._num_settled - self._told))


def _num_left(num_items: int | None, tally: Tally) -> int | None:
    if num_items is None:
        return None
    num_settled = tally.num_done + tally.num_skipped + tally.num_failed + tally.num_lost
    return max(0, num_items - num_settled)  # verify settles codes that are recorded and not there, too


@contextmanager
def _closing(sink: Sink) -> Iterator[None]:
    complete = False
    try:
        yield
        complete = True
    finally:
        sink.close(complete=complete)


def _named(name: str, error: str) -> str:
    is_named = f"{name}: " in error or f"{name}/: " in error  # folders are called with a slash
    return error if is_named else f"{name}: {error}"
