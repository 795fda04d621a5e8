"""rdm attributes: what a bundle can move, and how it gets more of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rdm_cli import completion
from rdm_cli import options as o
from rdm_cli.commands.opening import open_on
from rdm_cli.console import Console
from rdm_cli.errors import UsageError
from rdm_cli.help_page import App
from rdm_cli.option_groups import spread

if TYPE_CHECKING:
    from rdm_cli.bundles.bundle import Bundle
    from rdm_cli.methods.directions import Directions
    from rdm_cli.methods.transport import Transports

app = App(
    no_args_is_help=True,
    help="""The attributes that a bundle can move: list, learn, add, rename, remove, pass on, discover.

Examples:
    rdm attributes list
    rdm attributes learn cap --with caps/ --without others/ -o my-bundle
""",
)

FILE_SUFFIX = ".safetensors"
"""What ends in it is one file of attributes; all else is a bundle."""

Name = Annotated[str, typer.Argument(help="The attribute's name.", autocompletion=completion.attributes)]
OtherBundle = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="PLACE", help="A new bundle: a copy with this change.",
        show_default="the bundle itself; those that come with rdm stay as they are",
    ),
]  # fmt: skip
NewAttributes = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="PLACE",
        help="A new bundle that has it besides, or FILE.safetensors for the attribute alone.",
        show_default="the bundle itself; those that come with rdm stay as they are",
    ),
]  # fmt: skip


@app.command("list")
def list_attributes(
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    as_json: o.Json = False,
) -> None:
    """List a bundle's attributes with their held-out scores.

    "added" is the scale of rdm manipulate from which the classifier sees the attribute in half, and in nine
    of ten, of the codes that lack it; "removed" is that from which it does so no more where it was.

    Examples:
        rdm attributes list
        rdm attributes list -b avatars64-pdae --json
    """
    console = Console(as_json=as_json)
    from rdm_cli.bundles.bundle import open_bundle

    directions = open_bundle(bundle).directions
    rows = []
    for name in directions.names:
        score: Any = directions.scores.get(name, {})
        if as_json:
            console.emit("", attribute=name, **score)
        cells = [_cell(score.get(key)) for key in ("auroc", "average_precision", "num_positive")]
        for way in ("added", "removed"):
            known = [score.get(f"{way}_in_{share}") for share in ("half", "nine_tenths")]
            cells.append("" if None in known else " ".join(f"{scale:+.2f}" for scale in known))
        rows.append([name, *cells])
    if not as_json:
        columns = ["attribute", "AUROC", "AP", "positives", "added", "removed"]
        console.table(f"attributes of {bundle}", columns, rows)
    for line in filter(None, map(directions.doubts, directions.names)):
        console.problem(f"rdm: {line}")


@app.command("show")
def show_attribute(
    name: Annotated[str, typer.Argument(help="The attribute's name.", autocompletion=completion.attributes)],
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="How many related attributes.")] = 5,
    as_json: o.Json = False,
) -> None:
    """Show one attribute: its scores, and which others its direction moves along with it.

    Examples:
        rdm attributes show smiling
        rdm attributes show smiling -b avatars64-pdae --top 10
    """
    console = Console(as_json=as_json)
    from rdm_cli.bundles.bundle import open_bundle

    directions = open_bundle(bundle).directions
    directions.index(name)
    related = directions.cosines(name)[:top]
    score: Any = directions.scores.get(name, {})
    if doubts := directions.doubts(name):
        console.problem(f"rdm: {doubts}")
    if as_json:
        console.emit("", attribute=name, **score, related=dict(related))
        return
    rows = [[key, _cell(value)] for key, value in score.items()]
    rows += [[f"cosine with {other}", _cell(cosine)] for other, cosine in related]
    console.table(name, ["", ""], rows)


@app.command("learn")
@spread
def learn(
    name: Annotated[str, typer.Argument(help="What the attribute is to be called.")],
    having: Annotated[
        Path,
        typer.Option("--with", metavar="PLACE", help="Five pictures, or codes, or more that have it."),
    ],
    without: Annotated[
        Path | None, typer.Option("--without", metavar="PLACE", help="Pictures or codes that lack it.")
    ] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option("--unlabelled", metavar="PLACE", help="Instead: those of which nothing is known."),
    ] = None,
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    output: NewAttributes = None,
    seed: o.Seed = 0,
    *,
    images: o.Images,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Learn an attribute from a handful of pictures with it and a handful without.

    The pictures choose among what the bundle knows of its codes: its attributes, and the concepts that rdm
    attributes discover found. Each picture is left out once: the score says how well the others tell it.

    Examples:
        rdm attributes learn cap --with caps/ --without others/ -o my-bundle
        rdm attributes learn cap --with caps/ --unlabelled photos/ -o cap.safetensors
    """
    if (without is None) == (unlabelled is None):
        raise UsageError("one of --without and --unlabelled is needed")
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    pipeline = open_on(machine, bundle, images, console.remark)
    known, transports = pipeline.bundle.attributes
    _refuse_name(name, known)
    _refuse_place(pipeline.bundle, output)
    from rdm_cli.jobs.learning import learn_from_pictures
    from rdm_cli.methods.transport import Transports

    done = learn_from_pictures(pipeline, name, having, without=without, unlabelled=unlabelled, seed=seed)
    learned = done.learned
    for line in done.remarks:
        console.problem(f"rdm: {line}")
    beside = Transports(hidden={name: learned.companions})
    place = _kept(pipeline.bundle, known, transports, learned.directions, beside, output)
    score = learned.directions.scores[name]
    told = f"{name}\tAUROC {learned.auroc} by leaving each picture out\t{place}"
    if learned.nearest is not None:
        told += f"\tgoes with {learned.nearest} ({learned.agreement:+.2f})"
    console.emit(
        told,
        attribute=name,
        **score,
        auroc_interval=[learned.auroc.low, learned.auroc.high],
        nearest=learned.nearest,
        agreement=learned.agreement if learned.nearest is not None else None,
        output=str(place),
    )
    if learned.is_chance:
        console.problem(
            f"rdm: '{name}': {done.num_with} pictures with it and {done.num_without} beside them are too "
            "few: one that is left out is told no better than by chance; give more pictures"
        )


