"""rdm codes: what batch jobs have left: how far they are, whether it is in order, and all in one table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rdm_cli import options as o
from rdm_cli.commands import codes_judging, codes_map, codes_search
from rdm_cli.commands.batch_job import planned_job, report, shard_asked_for
from rdm_cli.console import Console
from rdm_cli.data.sources.folders import CODE_SUFFIXES
from rdm_cli.errors import BundleError, RdmError, UsageError
from rdm_cli.help_page import App
from rdm_cli.option_groups import spread

if TYPE_CHECKING:
    from rdm_cli.codes.code import CodeInfo
    from rdm_cli.jobs.batch import Outcome, Task
    from rdm_cli.jobs.results import Result
    from rdm_cli.methods.directions import Directions

app = App(
    no_args_is_help=True,
    help="""Many codes: how far their job is, one table of all, search, a map, what does not belong.

Examples:
    rdm codes status codes/
    rdm codes search codes/ photo.png --top 20
""",
)
app.command("search")(codes_search.search)
app.command("index")(codes_search.index)
app.command("map")(codes_map.map_codes)
app.command("odd")(codes_judging.odd)
app.command("twins")(codes_judging.twins)

TABLE = ".parquet"
Manifests = Annotated[
    list[str], typer.Argument(help="Folders with manifests, or manifests.", show_default=False)
]


@app.command("status")
def status_of_jobs(
    manifests: Manifests,
    failed: Annotated[
        bool, typer.Option("--failed", help="List the inputs that failed instead, for --files-from.")
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Say how much of each shard is done, failed and left.

    Exits with 0 where all is done, 1 where nothing is, and 3 in between. Where a job was run in 4 shards and
    later in 8, the later are counted.

    Examples:
        rdm codes status codes/
        rdm codes status codes/ --failed > again.txt
    """
    console = Console(as_json=as_json)
    from rdm_cli.jobs.manifests import found_manifests
    from rdm_cli.jobs.verify import failures, statuses

    with found_manifests(manifests) as found:
        if failed:
            for record in failures(list(found)):
                console.emit(record.input, input=record.input, error=record.error)
            return
        parts = statuses(list(found))
    rows = []
    for part in parts:
        counts = {"items": part.num_items, "done": part.num_done, "failed": part.num_failed}
        counts |= {"left": part.num_left, "torn": part.num_torn}
        where = None if part.manifest is None else found[part.manifest]
        if as_json:
            what = {"verb": part.verb, "shard": str(part.shard)}
            console.emit("", **what, **counts, manifest=where, counted=part.is_counted)
        cells = ["?" if count is None else str(count) for count in counts.values()]
        told = (where or "no manifest: not begun") + ("" if part.is_counted else " (not counted)")
        rows.append([part.verb, str(part.shard), *cells, told])
        if part.is_counted and part.num_others:
            console.note(
                f"rdm: {where}: records {part.num_others} inputs that its last run did not have: of another "
                "job, or removed"
            )
    if not as_json:
        console.table("", ["job", "shard", "items", "done", "failed", "left", "torn", "manifest"], rows)
    for verb in sorted({part.verb for part in parts if not part.is_counted}):
        counts_of = {is_counted: set[int]() for is_counted in (True, False)}
        for part in parts:
            if part.verb == verb:
                counts_of[part.is_counted].add(part.shard.count)
        (latest,), others = counts_of[True], sorted(counts_of[False])
        console.note(
            f"rdm: {verb}: manifests of several shardings; the latest, in {latest}, is counted, and those in "
            f"{' and '.join(map(str, others))} are not; delete the manifests of a sharding that is over"
        )
    counted = [part for part in parts if part.is_counted]
    if not all(part.is_complete for part in counted):
        raise typer.Exit(3 if any(part.num_done for part in counted) else 1)


