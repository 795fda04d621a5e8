"""rdm show: what pictures, codes and bundles record, and what they look like."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rdm_cli import options as o
from rdm_cli.console import Console
from rdm_cli.data.images.pixels import load_rgb
from rdm_cli.errors import RdmError, UsageError
from rdm_cli.option_groups import spread

if TYPE_CHECKING:
    from PIL.Image import Image

    from rdm_cli.jobs.showing import ContactSheet, Shown

Graphics = Literal["auto", "kitty", "iterm2", "sixel", "blocks", "none"]
"""How a terminal is given a picture."""


@spread
def show(
    files: Annotated[
        list[str], typer.Argument(help="Pictures, codes, bundles and folders.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Write the contact sheet of a folder to this PNG file."
        ),
    ] = None,
    open_file: Annotated[
        bool, typer.Option("--open", help="Open the picture, or the sheet, in the system's viewer.")
    ] = False,
    graphics: Annotated[
        Graphics,
        typer.Option("--graphics", help="How a terminal shows pictures; elsewhere they are not shown."),
    ] = "auto",
    decode: Annotated[bool, typer.Option("--decode", help="Decode codes to show them.")] = False,
    bundle: Annotated[
        str | None,
        typer.Option(
            "-b",
            "--bundle",
            metavar="BUNDLE",
            show_default="the one each code records",
            help="What --decode decodes with.",
        ),
    ] = None,
    columns: o.Columns = None,
    tile: o.TilePixels = o.TILE_DEFAULT,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, help="Pictures of one contact sheet.")
    ] = 100,
    page: Annotated[
        int, typer.Option("--page", metavar="N", min=1, help="Which of a folder's sheets, from 1.")
    ] = 1,
    force: o.Force = False,
    *,
    images: o.ImageFiles,
    voice: o.Voice,
) -> None:
    """Show what pictures, codes and bundles record: how they were made, by which command.

    In a terminal, the picture too; of a code the one beside it, unless --decode is given. A folder becomes a
    contact sheet of its pictures and codes.

    Examples:
        rdm show out/photo-smiling+0.3.png
        rdm show faces/ -o sheet.png --open
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    if output is not None and output.suffix.lower() != ".png":
        raise UsageError(f"-o {output}: sheets are PNG files", hint=f"use -o {output.with_suffix('.png')}")
    if output is not None and (len(files) != 1 or not Path(files[0]).is_dir()):
        raise UsageError("-o is for the contact sheet of one folder", hint="name one folder")
    from rdm_cli.bundles.places import names_bundle
    from rdm_cli.jobs.showing import contact_sheet, look_at
    from rdm_cli.reports.viewer import open_in_viewer

    load = partial(load_rgb, max_pixels=images.max_pixels, value_range=images.value_range)
    screen = _Screen(console, graphics)
    decoder = _decoder(bundle) if decode else None
    num_failed = num_partial = 0
    for name in files:
        try:
            if Path(name).is_dir() and not names_bundle(name):
                if open_file and output is None:
                    raise UsageError("--open shows a folder's sheet from a file", hint="add -o sheet.png")
                found = contact_sheet(
                    Path(name), columns=columns, tile=tile, limit=limit, page=page, decode=decoder,
                    load=load,
                )  # fmt: skip
                if output is not None and found.sheet is not None:
                    _save(found.sheet, output, found.record, force)
                screen.picture(found.sheet)
                _tell_folder(console, name, found, output)
                num_failed += bool(found.errors) and not found.num_shown
                num_partial += bool(found.errors)
            else:
                one = look_at(name, decoder, load=load)
                screen.picture(one.image)
                _tell_file(console, name, one)
                if one.remark:
                    console.problem(f"rdm: {one.remark}")
                if open_file:
                    open_in_viewer(_picture_of(name, one))
            if open_file and output is not None:
                open_in_viewer(output)
        except RdmError as error:
            if len(files) == 1:
                raise
            num_failed += 1
            console.problem(f"rdm: {error}" if name in str(error) else f"rdm: {name}: {error}")
            if console.as_json:
                console.emit("", input=name, error=str(error))
    if num_failed or num_partial:
        raise typer.Exit(1 if num_failed == len(files) else 3)