@app.command("add")
def add(
    codes: Annotated[Path, typer.Argument(help="Folder of codes, from rdm encode (--no-x-t will do).")],
    labels: Annotated[
        Path, typer.Option("--labels", metavar="FILE", help="metadata.csv, metadata.jsonl, or a CelebA list.")
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Labels to add.", show_default="all of the table"),
    ] = None,
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    output: NewAttributes = None,
    seed: o.Seed = 0,
    as_json: o.Json = False,
) -> None:
    """Fit attributes to a table of labels, and put them beside those that the bundle has.

    One that the bundle has already stays as it is, and is refused. rdm train attributes replaces such ones.

    Examples:
        rdm attributes add codes/ --labels metadata.csv -b my-bundle
        rdm attributes add codes/ cap --labels metadata.csv -o cap.safetensors
    """
    console = Console(as_json=as_json)
    from rdm_cli.bundles.bundle import open_bundle
    from rdm_cli.training.run.on_codes import fit_bundle_attributes

    opened = open_bundle(bundle)
    known, transports = opened.attributes
    for name in names or ():
        _refuse_name(name, known)
    _refuse_place(opened, output)
    fitted = fit_bundle_attributes(opened, codes, labels, only=names or (), seed=seed, note=console.note)
    for name in fitted.fit.directions.names:
        _refuse_name(name, known)
    for name, reason in fitted.fit.skipped.items():
        console.problem(f"rdm: {name} left out: {reason}")
    for line in filter(None, map(fitted.fit.directions.doubts, fitted.fit.directions.names)):
        console.problem(f"rdm: {line}")
    for line in fitted.remarks:
        console.problem(f"rdm: {labels.name}: {line}")
    place = _kept(opened, known, transports, fitted.fit.directions, fitted.transports, output)
    for name, score in fitted.fit.directions.scores.items():
        console.emit(
            f"{name}\tAUROC {score['auroc']:.4f}\t{place}", attribute=name, **score, output=str(place)
        )


@app.command("rename")
def rename(
    name: Name,
    new: Annotated[str, typer.Argument(metavar="NEW", help="What it is to be called.")],
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    output: OtherBundle = None,
    as_json: o.Json = False,
) -> None:
    """Give an attribute another name, by which a prior that was told of it knows it from then on.

    Examples:
        rdm attributes rename concept-007 cap -b my-bundle
        rdm attributes rename smiling happy -b avatars64-diffae -o my-bundle
    """

    def names(known: Directions) -> dict[str, str]:
        known.index(name)
        _refuse_name(new, known)
        return {one: new if one == name else one for one in known.names}

    _changed(bundle, output, names, as_json, attribute=new)


