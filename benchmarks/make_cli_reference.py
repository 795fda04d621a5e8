"""Write docs/cli.md: the help page of every command, as ``rdm ... --help`` prints it at 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from rdm_cli.cli import app

PLACE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
COLUMNS = 78  # of text, in a terminal of 80
LEAD = """# Every command and option

The help pages of all commands. `make reference` writes this file from the commands; do not edit it.
"""


def pages() -> Iterator[tuple[str, str]]:
    """Each command's name, ``rdm train prior``, and its help."""
    yield from _below(typer.main.get_command(app), "rdm", None)


def _below(command: Any, name: str, parent: Any) -> Iterator[tuple[str, str]]:
    context = command.make_context(name, [], parent=parent, resilient_parsing=True, terminal_width=COLUMNS)
    yield context.command_path, command.get_help(context)
    for child_name, child in getattr(command, "commands", {}).items():
        yield from _below(child, child_name, context)


def reference() -> str:
    """The text of docs/cli.md."""
    found = list(pages())
    contents = [f"- [{name}](#{name.replace(' ', '-')})" for name, _ in found]
    sections = [f"## {name}\n\n```text\n{text.rstrip()}\n```\n" for name, text in found]
    return "\n".join([LEAD, *contents, "", *sections])


if __name__ == "__main__":
    PLACE.write_text(reference(), encoding="utf-8")
    print(PLACE)