class _Screen:
    """The terminal that stdout leads to, if it is one that shows pictures."""

    def __init__(self, console: Console, graphics: Graphics) -> None:
        from rdm_cli.reports.terminal import graphics_of

        self._console = console
        is_terminal = sys.stdout.isatty() and not console.as_json
        found = graphics_of(os.environ, is_terminal=is_terminal, encoding=sys.stdout.encoding or "")
        if graphics != "auto":
            found = graphics if is_terminal and graphics != "none" else None
        self._graphics = found

    def picture(self, image: Image | None) -> None:
        """Show one, where that is possible."""
        if self._graphics is None or image is None:
            return
        from rdm_cli.reports.terminal import in_terminal

        columns = shutil.get_terminal_size().columns
        self._console.emit_bytes(in_terminal(image, self._graphics, columns=columns))


def _decoder(bundle: str | None) -> Callable[[Path], Image]:
    """What decodes a code by ``bundle``, None being the one that it records; each is opened once."""
    from functools import cache

    from rdm_cli.codes.code import Codes
    from rdm_cli.pipeline.pipeline import open_pipeline
    from rdm_cli.runtime import precision_named

    opened = cache(open_pipeline)

    def decoded(path: Path) -> Image:
        codes = Codes.load(path)
        info = codes.infos[0]
        precision = precision_named(info.precision)
        pipeline = opened(bundle or info.bundle, precision=precision, fetches=bundle is not None)
        return pipeline.decode(codes, output="pil")[0]

    return decoded


def _save(sheet: Image, output: Path, record: Any, force: bool) -> None:
    from rdm_cli.data.images.record import refuse_other, save_image

    if not force:
        refuse_other(output, record)
    save_image(sheet, output, record)


def _picture_of(name: str, one: Shown) -> Path:
    """The file that a viewer is to open: of a code its own picture; raises UsageError where it has none."""
    if one.kind == "code" and "picture" not in one.facts:
        raise UsageError(f"{name}: no picture of this code lies beside it", hint="rdm decode makes one")
    return Path(name).with_name(one.facts["picture"]) if one.kind == "code" else Path(name)


def _tell_file(console: Console, name: str, one: Shown) -> None:
    from rdm_cli.jobs.receipts import COLUMNS, told, verdicts

    if console.as_json:
        record = {} if one.kind == "bundle" else {"record": one.record}
        console.emit("", input=name, kind=one.kind, **one.facts, **record)
        return
    facts: dict[str, Any] = {"kind": one.kind, **one.facts}
    if one.kind == "bundle":
        facts = dict(one.facts)
    elif one.record is None:
        facts["record"] = "none: rdm did not make it, or its text is gone"
    else:
        facts |= {key: value for key, value in one.record.items() if value not in (None, [], ())}
    receipt = facts.pop("receipt", None)
    console.facts(name, facts | ({} if receipt is None else told(receipt)))
    if receipt is not None and one.record is not None:
        console.table("what the classifiers read", list(COLUMNS), verdicts(one.record))


def _tell_folder(console: Console, name: str, found: ContactSheet, output: Path | None) -> None:
    for file, error in found.errors.items():
        console.problem(f"rdm: {error}")
        if console.as_json:
            console.emit("", input=file, error=error)
    left_out = found.num_found - found.num_shown - found.without - len(found.errors)
    counts = {
        "shown": found.num_shown, "on other pages": left_out, "codes without a picture": found.without,
        "not readable": len(found.errors),
    }  # fmt: skip
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    console.note(f"rdm: {name}: {told}{f', {found.passed_over}' if found.passed_over else ''}")
    written = None if output is None or found.sheet is None else str(output)
    fields = {"num_found": found.num_found, "num_shown": found.num_shown, "left_out": left_out}
    if written is not None or console.as_json:
        console.emit(written or "", input=name, kind="folder", output=written, **fields)
    elif found.without and not found.num_shown:
        console.note("rdm: --decode shows codes that have no picture")