@app.command("remove")
def remove(
    gone: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Attributes.", autocompletion=completion.attributes),
    ],
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    output: OtherBundle = None,
    as_json: o.Json = False,
) -> None:
    """Take attributes out of a bundle; the others stay as they are.

    Examples:
        rdm attributes remove cap -b my-bundle
        rdm attributes remove eyepatch headscarf -b avatars64-diffae -o my-bundle
    """

    def names(known: Directions) -> dict[str, str]:
        for name in gone:
            known.index(name)
        return {one: one for one in known.names if one not in gone}

    _changed(bundle, output, names, as_json, removed=gone)


@app.command("export")
def export_attributes(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Attributes.", autocompletion=completion.attributes),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="FILE.safetensors.")],
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    as_json: o.Json = False,
) -> None:
    """Write attributes into one small file, for others who use the same bundle.

    Examples:
        rdm attributes export smiling glasses -o two.safetensors
        rdm attributes export cap -b my-bundle -o cap.safetensors
    """
    console = Console(as_json=as_json)
    if output.suffix != FILE_SUFFIX:
        raise UsageError(f"{output}: a file of attributes ends in {FILE_SUFFIX}")
    from rdm_cli.bundles.attribute_files import write_attribute_file
    from rdm_cli.bundles.bundle import open_bundle

    opened = open_bundle(bundle)
    chosen = {name: name for name in names}
    write_attribute_file(output, opened, opened.directions.select(chosen), opened.transports.select(chosen))
    console.emit(str(output), output=str(output), bundle=opened.name, attributes=list(chosen))


@app.command("import")
def import_attributes(
    file: Annotated[Path, typer.Argument(help="A file of attributes.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME|NAME=NEW", help="Those to take, and as what.", show_default="all"),
    ] = None,
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    output: OtherBundle = None,
    as_json: o.Json = False,
) -> None:
    """Put attributes from a file beside those that a bundle has: this bundle's, or those of a copy of it.

    Examples:
        rdm attributes import cap.safetensors -b my-bundle
        rdm attributes import directions.safetensors concept-007=cap -b my-bundle
    """
    console = Console(as_json=as_json)
    from rdm_cli.bundles.attribute_files import read_attribute_file
    from rdm_cli.bundles.bundle import open_bundle

    opened = open_bundle(bundle)
    opened.require_z("attributes")
    known, transports = opened.attributes
    found, maps = read_attribute_file(file, opened)
    chosen = _pairs(names) if names else {name: name for name in found.names}
    added = found.select(chosen)
    for name in added.names:
        _refuse_name(name, known)
    _refuse_place(opened, output)
    place = _kept(opened, known, transports, added, maps.select(chosen), output)
    for name in added.names:
        console.emit(f"{name}\t{place}", attribute=name, output=str(place))


