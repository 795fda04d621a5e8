"""Groups of options that commands share: a dataclass whose fields a command takes as options of its own.

    @group("Machine")
    class Machine:
        device: Device = "auto"
        threads: Threads = None

    @spread
    def encode(inputs: Inputs = None, *, machine: Machine) -> None: ...

``rdm encode`` then has ``--device`` and ``--threads``, in a panel "Machine" of its help, and ``encode`` is
called with a ``Machine``. A field may be a group itself, whose options keep their own panel.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from copy import copy
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, TypeVar, dataclass_transform, get_args, get_type_hints

from typer.models import OptionInfo

T = TypeVar("T")
_PANEL = "__panel__"


@dataclass_transform(frozen_default=True, kw_only_default=True)
def group(panel: str) -> Callable[[type[T]], type[T]]:
    """Make a class a group: a frozen dataclass of options that stand under ``panel`` in help.

    Each field is a group, or ``Annotated`` with a ``typer.Option`` and has a default. An option that names a
    panel itself keeps it.
    """

    def grouped(cls: type[T]) -> type[T]:
        made = dataclass(frozen=True, kw_only=True)(cls)
        setattr(made, _PANEL, panel)
        return made

    return grouped


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with the fields of each group among its parameters in the group's place.

    A parameter whose type is a group needs no default. Raises TypeError where two parameters would have one
    name.
    """
    hints = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    groups = {name: hint for name, hint in hints.items() if hasattr(hint, _PANEL)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if name in groups:
            parameters += _options(groups[name])
        else:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(annotation=hints[name], kind=kind))
    names = [parameter.name for parameter in parameters]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise TypeError(
            f"{command.__name__}: more than one parameter is called {', '.join(sorted(repeated))}"
        )

    @functools.wraps(command)
    def called(**given: Any) -> None:
        for name, cls in groups.items():
            given[name] = _taken(cls, given)
        command(**given)

    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del called.__wrapped__  # its parameters are those of no command
    return called


def _taken(cls: type[Any], given: dict[str, Any]) -> Any:
    """The group ``cls``, of what it takes out of ``given``."""
    hints = get_type_hints(cls)
    return cls(
        **{
            field.name: _taken(hint, given)
            if hasattr(hint := hints[field.name], _PANEL)
            else given.pop(field.name)
            for field in fields(cls)
        }
    )


def _options(cls: type[Any]) -> list[inspect.Parameter]:
    """A group's fields as parameters, each option in the group's panel."""
    hints = get_type_hints(cls, include_extras=True)
    found: list[inspect.Parameter] = []
    for field in fields(cls):
        if hasattr(hints[field.name], _PANEL):
            found += _options(hints[field.name])
            continue
        kind, *notes = get_args(hints[field.name])
        [option] = [copy(note) for note in notes if isinstance(note, OptionInfo)]
        option.rich_help_panel = option.rich_help_panel or getattr(cls, _PANEL)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        found.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=Annotated[kind, option],
            )
        )
    return found
