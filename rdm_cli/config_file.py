"""A command's options from a TOML file: ``--config FILE`` reads them, ``--print-config`` writes them.

A key is an option's name without its dashes (``batch-size``), or that of an argument (``folder``). The
command line and the environment win over the file.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rdm_cli.console import Console
from rdm_cli.errors import UsageError
from rdm_cli.help_page import OPTIONS

_NOT_IN_A_FILE = ("config", "print_config", "help")


def read_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make what the file at ``path`` says the defaults of the command's options.

    Raises UsageError for a file that is no TOML, a key that names no option, and a value that is none of its.
    """
    if path is not None and not ctx.resilient_parsing:
        ctx.default_map = {**(ctx.default_map or {}), **_read(ctx, path)}
    return path


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Read options from a TOML file; the command line wins.",
        is_eager=True,
        callback=read_config,
    ),
]
PrintConfig = Annotated[
    bool,
    typer.Option("--print-config", help="Print all options with their values as such a file; train nothing."),
]


def unless_overruled(ctx: typer.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` of options that exclude one another, without the file's where the command line names any."""
    in_file = {
        name for name in values if getattr(ctx.get_parameter_source(name), "name", "") == "DEFAULT_MAP"
    }
    named = any(value is not None for name, value in values.items() if name not in in_file)
    return {name: None if named and name in in_file else value for name, value in values.items()}


def emit_config(console: Console, ctx: typer.Context, values: Any) -> None:
    """Print the command's options as TOML, in the order and under the headings of its help.

    What ``values`` has as attributes of the parameters' names goes before what the command was given. An
    option without a value is a comment. Raises UsageError for a file's name that is no Unicode text.
    """
    panels: dict[str, list[str]] = {}
    facts: dict[str, Any] = {}
    for key, param in _params(ctx):
        value = getattr(values, param.name, ctx.params.get(param.name))
        value = str(value) if isinstance(value, Path) else value
        facts[key] = value
        line = f"# {key} is not set" if value is None else f"{key} = {_toml(value)}"
        panels.setdefault(getattr(param, "rich_help_panel", None) or OPTIONS, []).append(line)
    lines = [f"# {ctx.command_path} --config FILE"]
    for panel, found in panels.items():
        lines += ["", f"# {panel}", *found]
    console.emit_document("\n".join(lines), **facts)


def _params(ctx: typer.Context) -> Iterator[tuple[str, Any]]:
    """What may stand in a file, with its key."""
    for param in ctx.command.get_params(ctx):
        if param.name not in _NOT_IN_A_FILE:
            long = next((name for name in param.opts if name.startswith("--")), param.name)
            yield str(long).removeprefix("--"), param


def _read(ctx: typer.Context, path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"--config {path}: not a TOML file ({error})") from error
    known = dict(_params(ctx))
    values = {}
    for key, value in found.items():
        param = known.get(key.replace("_", "-"))
        if param is None:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            more = f"{ctx.command_path} --print-config has all of them"
            hint = f"did you mean {near[0]}? {more}" if near else more
            raise UsageError(f"--config {path}: {ctx.command_path} has no option {key!r}", hint=hint)
        values[param.name] = _checked(ctx, param, f"--config {path}: {key} = {value!r}", value)
    return values


def _checked(ctx: typer.Context, param: Any, where: str, value: Any) -> Any:
    """``value``, if ``param`` takes it; a number in quotes is none."""
    types: dict[str, tuple[tuple[type, ...], str]] = {
        "bool": ((bool,), "true or false"),
        "int": ((int,), "a whole number"),
        "float": ((int, float), "a number"),
    }
    wanted, called = types.get(param.bare_type(), ((str,), "text in quotes"))
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise UsageError(f"{where}: {called} is needed")
    try:
        param.process_value(ctx, value)
    except typer.BadParameter as error:
        raise UsageError(f"{where}: {error.message.removeprefix('Value error, ').rstrip('.')}") from error
    return value


def _toml(value: bool | int | float | str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return repr(value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{value!a}: this name is no Unicode text, which TOML is") from error
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"