@app.command("discover")
@spread
def discover(
    codes: Annotated[Path, typer.Argument(help="Folder of codes, from rdm encode (--no-x-t will do).")],
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    num: Annotated[int, typer.Option("--n", metavar="N", min=1, help="How many directions to show.")] = 12,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the sheets and the directions.")
    ] = Path("discovered"),
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Put all that is found into the bundle, for rdm attributes learn."),
    ] = False,
    steps: o.Steps = None,
    tile: o.TilePixels = 128,
    seed: o.Seed = 0,
    *,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Find directions in which codes fall into two kinds, without labels.

    Writes a sheet a direction, of faces that are moved from lacking it to having it, to see what it is, and
    directions.safetensors, from which rdm attributes import takes those that deserve a name.

    Examples:
        rdm attributes discover codes/ -o found/
        rdm attributes discover codes/ -b my-bundle --n 40 -o found/ --keep
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    from rdm_cli.bundles.attribute_files import write_attribute_file
    from rdm_cli.bundles.writing import add_concepts, refuse_read_only
    from rdm_cli.data.sinks.outputs import refuse_blocked
    from rdm_cli.jobs.learning import write_sheets
    from rdm_cli.methods.concepts import different
    from rdm_cli.methods.transport import Transports
    from rdm_cli.pipeline.pipeline import open_pipeline
    from rdm_cli.runtime import set_up
    from rdm_cli.training.run.on_codes import discover_concepts

    pipeline = open_pipeline(
        bundle,
        device=set_up(device=machine.device, threads=machine.threads),
        precision=machine.precision,
        batch_size=machine.batch_size,
    )
    opened = pipeline.bundle
    if keep:
        refuse_read_only(opened)
    file = output / f"directions{FILE_SUFFIX}"
    refuse_blocked(output)
    if file.exists():
        raise UsageError(f"{file} exists", hint="name another folder with -o")
    with console.progress("looking", 1.0, unit="of the work") as advance:
        concepts, z = discover_concepts(opened, codes, seed=seed, advance=advance, note=console.note)
    chosen = different(concepts, z, num)
    shown = concepts.select({name: name for name in chosen})
    write_attribute_file(file, opened, shown, Transports())
    shares = shown.logits(z).gt(0).float().mean(dim=0).tolist()
    with console.progress("drawing", len(chosen), unit="sheets") as advance:
        for (name, place), share in zip(
            write_sheets(pipeline, shown, z, output, steps=steps, tile=tile, seed=seed, advance=advance),
            shares,
            strict=True,
        ):
            told = f"{place}\t{share:.0%} of the codes have it"
            console.emit(told, direction=name, share=share, output=str(place))
    if keep:
        add_concepts(opened, concepts)
    console.note(
        f"{len(concepts.names)} directions found, {len(chosen)} shown -> {file}"
        + (f"; all are in {opened.folder / 'concepts'}" if keep else "")
    )


def _pairs(names: Sequence[str]) -> dict[str, str]:
    """NAME and NAME=NEW as what is taken, and what it is called."""
    found: dict[str, str] = {}
    for word in names:
        old, equals, new = word.partition("=")
        if old in found:
            raise UsageError(f"{old} is named twice")
        found[old] = new if equals else old
    if len(set(found.values())) < len(found):
        raise UsageError("two attributes would have one name")
    return found


def _refuse_name(name: str, known: Directions | None) -> None:
    """Raise UsageError for a name that cannot be, or that the bundle has already."""
    if not name or name != name.strip() or any(c in name for c in "=,") or not name.isprintable():
        raise UsageError(f"{name!r} cannot be an attribute's name", hint="take letters, digits and _")
    if known is not None and name in known.names:
        raise UsageError(
            f"the bundle has an attribute '{name}' already",
            hint=f"take another name, or make room: rdm attributes rename {name} NEW",
        )


def _refuse_place(bundle: Bundle, output: Path | None) -> None:
    """Raise UsageError, before any work, where the result could not be written."""
    from rdm_cli.bundles.writing import refuse_read_only

    if output is not None:
        if output.exists() and not (output.is_dir() and not any(output.iterdir())):
            raise UsageError(f"{output} exists", hint="name another place with -o")
        return
    try:
        refuse_read_only(bundle)
    except UsageError as error:
        raise UsageError(error.message, hint="name a new bundle for the result: -o my-bundle") from None


def _kept(
    bundle: Bundle,
    known: Directions | None,
    transports: Transports,
    new: Directions,
    new_transports: Transports,
    output: Path | None,
) -> Path:
    """Write new attributes: into a file alone, or beside the known ones; returns where they are."""
    from rdm_cli.bundles.attribute_files import write_attribute_file
    from rdm_cli.bundles.writing import write_attributes

    if output is not None and output.suffix == FILE_SUFFIX:
        write_attribute_file(output, bundle, new, new_transports)
        return output
    joined = new if known is None or not known.names else known.updated(new)
    return write_attributes(bundle, joined, transports.updated(new_transports), output)


def _changed(
    name: str,
    output: Path | None,
    names: Callable[[Directions], Mapping[str, str]],
    as_json: bool,
    **told: Any,
) -> None:
    """Write the attributes that ``names`` leaves of the bundle's, under the names that it gives."""
    console = Console(as_json=as_json)
    from rdm_cli.bundles.bundle import open_bundle
    from rdm_cli.bundles.writing import write_attributes

    opened = open_bundle(name)
    chosen = names(opened.directions)
    _refuse_place(opened, output)
    place = write_attributes(
        opened,
        opened.directions.select(chosen),
        opened.transports.select(chosen),
        output,
        renamed={old: new for old, new in chosen.items() if old != new},
    )
    console.emit(str(place), **told, output=str(place))


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
