"""rdm codes search, index: the codes nearest to an image, or of which words hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rdm_cli import completion
from rdm_cli import options as o
from rdm_cli.commands.codes_opening import opened_collection, opener, tell_left_out
from rdm_cli.commands.codes_sheet import check_sheet, write_sheet
from rdm_cli.console import Console
from rdm_cli.option_groups import spread

if TYPE_CHECKING:
    from rdm_cli.jobs.search import Answer


@spread
def search(
    place: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE|FOLDER|INDEX",
            help="A table of codes, a folder, or an index.",
            show_default=False,
        ),
    ],
    queries: Annotated[
        list[str],
        typer.Argument(
            metavar="QUERY...",
            help="Images, codes, sample:SEED[:NUMBER], and words such as 'glasses and not hat'.",
            show_default=False,
        ),
    ],
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, max=10_000, help="How many codes.")] = 20,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            metavar="NAME",
            help="Compare in this attribute alone; repeat it.",
            show_default="the whole z",
            autocompletion=completion.attributes,
        ),
    ] = None,
    bundle: o.BundleOfCodes = None,
    *,
    pictures: o.CodePictures,
    images: o.Images,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Find the codes nearest to images, codes or samples, or those of which words hold.

    Nearest is the cosine of z, standardised by the bundle's training codes; with --by it is the distance of
    the classifiers' logits. Several images ask for what is like all of them. Words are attributes with and,
    or, not and parentheses, read by the bundle's classifiers on z; beside an image, they choose among what is
    near. Without an index, the codes are read one after the other, in little memory.

    Examples:
        rdm codes search z.parquet photo.png --top 20 --sheet near.png
        rdm codes search codes/ photo.png "glasses and not hat"
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    check_sheet(pictures)
    from rdm_cli.collection.index import Index, is_index
    from rdm_cli.jobs.search import doubts_of, pipeline_for, read_query, search_index, search_rows

    index = Index(place) if is_index(place) else None
    collection = None if index is not None else opened_collection(console, place)
    codes = index or collection
    assert codes is not None
    opened = opener(codes, bundle, console, machine, images)
    if bundle is not None:
        pipeline_for(codes, opened)
    query = read_query(queries, codes, opened)
    if index is not None:
        answer = search_index(index, query, top, by=by or ())
        if index.remark is not None:
            console.problem(f"rdm: {place}: {index.remark}")
    else:
        assert collection is not None
        with console.progress("searching", collection.num_rows, unit="codes") as advance:
            answer = search_rows(collection, query, top, opened, by=by or (), advance=advance)
    for line in doubts_of(query, by or (), opened):
        console.problem(f"rdm: {line}")
    _tell(console, answer)
    write_sheet(
        console,
        pictures,
        images,
        [(hit.name, hit.path, f"{answer.kind} {hit.score:.3f}") for hit in answer.hits],
        place=place,
        opened=opened,
        record={"what": "search", "queries": queries, "by": by},
        asked=query.files,
    )
    if collection is not None:
        tell_left_out(console, collection)


def _tell(console: Console, answer: Answer) -> None:
    if console.as_json:
        for rank, hit in enumerate(answer.hits, 1):
            console.emit("", rank=rank, name=hit.name, path=hit.path, **{answer.kind: hit.score})
    elif answer.hits:
        rows = [[h.name, h.path, f"{h.score:.4f}"] for h in answer.hits]
        console.table("", ["name", "path", answer.kind], rows, num_words=2)
    console.note(f"rdm: {answer.told}")


@spread
def index(
    place: o.CodesPlace,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="INDEX", help="The folder of the index.", show_default=False),
    ],
    bundle: o.BundleOfCodes = None,
    *,
    machine: o.Processor,
    voice: o.Voice,
) -> None:
    """Make an index, by which codes search finds the nearest of a million codes in milliseconds.

    The same command brings it up to date: new codes are added, those that have changed or are gone are
    replaced. What a kill interrupts goes on from the last 65,536 codes. Needs the extra search.

    Examples:
        rdm codes index z.parquet -o z.index
        rdm codes index codes/ -o z.index --threads 2
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    from rdm_cli.collection.index import build_index, usearch_index
    from rdm_cli.jobs.search import pipeline_for, space_for

    usearch_index()  # where it is not there, that is said before any work
    collection = opened_collection(console, place)
    whole = o.Machine(device=machine.device, threads=machine.threads)
    opened = opener(collection, bundle, console, whole, o.Images())
    if bundle is not None:
        pipeline_for(collection, opened)
    with console.progress("indexing", collection.num_rows, unit="codes") as advance:
        built = build_index(
            collection,
            output,
            lambda: space_for(collection, opened),
            threads=machine.threads or 0,
            advance=advance,
        )
    counts = {"known": built.num_known, "added": built.num_added, "replaced": built.num_stale}
    console.emit(str(output), output=str(output), **counts)
    console.note(
        f"rdm: {built.num_known} codes were there, {built.num_added} are new"
        + (f", {built.num_stale} had changed or are gone" if built.num_stale else "")
    )
    tell_left_out(console, collection)
