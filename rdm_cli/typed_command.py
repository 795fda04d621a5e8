"""The command that is being run, written so that one can run it again: pictures record it.

It says what the result depends on and nothing of where it went or how the job was divided, so that a part of
a job makes the very files that the whole would make.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

NOT_SAID = frozenset(
    ("output", "force", "shard", "manifest", "failures", "files_from", "column", "as_tar", "as_json", "quiet",
     "run_folder", "resume", "open_page", "open_file", "report_to")
)  # fmt: skip
"""Parameters on which no result depends."""


def typed_command(context: Any, instead: Mapping[str, Sequence[str]]) -> str:
    """The command of typer's ``context``: what was typed or comes from an environment variable, no defaults.

    ``instead`` has other words for some parameters, such as the one input that a picture was made of.
    """
    words: dict[bool, list[str]] = {True: [], False: []}
    for param in context.command.params:
        is_argument = param.param_type_name == "argument"
        if param.name in instead:
            values: list[Any] = list(instead[param.name])
        elif param.name in NOT_SAID or not _is_given(context, param.name):
            continue
        else:
            value = context.params[param.name]
            values = list(value) if param.multiple or param.nargs != 1 else [value]
        for value in values:
            words[is_argument] += _argument(value) if is_argument else _option(param, value)
    return shlex.join([*context.command_path.split(), *words[True], *words[False]])


def _is_given(context: Any, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def _argument(value: object) -> list[str]:
    text = str(value)
    return [f"./{text}" if text.startswith("-") and len(text) > 1 else text]


def _option(param: Any, value: object) -> list[str]:
    names = param.opts if value is not False else param.secondary_opts or param.opts
    name = max(names, key=len)
    if isinstance(value, bool):
        return [name]
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return [f"{name}={text}"] if text.startswith("-") else [name, text]
