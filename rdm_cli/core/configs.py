"""Frozen dataclasses to JSON and back; what a bundle's ``config.json`` files hold."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from rdm_cli.models.backbones import Backbone
from rdm_cli.models.foreign_config import ForeignConfig
from rdm_cli.models.unet import UNetConfig
from rdm_cli.models.unet2d_config import UNet2DConfig

T = TypeVar("T")


def to_json(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values; tuples become lists. Another library's config stays as it is."""
    if isinstance(config, ForeignConfig):
        return config.to_values()
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def from_json(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build ``cls`` from what :func:`to_json` wrote; of a UNet, the kind that it was.

    Raises ValueError where a field is unknown, missing or of another type: a config of a newer rdm
    must not be half understood. Keys that start with an underscore are notes and left out.
    """
    if isinstance(cls, type) and issubclass(cls, ForeignConfig):
        return typing.cast(T, cls.from_values(values))
    if cls == Backbone:
        foreign = values.get("_class_name") in UNet2DConfig.CLASSES
        return typing.cast(T, from_json(UNet2DConfig if foreign else UNetConfig, values))
    hints = typing.get_type_hints(cls)
    given = {key: value for key, value in values.items() if not key.startswith("_")}
    unknown = sorted(set(given) - set(hints))
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {unknown[0]!r}")
    try:
        return cls(**{key: _typed(hints[key], value, key) for key, value in given.items()})
    except TypeError as error:
        raise ValueError(f"{cls.__name__}: {error}") from error


def _typed(hint: Any, value: Any, name: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) or hint == Backbone:
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} should be an object, not {value!r}")
        return from_json(typing.cast("type[Any]", hint), value)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{name} should be a list, not {value!r}")
        return tuple(_typed(typing.get_args(hint)[0], item, name) for item in value)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise ValueError(f"{name} should be one of {typing.get_args(hint)}, not {value!r}")
        return value
    if origin in (types.UnionType, typing.Union):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        return _typed(next(o for o in options if o is not type(None)), value, name)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{name} should be of type {hint.__name__}, not {value!r}")
    return value
