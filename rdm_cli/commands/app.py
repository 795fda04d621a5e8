"""rdm app: a page in the browser to edit pictures by hand."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
import threading
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rdm_cli import options as o
from rdm_cli.commands.opening import open_for, open_on
from rdm_cli.console import Console
from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.data.sources.folders import CODE_SUFFIX, CODE_SUFFIXES, PassedOver, find_inputs
from rdm_cli.errors import UsageError
from rdm_cli.option_groups import spread
from rdm_cli.registry import DEFAULT_BUNDLE
from rdm_cli.typed_command import typed_command

if TYPE_CHECKING:
    from rdm_cli.pipeline.pipeline import Pipeline

MOST_FILES = 2000  # that the page lists


@spread
def app(
    ctx: typer.Context,
    place: Annotated[
        Path | None,
        typer.Argument(
            metavar="IMAGE|CODE|FOLDER|TABLE",
            help="What the page begins with.",
            show_default="a drawn sample",
        ),
    ] = None,
    bundle: o.RecordedBundle = None,
    host: Annotated[
        str,
        typer.Option("--host", metavar="ADDRESS", help="Where to listen; other machines reach any but this."),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option("--port", metavar="N", min=0, max=65535, show_default="a free one", help="Its port."),
    ] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the system's browser.")
    ] = True,
    *,
    images: o.Images,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Edit pictures in the browser: sliders, yes and no, paths between pictures, new ones.

    The page comes from this machine, asks nothing outside, and reads no file but those that are named here or
    dropped on it. Its address, with the token that it needs, is printed. Every picture comes with the command
    that makes it. Ctrl-C ends it.

    Examples:
        rdm app photo.png
        rdm app faces/ --port 8000 --no-browser
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    passed_over = PassedOver()
    files: list[Path] = []
    is_table = place is not None and place.suffix.lower() == ".parquet"
    if place is not None and not is_table:
        suffixes = SUFFIXES | CODE_SUFFIXES
        found = find_inputs([place], suffixes=suffixes, passed_over=passed_over, own_too=True)
        files = [item.source for item in found]
        if passed_over:
            console.remark(str(place), str(passed_over))
    codes = [file for file in files if file.suffix == CODE_SUFFIX]
    beside = {code.with_suffix("") for code in codes}  # a picture's own code has more than the picture
    files = [file for file in files if file.suffix == CODE_SUFFIX or file.with_suffix("") not in beside]
    if len(files) > MOST_FILES:
        console.remark(str(place), f"has {len(files)} pictures, of which the page lists {MOST_FILES}")
    from rdm_cli.app.cloud import LEAST_POINTS
    from rdm_cli.app.desk import Desk, Remarks
    from rdm_cli.app.server import PageServer
    from rdm_cli.app.studio import Studio
    from rdm_cli.codes.code import read_info
    from rdm_cli.collection.rows import open_collection

    remarks, collection = Remarks(), None
    if place is not None and (is_table or len(codes) >= LEAST_POINTS):
        collection = open_collection(place, on_error=lambda path, error: remarks.say(path, str(error)))
    info = read_info(codes[0]) if codes else None
    opened: list[str] = []

    def open_one(name: str, *, fetches: bool) -> Pipeline:
        opened.append(name)
        return open_on(machine, name, images, remarks.say, fetches=fetches)

    if is_table and bundle is None and collection is not None:
        pipeline = open_one(str(collection.bundle), fetches=False)
    else:
        pipeline = open_for(info, bundle, open_one)
    pipeline.bundle.require_z("rdm app")
    here = dict.fromkeys(("place", "host", "port", "browser"), ())  # what is of the page alone
    options = shlex.split(typed_command(ctx, here))[2:]
    if bundle is None and opened[0] != DEFAULT_BUNDLE:
        options += ["--bundle", opened[0]]
    studio = Studio(pipeline=pipeline, options=tuple(options))
    desk = Desk(studio=studio, files=files[:MOST_FILES], collection=collection, remarks=remarks)
    try:
        server = PageServer(host, port, desk, secrets.token_urlsafe(24), console.problem)
    except OSError as error:
        raise UsageError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror})",
            hint="leave out --port for a free one",
        ) from error
    with server:
        console.emit(server.url, kind="page", url=server.url)
        console.note("rdm: the page is at this address as long as this runs; Ctrl-C ends it")
        if browser and has_screen():
            # not here: some browsers keep whoever starts them until they end
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        with suppress(KeyboardInterrupt):  # the way to end it: nothing was left undone
            server.serve_forever()


def has_screen() -> bool:
    """Whether a browser can open a window; a browser of the terminal is none to edit pictures in."""
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
