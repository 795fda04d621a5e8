"""Help pages in plain text: panels of options in one order, and examples at the end.

typer draws its panels with rich, which shortens long options at 80 columns and takes its time to load.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from rdm_cli.data.images.record import command_recorded
from rdm_cli.typed_command import typed_command

ARGUMENTS, OPTIONS, MESSAGES = "Arguments", "Options", "Messages"
PANELS = (
    ARGUMENTS,
    OPTIONS,
    "Conditions",
    "Method",
    "Classifier",
    "Optimiser",
    "Run",
    "Solver",
    "Images",
    "Batch job",
    "Machine",
    MESSAGES,
)
"""Every panel, in the order in which pages have them: what is used most comes first."""

EXAMPLES = "\nExamples:\n"


class _Page(TyperCommand):
    """A page whose options stand in panels; what follows ``Examples:`` in the docstring ends it as it is."""

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self.help, self.examples = _apart(self.help)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; the pictures that it makes record it."""
        with command_recorded(partial(typed_command, ctx)):
            return super().invoke(ctx)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words of the usage line."""
        arguments = [param for param in self.get_params(ctx) if param.param_type_name == "argument"]
        names = [_argument_name(param) for param in arguments]
        shown = [
            name if param.required else f"[{name}]" for name, param in zip(names, arguments, strict=True)
        ]
        return ["[OPTIONS]", *shown]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the panels."""
        rows: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            is_argument = param.param_type_name == "argument"
            panel = getattr(param, "rich_help_panel", None) or (ARGUMENTS if is_argument else OPTIONS)
            if param.name == "help" and MESSAGES in rows:
                panel = MESSAGES
            record = param.get_help_record(ctx)
            if record is not None:
                name = _argument_name(param) if is_argument else record[0]
                rows.setdefault(panel, []).append((name, _plain(record[1])))
        for panel in sorted(rows, key=PANELS.index):
            with formatter.section(panel):
                formatter.write_dl(rows[panel])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples."""
        _write_examples(self.examples, formatter)


class _Index(TyperGroup):
    """The page of a group of commands: a list of them, and examples."""

    command_class = _Page

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self.help, self.examples = _apart(self.help)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples."""
        _write_examples(self.examples, formatter)


class App(typer.Typer):
    """A Typer whose commands have these pages."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=_Index, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """See ``typer.Typer.command``."""
        return super().command(name, cls=_Page, **options)

    @cached_property
    def built(self) -> Any:
        """The command that typer makes of the app: with all that it has, 60 ms, and so once a process."""
        return typer.main.get_command(self)


def _apart(text: str | None) -> tuple[str, list[str]]:
    """What a page says first, and the lines of its examples."""
    before, _, examples = inspect.cleandoc(text or "").partition(EXAMPLES)
    return before, inspect.cleandoc(examples).splitlines()


def _write_examples(lines: list[str], formatter: Any) -> None:
    if lines:
        with formatter.section("Examples"):
            for line in lines:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def _argument_name(param: Any) -> str:
    """``FOLDER``, or ``FILES...`` where there may be several."""
    name = param.metavar or param.name.upper()
    return f"{name}..." if param.nargs != 1 and "..." not in name else name


def _plain(text: str) -> str:
    """An option's text, with its limits and its default in words."""
    text = re.sub(r"\bx>=([\d.]+)", lambda found: f"at least {float(found[1]):g}", text)
    text = re.sub(r"([\d.]+)<=x<=([\d.]+)", r"\1 to \2", text)
    return re.sub(r"default: \((.*?)\)(?=[;\]])", r"default: \1", text)