@app.command("verify")
@spread
def verify(
    inputs: o.Inputs = None,
    manifest: Annotated[
        list[str] | None,
        typer.Option("--manifest", metavar="FILE", help="Manifests that lie elsewhere.", show_default=False),
    ] = None,
    *,
    work: o.Work,
    voice: o.Voice,
) -> None:
    """Read every code, and compare it with the digest that the manifest beside it records.

    A code that is recorded and not there fails too.

    Examples:
        rdm codes verify codes/
        rdm codes verify codes/ --failures damaged.jsonl
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    from rdm_cli.jobs.manifests import found_manifests
    from rdm_cli.jobs.verify import verify_codes

    with (
        planned_job(
            console, "verify", inputs, files_from=work.files_from, column=work.column, suffixes=CODE_SUFFIXES
        ) as job,
        found_manifests(inputs or [], required=False) as beside,
        found_manifests(manifest or [], required=bool(manifest)) as named,
    ):
        report(
            console,
            job,
            lambda advance: verify_codes(job.tasks, [*beside, *named]),
            verb="verified",
            noun="code",
            failures=work.failures,
        )


@app.command("merge")
def merge(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Manifests, folders with manifests, or tables.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="What to write.")],
    as_json: o.Json = False,
) -> None:
    """Make one manifest of the shards' manifests, or one table of their tables.

    Of an input that several manifests know, the last record is kept. Tables are .parquet files, or the
    folders of such files that rdm encode -o z.parquet makes.

    Examples:
        rdm codes merge codes/ -o manifest.jsonl
        rdm codes merge z-1.parquet z-2.parquet -o z.parquet
    """
    console = Console(as_json=as_json)
    tables = [name.endswith(TABLE) for name in [*inputs, str(output)]]
    if all(tables):
        from rdm_cli.jobs.table import merge_tables

        rows = merge_tables([path for name in inputs for path in _tables_in(Path(name))], output)
        console.emit(str(output), output=str(output), rows=rows)
        return
    if any(tables):
        raise UsageError("tables and manifests do not mix", hint=f"tables are those that end in {TABLE}")
    from rdm_cli.jobs.manifests import found_manifests
    from rdm_cli.jobs.verify import merge_manifests

    with found_manifests(inputs) as found:
        made = merge_manifests(list(found), output)
    console.emit(str(output), output=str(output), done=made.num_done, failed=made.num_failed)


def _tables_in(place: Path) -> list[Path]:
    """The files of a table that is a folder; another is one file."""
    return sorted(place.glob(f"*{TABLE}")) if place.is_dir() else [place]


@app.command("table")
@spread
def table(
    inputs: o.Inputs = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The .parquet file to write.")
    ] = None,
    shard: o.Shard = None,
    bundle: o.BundleOfCodes = None,
    *,
    work: o.Work,
    voice: o.Voice,
) -> None:
    """Write the z of codes, and what they record, as a table for pandas, DuckDB and others.

    Columns: name, path, z (a list of fixed length), bundle, source, class_name, psnr_db and more; where the
    bundle is here and has attributes, p_NAME: the probability of each. x_T is not read.

    Examples:
        rdm codes table codes/ -o z.parquet
        rdm codes table codes/ --shard 1/4 -o z-1.parquet
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    if output is None:
        raise UsageError("a table needs a file to be written to", hint=f"add -o z{TABLE}")
    if output.suffix != TABLE:
        name = output.with_suffix(TABLE) if output.name else f"z{TABLE}"
        raise UsageError(
            f"-o {output}: tables are Parquet files, which end in {TABLE}", hint=f"use -o {name}"
        )
    asked = shard_asked_for(shard) if shard else None
    with planned_job(
        console,
        "table",
        inputs,
        files_from=work.files_from,
        column=work.column,
        suffixes=CODE_SUFFIXES,
        shard=asked,
    ) as job:
        from rdm_cli.jobs.table import check_output, write_table

        check_output(output)  # before any work
        rows = 0

        def attributes(info: CodeInfo) -> Directions | None:
            from rdm_cli.bundles.bundle import open_bundle

            try:
                opened = open_bundle(bundle or info.bundle, fetches=bundle is not None)
                if opened.digest != info.bundle_digest:
                    raise BundleError(f"{opened.name} is not the bundle that made these codes")
                return opened.directions
            except RdmError as error:
                console.note(f"rdm: {output}: without probabilities of attributes: {error}")
                return None

        def outcomes(_: object) -> Iterator[Outcome[Task, Result]]:
            return write_table(job.tasks, output, attributes)

        def count(_: object) -> None:
            nonlocal rows
            rows += 1

        report(
            console,
            job,
            outcomes,
            verb="tabled",
            noun="code",
            failures=work.failures,
            describe=lambda data: None,
            each=count,
            conclude=lambda: console.emit(str(output), output=str(output), rows=rows),
            as_one=True,
        )
