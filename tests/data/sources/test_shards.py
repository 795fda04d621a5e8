"""Shards: every item in exactly one, the same one for ever, and numbers that make no shard are refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdm_cli.data.sources.shards import Shard, fingerprint, parse_shard, shard_of_environment
from rdm_cli.errors import UsageError


def shards(count: int) -> list[Shard]:
    return [Shard(index=i + 1, count=count) for i in range(count)]


@given(st.text(), st.integers(1, 50))
def test_an_item_is_in_one_shard(name: str, count: int) -> None:
    name = name.encode("utf-8", "replace").decode()
    assert sum(shard.holds(name) for shard in shards(count)) == 1


def test_shards_are_of_about_one_size() -> None:
    names = [f"train/{i:06d}.png" for i in range(8000)]
    sizes = [sum(map(shard.holds, names)) for shard in shards(8)]
    assert sum(sizes) == 8000
    assert all(abs(size - 1000) < 150 for size in sizes)  # five standard deviations of a binomial


def test_an_item_stays_in_its_shard_for_ever() -> None:
    """Across processes, machines and versions; Python's own hash differs from process to process."""
    assert fingerprint("faces/a.png") == 0x16C4D20EA0444CBE
    names = ["a.png", "sub/é.png", "\udcff.png"]
    code = f"from rdm_cli.data.sources.shards import fingerprint; print([fingerprint(n) for n in {names!r}])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str([fingerprint(n) for n in names])


@pytest.mark.parametrize(("text", "label"), [("1/1", "00001-of-00001"), ("3/8", "00003-of-00008")])
def test_a_shard_is_written_as_it_is_read(text: str, label: str) -> None:
    assert str(parse_shard(text)) == text
    assert parse_shard(text).label == label


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "a/b", "1 / 4", "١/٤"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--shard"):
        parse_shard(text)


def slurm(**values: int) -> dict[str, str]:
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


RANKS = {"RANK": "1", "WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({}, None),
        (slurm(ID=0, MIN=0, COUNT=4, STEP=1), "1/4"),
        (slurm(ID=4, MIN=1, MAX=4, COUNT=4, STEP=1), "4/4"),
        (slurm(ID=7, MIN=1, MAX=10, COUNT=4, STEP=3), "3/4"),
        (slurm(ID=7, MIN=1, MAX=10, STEP=3), "3/4"),  # an old SLURM has no COUNT
        (RANKS, "2/2"),
        ({"RANK": "0", "WORLD_SIZE": "1"}, "1/1"),
        ({"RANK": "0"}, None),
        (slurm(ID=2, MIN=1, COUNT=3, STEP=1) | RANKS, "4/6"),
    ],
)
def test_the_environment_says_which_shard(environment: dict[str, str], shard: str | None) -> None:
    found = shard_of_environment(environment)
    assert (found and str(found[0])) == shard


def test_tasks_that_launch_processes_share_out_everything() -> None:
    found = []
    for task in range(1, 4):
        for rank in range(2):
            environment = slurm(ID=task, MIN=1, COUNT=3, STEP=1) | {"RANK": str(rank), "WORLD_SIZE": "2"}
            shard = shard_of_environment(environment)
            assert shard is not None
            found.append(str(shard[0]))
    assert found == [f"{i}/6" for i in range(1, 7)]


@pytest.mark.parametrize("step", [1, 2, 4])  # whatever an array with gaps has for one
@pytest.mark.parametrize("tasks", [(1, 2, 3, 9), (1, 2, 4), (0, 1, 5, 6, 7), (3, 9, 10)])
def test_an_array_with_gaps_is_refused_by_each_of_its_tasks(tasks: tuple[int, ...], step: int) -> None:
    for task in tasks:
        environment = slurm(ID=task, MIN=min(tasks), MAX=max(tasks), COUNT=len(tasks), STEP=step)
        with pytest.raises(UsageError, match="this array has gaps"):
            shard_of_environment(environment)


@pytest.mark.parametrize(
    "environment",
    [
        slurm(ID=7, MIN=1, MAX=7, COUNT=3, STEP=1),  # --array=1,5,7
        slurm(ID=4, MIN=1, MAX=7, COUNT=3, STEP=2),
        slurm(ID=1),
        slurm(ID=0, MIN=1, COUNT=4, STEP=1),
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "first", "WORLD_SIZE": "2"},
    ],
)
def test_an_environment_that_fits_no_shard_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        shard_of_environment(environment)
    assert "--shard" in str(caught.value.hint)
