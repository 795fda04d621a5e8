"""Manifests: the last record of an input counts, and what is torn or foreign is told from what is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdm_cli.data.sources.shards import WHOLE, Shard, parse_shard
from rdm_cli.errors import UsageError
from rdm_cli.jobs.batch import Outcome, Task
from rdm_cli.jobs.manifests import Part, Record, found_manifests, latest, open_manifest, read_manifest
from rdm_cli.jobs.verify import merge_manifests, statuses


def record(name: str, seconds: float) -> Record:
    return Record(input=name, output=f"{name}.safetensors", digest=None, seconds=seconds, error=None)


@given(st.lists(st.lists(st.sampled_from("abcdef\né"), max_size=6), min_size=1, max_size=3))
def test_of_every_input_the_last_record_counts(tmp_path_factory: pytest.TempPathFactory, files: list) -> None:
    folder = tmp_path_factory.mktemp("m")
    paths, expected, number = [], dict[str, float](), 0
    for i, names in enumerate(files):
        lines = []
        for name in names:
            number += 1
            expected.pop(name, None)
            expected[name] = float(number)
            lines.append(record(name, float(number)).as_line())
        paths.append(folder / str(i))
        paths[-1].write_text("".join(lines))
    assert {r.input: r.seconds for r in latest(paths)} == expected
    assert [r.input for r in latest(paths)] == list(expected)


def test_a_streams_number_of_items_is_known_at_its_end(tmp_path: Path) -> None:
    path, part = tmp_path / "m.jsonl", Part(verb="encode", shard=WHOLE, num_items=None)
    task = Task(source=path, target=tmp_path / "a", name="a")
    for complete in (False, True):
        with pytest.raises(KeyboardInterrupt) if not complete else open_manifest(None, part):
            with open_manifest(str(path), part) as manifest:
                assert manifest is not None
                manifest.add(Outcome(item=task, error="bad"))
                if not complete:
                    raise KeyboardInterrupt
    counts = [line.num_items for line in read_manifest(path) if isinstance(line, Part)]
    assert counts == [None, None, 1]


def test_another_file_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n[]\nnull\n')
    with pytest.raises(UsageError, match="not a manifest"):
        list(read_manifest(tmp_path / "other.jsonl"))
    with pytest.raises(UsageError, match="no manifests there"), found_manifests([str(tmp_path)]):
        pass
    with found_manifests([str(tmp_path)], required=False) as found:
        assert not found


def test_a_manifest_is_of_one_verb_and_one_shard(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    first = Part(verb="encode", shard=WHOLE, num_items=1)
    for _ in range(2):
        with open_manifest(str(path), first):
            pass
    before = path.read_bytes()
    half = Shard(index=1, count=2)
    for other in (
        Part(verb="decode", shard=WHOLE, num_items=1),
        Part(verb="encode", shard=half, num_items=1),
    ):
        with pytest.raises(UsageError, match=f"the manifest of encode, shard 1/1, and this is {other.verb}"):
            with open_manifest(str(path), other):
                pass
    assert path.read_bytes() == before


def manifest_of(path: Path, part: Part, *names: str, failed: bool = False, age: int) -> Path:
    error = "bad" if failed else None
    lines = [Record(input=n, output=f"{n}.x", digest=None, seconds=0.0, error=error) for n in names]
    path.write_text(part.as_line() + "".join(line.as_line() for line in lines))
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def shard(text: str, num_items: int, verb: str = "encode") -> Part:
    return Part(verb=verb, shard=parse_shard(text), num_items=num_items)


def test_the_latest_sharding_is_counted(tmp_path: Path) -> None:
    """A shard of an old sharding is left over; its records count where no later one knows the input."""
    old = manifest_of(tmp_path / "old", shard("3/4", 2), "a", "z", failed=True, age=100)
    new = [
        manifest_of(tmp_path / "new1", shard("1/2", 2), "a", "b", age=10),
        manifest_of(tmp_path / "new2", shard("2/2", 1), "c", age=9),
    ]
    found = {str(status.shard): status for status in statuses([*new, old])}
    assert list(found) == ["1/2", "2/2", "3/4"]  # and no rows for the old one's other shards
    assert [status.is_counted for status in found.values()] == [True, True, False]
    assert all(found[name].is_complete for name in ("1/2", "2/2"))
    with found_manifests([str(tmp_path)], required=False) as none:
        assert not none
    for path in (old, *new):
        path.rename(path.with_name(f"{path.name}.manifest.jsonl"))
    with found_manifests([str(tmp_path)]) as paths:
        assert [path.name.partition(".")[0] for path in paths] == ["old", "new1", "new2"]
        assert {r.input: r.error for r in latest(list(paths))} == {
            "a": None,
            "b": None,
            "c": None,
            "z": "bad",
        }


def test_manifests_of_two_verbs_are_not_counted_as_one(tmp_path: Path) -> None:
    one = manifest_of(tmp_path / "1", shard("1/1", 1), "a", age=2)
    two = manifest_of(tmp_path / "2", shard("1/1", 1, "decode"), "b", age=1)
    assert [status.verb for status in statuses([one, two])] == ["decode", "encode"]
    with pytest.raises(UsageError, match="these are manifests of decode and of encode"):
        merge_manifests([one, two], tmp_path / "all")
    assert not (tmp_path / "all").exists()
    (tmp_path / "3").write_text(one.read_text() + two.read_text())
    with pytest.raises(UsageError, match="encode and decode share this manifest"):
        statuses([tmp_path / "3"])


def test_records_of_other_inputs_are_told(tmp_path: Path) -> None:
    (status,) = statuses([manifest_of(tmp_path / "1", shard("1/1", 2), "a", "b", "c", age=1)])
    assert (status.num_others, status.num_left) == (1, 0)
