"""rdm codes odd, twins: what does not belong into a collection, and what is in it twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rdm_cli import options as o
from rdm_cli.commands.codes_opening import opened_collection, opener, tell_left_out
from rdm_cli.commands.codes_sheet import check_sheet, write_sheet
from rdm_cli.console import Console
from rdm_cli.errors import BundleError
from rdm_cli.option_groups import spread

if TYPE_CHECKING:
    from rdm_cli.collection.odd import Odd

TWINS_AT = 0.98


@spread
def odd(
    place: o.CodesPlace,
    top: Annotated[
        int, typer.Option("--top", metavar="N", min=1, max=100_000, help="Codes of each kind, at most.")
    ] = 20,
    bundle: o.BundleOfCodes = None,
    *,
    pictures: o.CodePictures,
    images: o.Images,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Find what does not belong: codes far from the bundle's training codes, images that were lost.

    far: the code is farther from the bundle's training codes than 199 of 200 of these. lost: the PSNR that
    the code records (rdm encode --verify does) is lower than the median by three standard deviations, both
    robust.

    Examples:
        rdm codes odd z.parquet
        rdm codes odd codes/ --top 100 --json
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    check_sheet(pictures)
    from rdm_cli.collection.odd import find_odd
    from rdm_cli.jobs.search import pipeline_for

    collection = opened_collection(console, place)
    opened = opener(collection, bundle, console, machine, images)
    try:
        domain, why = pipeline_for(collection, opened).bundle.domain, "the bundle has no domain"
    except BundleError as error:
        if bundle is not None:
            raise
        domain, why = None, str(error)
    if domain is None:
        console.problem(f"rdm: {place}: how far codes are is not known: {why}")
    with console.progress("looking", collection.num_rows, unit="codes") as advance:
        found = find_odd(collection, domain, top, advance)
    rows = []
    for kind, unit, hits, limit in (
        ("far", "distance", found.far, found.far_limit),
        ("lost", "psnr_db", found.lost, found.lost_limit),
    ):
        for hit in hits:
            if voice.as_json:
                console.emit("", name=hit.name, path=hit.path, odd=kind, **{unit: hit.score}, limit=limit)
            rows.append([hit.name, hit.path, kind, f"{hit.score:.2f}", f"{limit:.2f}"])
    if rows and not voice.as_json:
        console.table("", ["name", "path", "odd", "value", "limit"], rows, num_words=3)
    for line in _remarks(found):
        console.note(f"rdm: {line}")
    shown = [(name, path, f"{kind} {value}") for name, path, kind, value, _ in rows]
    record = {"what": "odd codes"}
    write_sheet(console, pictures, images, shown, place=place, opened=opened, record=record)
    tell_left_out(console, collection)


def _remarks(found: Odd) -> list[str]:
    """What is said below the list."""
    told = []
    if found.far_limit is not None:
        more = ", as many as of training images by chance" if found.num_far and found.by_chance else ""
        told.append(
            f"{found.num_far} of {found.num_codes} codes are farther than {found.far_limit:.2f} from the "
            f"training codes{more}"
        )
    if found.lost_limit is not None:
        told.append(
            f"{found.num_lost} of {found.num_measured} images come back with less than "
            f"{found.lost_limit:.2f} dB"
        )
    else:
        told.append(
            f"{found.num_measured} codes record how well they bring their image back, too few to tell which "
            "are lost: rdm encode --verify"
        )
    return told


@spread
def twins(
    place: o.CodesPlace,
    at: Annotated[
        float,
        typer.Option(
            "--at", metavar="COSINE", min=-1.0, max=1.0, help="Codes of at least this cosine are twins."
        ),
    ] = TWINS_AT,
    bundle: o.BundleOfCodes = None,
    *,
    pictures: o.CodePictures,
    images: o.Images,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Find near duplicates: groups of codes that are almost the same.

    Codes are twins where the cosine of their z, standardised by the bundle's training codes, is 0.98 or more.
    An image saved again as a JPEG of quality 90, or in another size, has 0.99; another image of the same kind
    seldom more than 0.95. Every pair is compared.

    Examples:
        rdm codes twins z.parquet
        rdm codes twins codes/ --at 0.95 --sheet twins.png
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    check_sheet(pictures)
    from rdm_cli.collection.twins import find_twins
    from rdm_cli.jobs.search import pipeline_for, space_for

    collection = opened_collection(console, place)
    opened = opener(collection, bundle, console, machine, images)
    if bundle is not None:
        pipeline_for(collection, opened)
    space = space_for(collection, opened)
    with console.progress("comparing", collection.num_rows, unit="codes") as advance:
        groups = find_twins(collection, space, at, advance)
    rows = []
    for number, group in enumerate(groups, 1):
        for twin in group:
            if voice.as_json:
                console.emit("", group=number, **vars(twin))
            same = "same file" if twin.same_file else ""
            rows.append([str(number), twin.name, twin.path, same, f"{twin.cosine:.4f}"])
    if rows and not voice.as_json:
        console.table("", ["group", "name", "path", "", "cosine"], rows, num_words=4)
    num, where = sum(map(len, groups)), f"in {len(groups)} group{'' if len(groups) == 1 else 's'}"
    console.note(
        f"rdm: {f'{num} codes have a twin, {where}' if groups else 'no code has a twin'}: a cosine of "
        f"{at:g} or more, of z standardised by {space.origin}"
    )
    shown = [(name, path, f"group {number}, {cosine}") for number, name, path, _, cosine in rows]
    record = {"what": "twins", "at": at}
    write_sheet(console, pictures, images, shown, place=place, opened=opened, record=record)
    tell_left_out(console, collection)
