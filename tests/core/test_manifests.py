"""Manifests: the last record of an input counts, and what is torn or foreign is told from what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdm_cli.core.batch import Outcome, Task
from rdm_cli.core.manifests import Part, Record, found_manifests, latest, open_manifest, read_manifest
from rdm_cli.data.shards import WHOLE
from rdm_cli.errors import UsageError


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
