"""rdm codes map: a collection in two dimensions, as a page."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rdm_cli import options as o
from rdm_cli.commands.codes_opening import opened_collection, opener, tell_left_out, tell_once
from rdm_cli.console import Console
from rdm_cli.errors import BundleError, UsageError
from rdm_cli.option_groups import spread

if TYPE_CHECKING:
    from PIL.Image import Image

    from rdm_cli.methods.directions import Directions

Layout = Literal["pca", "umap"]
"""How codes come into two dimensions."""


@spread
def map_codes(
    place: o.CodesPlace,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="The HTML file.", show_default=False),
    ],
    layout: Annotated[
        Layout,
        typer.Option("--layout", help="pca: at once; umap: by neighbours, in minutes, with the extra map."),
    ] = "pca",
    table: Annotated[
        Path | None,
        typer.Option("--table", metavar="FILE", help="Write the table again, with x and y, to this file."),
    ] = None,
    points: Annotated[
        int, typer.Option("--points", metavar="N", min=3, help="Show at most N codes, drawn by --seed.")
    ] = 50_000,
    originals: o.Originals = None,
    decode: Annotated[
        int,
        typer.Option("--decode", metavar="N", min=0, help="Decode up to N codes whose image is not there."),
    ] = 0,
    megabytes: Annotated[
        float,
        typer.Option("--megabytes", metavar="MB", min=0, max=500, help="Pictures in the page, at most."),
    ] = 20.0,
    seed: o.Seed = 0,
    bundle: o.BundleOfCodes = None,
    force: o.Force = False,
    *,
    images: o.Images,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Draw codes as points of one HTML page, coloured by attribute, with their pictures.

    The page asks for nothing outside and can be sent. Codes are standardised by the bundle's training codes.
    Pictures are the images under --images, small; a page of more codes than its megabytes hold has those of
    some.

    Examples:
        rdm codes map z.parquet -o map.html --images faces/ --table placed.parquet
        rdm codes map codes/ -o map.html --decode 200
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"-o {output}: maps are HTML files", hint=f"use -o {output.with_suffix('.html')}")
    from rdm_cli.collection.projection import pca_plane, umap_plane
    from rdm_cli.collection.rows import TABLE
    from rdm_cli.data.images.pixels import load_rgb
    from rdm_cli.data.io.atomic import write_whole
    from rdm_cli.jobs.map import map_points, mapped_rows, refuse_there, write_placed
    from rdm_cli.jobs.row_pictures import pictures_of
    from rdm_cli.jobs.search import pipeline_for, space_for
    from rdm_cli.reports.html_page import refuse_other_page
    from rdm_cli.reports.map_page import map_page

    if table is not None:
        if place.is_dir() or table.suffix != TABLE:
            raise UsageError(f"--table {table}: x and y go into a table of a table, {TABLE} of {TABLE}")
        refuse_there(table)
    if not force:
        refuse_other_page(output)
    collection = opened_collection(console, place)
    opened = opener(collection, bundle, console, machine, images)
    directions: Directions | None = None
    if bundle is not None or decode:
        pipeline_for(collection, opened)
    with suppress(BundleError):
        directions = pipeline_for(collection, opened).bundle.directions
    if directions is None:
        console.note(f"rdm: {place}: not coloured: its bundle, or the bundle's attributes, is not here")
    space = space_for(collection, opened)
    with console.progress("placing", collection.num_rows, unit="codes") as advance:
        if layout == "pca":
            plane = pca_plane(collection, space, advance)
        else:
            plane = umap_plane(collection, space, seed, advance)
    mapped = mapped_rows(collection, len(plane.xy), directions, most=points, seed=seed)
    if originals is None and place.is_dir():
        originals = place
    load = partial(load_rgb, max_pixels=images.max_pixels, value_range=images.value_range)
    num_decoded, tell = 0, tell_once(console)

    def picture(name: str, path: str) -> Image | None:
        nonlocal num_decoded
        may_decode = num_decoded < decode
        (found,) = pictures_of(
            [(name, path)],
            originals=originals,
            load=load,
            opened=opened if may_decode else None,
            on_decoded=count,
            on_error=tell,
        )
        return found

    def count() -> None:
        nonlocal num_decoded
        num_decoded += 1

    with console.progress("pictures", len(mapped.names), unit="codes") as advance:
        shown = map_points(mapped, plane, picture, megabytes=megabytes, seed=seed, advance=advance)
    num, num_rows = len(shown.names), len(plane.xy)
    told = f"{num:,} codes" if num == num_rows else f"{num:,} of {num_rows:,} codes, drawn at random"
    facts = f"{told}, {len(shown.pictures):,} with a picture; {plane.told}; z standardised by {space.origin}"
    page = map_page(f"Map of {place.name}", facts, shown)
    write_whole(output, page.encode("utf-8", "surrogatepass"))
    if table is not None:
        write_placed(collection, plane, table)
    fields = {"points": num, "codes": num_rows, "pictures": len(shown.pictures)}
    console.emit(str(output), output=str(output), table=None if table is None else str(table), **fields)
    console.note(f"rdm: {facts}")
    if not shown.pictures:
        console.note("rdm: no pictures: name their folder with --images, or add --decode 200")
    tell_left_out(console, collection)
