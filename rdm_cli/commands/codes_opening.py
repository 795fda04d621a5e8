"""What the commands that look through many codes share: the collection, its bundle, codes that fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rdm_cli import options as o
from rdm_cli.commands.opening import open_on
from rdm_cli.console import Console
from rdm_cli.errors import BundleError, RdmError

if TYPE_CHECKING:
    from rdm_cli.collection.rows import Collection, OfOneBundle
    from rdm_cli.pipeline.pipeline import Pipeline


def opened_collection(console: Console, place: Path) -> Collection:
    """The codes of a table or folder; each that cannot be read is told, and left out."""
    from rdm_cli.collection.rows import open_collection

    return open_collection(place, on_error=tell_once(console))


def tell_once(console: Console) -> Callable[[str, RdmError], None]:
    """Tells, of each path once, why it cannot be read."""
    told: set[str] = set()

    def tell(path: str, error: RdmError) -> None:
        if path not in told:
            told.add(path)
            console.problem(f"rdm: {error}" if path in str(error) else f"rdm: {path}: {error}")

    return tell


def opener(
    codes: OfOneBundle, bundle: str | None, console: Console, machine: o.Machine, images: o.Images
) -> Callable[[], Pipeline]:
    """Opens the bundle that was named, or that the codes record, when it is first asked for."""

    def remark(source: str, text: str) -> None:
        console.note(f"rdm: {source}: {text}")

    @cache
    def opened() -> Pipeline:
        if bundle is None and codes.bundle is None:
            raise BundleError(f"{codes.place}: does not record a bundle", hint="name it with --bundle")
        try:
            return open_on(machine, bundle or str(codes.bundle), images, remark, fetches=bundle is not None)
        except BundleError as error:
            if bundle is not None:
                raise
            raise BundleError(
                f"the bundle that the codes record cannot be opened: {error.message}",
                hint="say where it is with --bundle",
            ) from error

    return opened


def tell_left_out(console: Console, collection: Collection) -> None:
    """Say what was passed over; exit with 3 where codes could not be read."""
    if collection.passed_over:
        console.note(f"rdm: {collection.place}: {collection.passed_over}")
    if collection.failed:
        console.problem(f"rdm: {collection.place}: {len(collection.failed)} codes could not be read")
        raise typer.Exit(3)
