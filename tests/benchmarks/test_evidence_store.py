"""What is kept comes back as it was, and what is no such file is told in one line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evidence.findings import read_against
from evidence.store import Entry, Picture, Store

from rdm_cli.errors import RdmError
from rdm_cli.evaluation.figures import Figure

Make = Callable[..., Figure]


def an_entry(figure: Make, **key: Any) -> Entry:
    bare = Figure(bundle="a", name="DCI", value=math.inf, num=3, computed_with={"sha256": "ab"})
    return Entry(
        key={"bundle": {"bundle": "a", "digest": "d"}, "settings": {"num": 3, "steps": [1, 2]}, **key},
        seconds=12.34,
        machine="a machine",
        figures=(figure("a", "PSNR", 30.0, 1.0, "higher", T=10, x_T="inferred"), bare),
        notes=("a remark",),
        pictures=(Picture(file="a.webp", caption="a sheet", rows=("image", "T=10")),),
    )


def test_an_entry_comes_back(figure: Make, tmp_path: Path) -> None:
    store = Store(folder=tmp_path / "deep")
    assert store.entries("edits") == {}
    entry = an_entry(figure)
    store.keep("edits", "a", entry)
    found = store.entries("edits")["a"]
    assert found.key == entry.key and found.notes == entry.notes and found.pictures == entry.pictures
    assert found.figures[0] == entry.figures[0] and found.seconds == 12.3
    assert math.isnan(found.figures[1].value) and found.figures[1].interval is None
    store.keep("edits", "b", an_entry(figure, data="other"))
    store.keep("edits", "a", replace(entry, seconds=1.0))
    assert {name: e.seconds for name, e in store.entries("edits").items()} == {"a": 1.0, "b": 12.3}
    assert [p.name for p in store.folder.iterdir()] == ["edits.json"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"measured": {"a": {}}}', '{"measured": []}', '{"measured": {"a": 1}}']
)
def test_a_damaged_file_is_told_in_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "edits.json").write_text(content)
    with pytest.raises(RdmError, match=r"edits\.json: holds no figures of a study .*; remove it") as error:
        Store(folder=tmp_path).entries("edits")
    assert "\n" not in str(error.value)


def test_the_benchmark_of_training_is_read_as_it_writes(tmp_path: Path) -> None:
    path = tmp_path / "against.json"
    assert read_against(path) == ((), None)
    point = {k: {"mse": 2.0, "half_width": 0.5, "psnr_db": 20.0} for k in ("inferred", "random")}
    results = {m: {"10000": point | {"encoder_parameters": 5}} for m in ("diffae", "pdae")}
    for content, num, pretraining in (
        (results, 0, None),  # as it lies in the benchmark's own folder
        ({"results": results, "num_held_out": 100, "dpm_images": 300_000}, 100, 300_000),
    ):
        path.write_text(json.dumps(content))
        figures, before = read_against(path)
        assert len(figures) == 4 and before == pretraining and figures[0].num == num
        assert figures[0].cell == "2 (1.5 to 2.5)"
        assert dict(figures[0].condition) == {"images seen": 10000, "x_T": "inferred"}
    path.write_text('{"results": {}}')
    with pytest.raises(RdmError, match=r"against\.json: holds no figures of that benchmark"):
        read_against(path)
