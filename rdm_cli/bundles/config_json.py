"""Frozen dataclasses to JSON and back; what a bundle's ``config.json`` files hold."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from rdm_cli.models.foreign_config import LATER, ForeignConfig

T = TypeVar("T")


def to_json(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values; tuples become lists. A network's says the network's class first."""
    if isinstance(config, ForeignConfig):
        return config.to_values()
    named = {"_class_name": config.NETWORK} if hasattr(config, "NETWORK") else {}
    values = {f: getattr(config, f.name) for f in dataclasses.fields(config)}
    # None of a field that came later is left out, so that what was written before is written alike
    return named | {
        f.name: _plain(v) for f, v in values.items() if v is not None or not f.metadata.get(LATER)
    }


def json_file(values: Mapping[str, Any]) -> str:
    """``values`` as the text of a bundle's JSON file."""
    return json.dumps(values, indent=2) + "\n"


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):  # nearly all: a code is written for each image
        return value
    if dataclasses.is_dataclass(value):
        return to_json(value)
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def from_json(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build ``cls`` from what :func:`to_json` wrote; of a union of networks' configs, the one that it was.

    Raises ValueError where a field is unknown, missing or of another type: a config of a newer rdm
    must not be half understood. Keys that start with an underscore are notes and left out.
    """
    if typing.get_origin(cls) is types.UnionType:
        return typing.cast(T, from_json(_named(typing.get_args(cls), values), values))
    if issubclass(cls, ForeignConfig):
        try:
            return typing.cast(T, cls.from_values(values))
        except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
            raise ValueError(f"{cls.__name__}: {error}") from error
    known = _fields(typing.cast(Any, cls))
    given = {key: value for key, value in values.items() if not key.startswith("_")}
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {unknown[0]!r}")
    try:
        return cls(**{key: known[key].checked(value, key) for key, value in given.items()})
    except (ArithmeticError, LookupError, TypeError) as error:
        raise ValueError(f"{cls.__name__}: {error}") from error


@dataclasses.dataclass(frozen=True)
class _Field:
    """A field's type, and the types whose values it takes as they are: most need no further look."""

    hint: Any
    plain: frozenset[type]

    def checked(self, value: Any, name: str) -> Any:
        return value if type(value) in self.plain else _typed(self.hint, value, name)


@cache
def _fields(cls: type[Any]) -> dict[str, _Field]:
    """The fields of a dataclass; finding out their types takes longer than reading a code."""
    hints = typing.get_type_hints(cls)
    return {f.name: _Field(hints[f.name], _plain_types(hints[f.name])) for f in dataclasses.fields(cls)}


def _plain_types(hint: Any) -> frozenset[type]:
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    options = typing.get_args(hint) if is_union else (hint,)
    first = next((option for option in options if option is not type(None)), None)
    absent = {type(None)} if is_union and type(None) in options else set()
    return frozenset(absent | ({first} if first in (str, int, float, bool) else set()))


def _named(options: Sequence[type[Any]], values: Mapping[str, Any]) -> type[Any]:
    """Which of ``options`` describes the network that ``values`` name; without a name, the first."""
    name = values.get("_class_name")
    for option in options:
        names = option.CLASSES if issubclass(option, ForeignConfig) else (option.NETWORK,)
        if name in names:
            return option
    if name is not None:
        raise ValueError(f"{name!r} is no network that rdm knows here")
    return options[0]


def _typed(hint: Any, value: Any, name: str) -> Any:
    origin = typing.get_origin(hint)
    kinds = [option for option in typing.get_args(hint) if dataclasses.is_dataclass(option)]
    if value is None and type(None) in typing.get_args(hint):
        return None
    if dataclasses.is_dataclass(hint) or kinds:
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} should be an object, not {value!r}")
        cls = _named(typing.cast(Any, kinds), value) if len(kinds) > 1 else [*kinds, hint][0]
        return from_json(typing.cast("type[Any]", cls), value)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{name} should be a list, not {value!r}")
        return tuple(_typed(typing.get_args(hint)[0], item, name) for item in value)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise ValueError(f"{name} should be one of {typing.get_args(hint)}, not {value!r}")
        return value
    if origin in (types.UnionType, typing.Union):
        return _typed(next(o for o in typing.get_args(hint) if o is not type(None)), value, name)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{name} should be of type {hint.__name__}, not {value!r}")
    return value
