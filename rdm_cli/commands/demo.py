"""rdm demo: one page that shows what rdm does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rdm_cli import options as o
from rdm_cli.commands.opening import open_on
from rdm_cli.console import Console
from rdm_cli.data.sinks.outputs import refuse_blocked
from rdm_cli.errors import RdmError
from rdm_cli.option_groups import spread


@spread
def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the page and the picture.")
    ] = Path("demo"),
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the system's browser.")] = False,
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    force: o.Force = False,
    *,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Show on one page what rdm does: reconstruct, edit, interpolate and sample faces.

    Writes index.html, which holds all its pictures, and overview.png, from the faces that come with rdm.

    Examples:
        rdm demo -o demo/ --open
        rdm demo -o other/ --bundle avatars64-pdae
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    refuse_blocked(output)
    from rdm_cli.jobs.demo import make_demo
    from rdm_cli.reports.viewer import open_in_viewer

    pipeline = open_on(machine, bundle, o.Images(), console.remark)
    with console.progress("making the demo", 1.0) as advance:
        page, overview = make_demo(pipeline, output, force=force, advance=advance)
    console.emit(str(overview), kind="picture", output=str(overview))
    console.emit(str(page), kind="page", output=str(page))
    if open_page:
        try:
            open_in_viewer(page)
        except RdmError as error:  # the page is there
            console.problem(f"rdm: {error}")
