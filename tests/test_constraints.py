"""The versions and the tests that CI runs beside the developer's agree with pyproject.toml and the tree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
TESTED_EXTRAS = ("demo", "evaluate", "perceptual", "s3", "search", "sources")


def pins(name: str) -> dict[str, Version]:
    """The versions of a file of ``name==version`` lines."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(package): Version(version) for package, version in pairs}


def claims(*extras: str) -> dict[str, Version]:
    """The lowest version that each dependency, and each of ``extras``, asks for."""
    lines = [*PROJECT["dependencies"], *(x for e in extras for x in PROJECT["optional-dependencies"][e])]
    return {
        canonicalize_name(r.name): Version(specifier.version)
        for r in map(Requirement, lines)
        for specifier in r.specifier
        if specifier.operator in (">=", "==")
    }


def test_the_lowest_versions_are_those_that_are_claimed() -> None:
    lowest, claimed = pins("constraints-lowest.txt"), claims(*TESTED_EXTRAS)
    torch = re.search(r"LOWEST_TORCH:-([\d.]+)", (ROOT / ".ci" / "other-versions").read_text("utf-8"))
    assert torch is not None
    lowest["torch"] = Version(torch[1])
    assert {name: lowest.get(name) for name in claimed} == claimed


def test_the_developer_s_versions_are_within_the_claims() -> None:
    ours = pins("constraints.txt")
    extras = [name for name in PROJECT["optional-dependencies"] if name not in ("dev", "heif")]
    assert [name for name, version in claims(*extras).items() if ours[name] < version] == []


@pytest.mark.parametrize("name", ["tests-lowest.txt", "tests-without-torch.txt"])
def test_lists_of_tests_name_tests_that_exist(name: str) -> None:
    for line in (ROOT / ".ci" / name).read_text("utf-8").split():
        path, _, function = line.removeprefix("--deselect=").partition("::")
        assert (ROOT / path).exists(), line
        assert not function or f"def {function}(" in (ROOT / path).read_text("utf-8"), line
