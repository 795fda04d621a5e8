"""A bundle in which one entry of one JSON file, or some bytes of any file, are something else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.errors import RdmError

JSONS = (
    "model_index.json", "encoder/config.json", "unet/config.json", "scheduler/scheduler_config.json",
    "prior/config.json", "attributes/attributes.json",
)  # fmt: skip
ODD: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5)
    | st.integers() | st.sampled_from([-1, 0, 1, 2, 3, 7, 10**5, 10**9, 2**63, 10**30, 0.5, -1e308, 1e-320])
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def copy(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("fuzzed") / "tiny"))


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        yield value, key
        yield from places(inner)


def opened_or_refused(folder: Path) -> None:
    try:
        bundle = open_bundle(str(folder))
        for part in ("prior", "directions"):
            getattr(bundle, part)
        bundle.model.sampling.trajectory()
    except RdmError as error:
        assert str(folder) in str(error) or "tiny" in str(error)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(JSONS), place=st.integers(0, 40), odd=ODD)
# what once went wrong: a network of any size, an overflow, values of kinds that nobody looked at
@example(name="unet/config.json", place=3, odd=10**9)
@example(name="scheduler/scheduler_config.json", place=4, odd=10**400)
@example(name="attributes/attributes.json", place=4, odd=[])
def test_an_odd_entry(copy: Path, name: str, place: int, odd: Any) -> None:
    path = copy / name
    sound = path.read_bytes()
    value = json.loads(sound)
    found = list(places(value))
    container, key = found[place % len(found)]
    container[key] = odd
    path.write_text(json.dumps(value))
    try:
        opened_or_refused(copy)
    finally:
        path.write_bytes(sound)


@pytest.mark.parametrize("name", JSONS)
@pytest.mark.parametrize("text", ["[" * 10_000, "[]", "{}", "null", '{"a": NaN}', '{"a": 1e999}', "\xff", ""])
def test_no_json_or_another(copy: Path, name: str, text: str) -> None:
    path = copy / name
    sound = path.read_bytes()
    path.write_bytes(text.encode("latin1"))
    try:
        opened_or_refused(copy)
    finally:
        path.write_bytes(sound)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["encoder", "unet", "prior"]),
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
    keep=st.floats(0, 1) | st.just(1.0),
)
def test_damaged_weights(copy: Path, name: str, edits: list[tuple[int, int]], keep: float) -> None:
    path = copy / name / "diffusion_pytorch_model.safetensors"
    sound = path.read_bytes()
    content = bytearray(sound)
    for place, value in edits:
        content[place] = value
    path.write_bytes(content[: round(keep * len(content))])
    try:
        opened_or_refused(copy)
    finally:
        path.write_bytes(sound)


def test_parts_that_are_links_to_devices(copy: Path) -> None:
    for name in ("unet/config.json", "unet/diffusion_pytorch_model.safetensors", "model_index.json"):
        path = copy / name
        sound = path.read_bytes()
        path.unlink()
        path.symlink_to("/dev/zero")
        try:
            with pytest.raises(RdmError):
                open_bundle(str(copy))
        finally:
            path.unlink()
            path.write_bytes(sound)
