"""From the shipped bundles to docs/evidence.md, its figures, and those that README and cards quote.

    make evidence                      # all of it; about two hours on two cores
    make evidence PART="edits page"    # some of it
    make evidence PART=edits AGAIN=1   # what is kept is measured once more

Every study of every bundle is kept by itself in docs/figures/evidence, under the digests of all it rests on:
what is kept is not measured again, and a run that was stopped goes on with the next. Bundles that are not
shipped are left out by name. Images are drawn into runs/evidence, unless --held-out and --train name folders
of `rdm data avatars` of seeds 2 and 1 (for bundles of 128 px those beside them, whose names end in -128).
``--part page`` measures nothing: it writes page, plots and quoted figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from evidence.contenders import ALL, PDAE, PLAIN, Shelf, image_size_of, write_plain
from evidence.findings import Findings, read_findings
from evidence.page import page
from evidence.places import places, refuse_unmarked
from evidence.running import draw_plots, prepared, run
from evidence.store import Store
from evidence.studies import STUDIES
from evidence.study import FULL, TINY

from rdm_cli.bundles.places import assets_folder
from rdm_cli.console import Console, say
from rdm_cli.data.io.atomic import atomic_path
from rdm_cli.data.sinks.outputs import refuse_blocked
from rdm_cli.errors import RdmError, UsageError
from rdm_cli.runtime import set_up

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PARTS = ("material", *STUDIES, "page")


def write_page(findings: Findings, store: Store, docs: Path) -> None:
    """The page and its plots into ``docs``; and into README and cards, where those docs are the project's."""
    draw_plots(list(STUDIES.values()), store, {name: findings.measured(name) for name in STUDIES})
    with atomic_path(docs / "evidence.md") as temporary:
        temporary.write_text(page(findings, docs / "figures"), encoding="utf-8")
    say(str(docs / "evidence.md"))
    if docs != DOCS:
        return
    for place in places(findings, ROOT):
        place.fill()
        say(f"{place.page}: figures filled in")


def make(
    parts: list[str],
    docs: Path,
    bundles: Path,
    work: Path,
    held_out: Path | None,
    train: Path | None,
    tiny: bool,
    again: bool = False,
) -> None:
    """Do the ``parts``; raises RdmError."""
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise UsageError(f"--part {unknown[0]}: there is no such part", hint=f"known: {', '.join(PARTS)}")
    if tiny and docs == DOCS:
        raise UsageError("--tiny: figures of a few images are none for docs/", hint="name another --output")
    if not bundles.is_dir():
        raise UsageError(f"--bundles {bundles}: no such folder")
    for folder in (docs, work):
        refuse_blocked(folder)
    if docs == DOCS:
        refuse_unmarked(ROOT)
    set_up()
    console = Console()
    sizes = TINY if tiny else FULL
    shelf = Shelf(bundles=bundles, work=work, batch_size=sizes.batch_size)
    store = Store(folder=docs / "figures" / "evidence")
    failed: list[str] = []
    studies = [study for name, study in STUDIES.items() if name in parts]
    if studies or "material" in parts:
        image_sizes = sorted({image_size_of(name) for name in ALL if shelf.is_shipped(name)})
        benches = {size: prepared(held_out, train, work, sizes, console, size) for size in image_sizes}
        if "material" in parts and shelf.is_shipped(PLAIN):
            write_plain(bundles / PDAE, work / PLAIN)
        failed = run(studies, benches, shelf, store, sizes, console, again=again)
    write_page(read_findings(store, shelf, list(STUDIES.values()), docs / "figures"), store, docs)
    if failed:
        raise RdmError(
            f"{len(failed)} failed: {'; '.join(failed)}", hint="see above; what was measured is kept"
        )


def main(
    part: Annotated[
        list[str] | None, typer.Option(help=f"Any of: {', '.join(PARTS)}. All without it.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="In place of docs/.")] = DOCS,
    bundles: Annotated[
        Path | None,
        typer.Option(help="A folder with bundles of the shipped names.", show_default="shipped ones"),
    ] = None,
    work: Annotated[Path, typer.Option(help="For images and the plain DPM.")] = ROOT / "runs" / "evidence",
    held_out: Annotated[
        Path | None, typer.Option(help="Labelled avatars of seed 2.", show_default="drawn")
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="Labelled avatars of seed 1.", show_default="drawn")
    ] = None,
    tiny: Annotated[bool, typer.Option(help="A few images and steps, to see that all of it runs.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Measure what is kept once more.")] = False,
) -> None:
    """Measure what is not yet kept, and write the page."""
    try:
        make(
            part or list(PARTS),
            output.resolve(),
            (bundles or assets_folder() / "bundles").resolve(),
            work,
            held_out,
            train,
            tiny,
            again,
        )
    except RdmError as error:
        say(f"error: {error}")
        raise typer.Exit(error.exit_code) from None


if __name__ == "__main__":
    typer.run(main)
