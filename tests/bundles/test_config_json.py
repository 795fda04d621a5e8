"""Configs as JSON: what is written is read back, and what is not understood is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from rdm_cli.bundles.config_json import from_json, to_json
from rdm_cli.methods.diffae.config import DiffAEConfig
from rdm_cli.methods.diffae.presets import PRESETS
from rdm_cli.models.foreign_config import LATER


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float
    sides: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    kind: Literal["a", "b"] = "a"
    width: int | None = None
    flag: bool = False
    names: tuple[str, ...] = field(default=("x",))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_survive_json(name: str) -> None:
    config = PRESETS[name].config
    assert from_json(DiffAEConfig, json.loads(json.dumps(to_json(config)))) == config


def test_values_keep_their_types() -> None:
    config = Outer(inner=Inner(rate=1.0, sides=(1, 2)), kind="b", width=3, flag=True, names=())
    values = json.loads(json.dumps(to_json(config)))
    assert values["inner"] == {"rate": 1.0, "sides": [1, 2]}
    again = from_json(Outer, values)
    assert again == config and isinstance(again.inner.sides, tuple)
    assert isinstance(from_json(Inner, {"rate": 1}).rate, float)


@dataclass(frozen=True, kw_only=True)
class Grown:
    old: int = 1
    new: int | None = field(default=None, metadata={LATER: True})


def test_a_field_added_later_is_written_where_it_says_something() -> None:
    """Else the config.json of a network that was there before, and its bundle's digest, would change."""
    assert to_json(Grown()) == {"old": 1}
    assert to_json(Grown(new=3)) == {"old": 1, "new": 3}
    assert from_json(Grown, {"old": 1}) == Grown()
    published = to_json(PRESETS["ffhq128"].config)
    assert "generator" not in published and "guess_channels" not in published["unet"]


def test_notes_are_left_out() -> None:
    assert from_json(Inner, {"_class_name": "Inner", "rate": 2.0}) == Inner(rate=2.0)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"inner": {"rate": 1.0}, "wdith": 3}, "no field 'wdith'"),
        ({"inner": {"rate": 1.0, "extra": 1}}, "no field 'extra'"),
        ({}, "inner"),
        ({"inner": {}}, "rate"),
        ({"inner": 3}, "inner should be an object"),
        ({"inner": {"rate": "1"}}, "rate should be of type float"),
        ({"inner": {"rate": True}}, "rate should be of type float"),
        ({"inner": {"rate": 1.0, "sides": 3}}, "sides should be a list"),
        ({"inner": {"rate": 1.0, "sides": [1.5]}}, "sides should be of type int"),
        ({"inner": {"rate": 1.0}, "width": True}, "width should be of type int"),
        ({"inner": {"rate": 1.0}, "width": 1.0}, "width should be of type int"),
        ({"inner": {"rate": 1.0}, "flag": 1}, "flag should be of type bool"),
        ({"inner": {"rate": 1.0}, "kind": "c"}, "kind should be one of"),
        ({"inner": {"rate": 1.0}, "names": [1]}, "names should be of type str"),
    ],
)
def test_what_is_not_understood_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        from_json(Outer, values)
