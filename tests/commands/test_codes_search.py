"""rdm codes search, index, map, odd and twins, as they are typed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rdm_cli.codes.code import Codes
from rdm_cli.data.images.record import read_record

Rdm = Callable[..., Any]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test of this file leaves the codes that the others copy."""
    return tmp_path_factory.mktemp("encoded") / "codes"


@pytest.fixture
def codes(tiny: Rdm, faces: Path, encoded: Path, tmp_path: Path) -> Path:
    """The codes of the five faces, z alone."""
    if not encoded.exists():
        assert tiny("encode", faces, "-o", encoded, "--no-x-t").code == 0
    return Path(shutil.copytree(encoded, tmp_path / "codes"))


@pytest.fixture
def table(rdm: Rdm, codes: Path, tiny_bundle: Path, tmp_path: Path) -> Path:
    """Their table."""
    pytest.importorskip("pyarrow")
    assert rdm("codes", "table", codes, "-o", tmp_path / "z.parquet", "-b", tiny_bundle).code == 0
    return tmp_path / "z.parquet"


def test_an_image_and_its_code_find_themselves(tiny: Rdm, codes: Path, table: Path, faces: Path) -> None:
    for place in (codes, table):
        for query in (faces / "c.png", codes / "c.safetensors"):
            found = tiny("codes", "search", place, query, "--top", 3, "--json")
            assert found.code == 0 and [o["rank"] for o in found.objects] == [1, 2, 3]
            assert found.objects[0]["name"] == "c" and found.objects[0]["cosine"] > 0.9999
            assert found.objects[0]["path"] == str(codes / "c.safetensors")
            assert f"standardised by the codes of {place.name}" in found.err  # the tiny bundle has no domain


def test_without_its_bundle_a_code_still_finds_what_is_near(rdm: Rdm, table: Path, codes: Path) -> None:
    found = rdm("codes", "search", table, codes / "c.safetensors", "--top", 2)
    assert found.code == 0 and found.lines[1].split()[0] == "c"
    refused = rdm("codes", "search", table, "smiling")
    assert refused.code == 1 and "cannot be opened" in refused.err and "--bundle" in refused.err


def test_a_sample_is_a_query(tiny: Rdm, codes: Path) -> None:
    asked = [
        tiny("codes", "search", codes, query, "--json").out
        for query in ("sample:3", "sample:3:0", "sample:3:1")
    ]
    assert asked[0] == asked[1] != asked[2]


def test_words_list_the_codes_of_which_they_hold(
    tiny: Rdm, codes: Path, table: Path, tiny_bundle: Path, faces: Path
) -> None:
    import pyarrow.parquet as pq

    rows = {row["name"]: row for row in pq.read_table(table).to_pylist()}
    for words, holds in (
        ("glasses", lambda row: row["p_glasses"] >= 0.5),
        ("not hat", lambda row: row["p_hat"] < 0.5),
        ("smiling or not (hat or glasses)", lambda row: row["p_smiling"] >= 0.5
         or not (row["p_hat"] >= 0.5 or row["p_glasses"] >= 0.5)),
    ):  # fmt: skip
        found = tiny("codes", "search", table, words, "--json")
        assert {o["name"] for o in found.objects} == {name for name, row in rows.items() if holds(row)}
        scores = [o["probability"] for o in found.objects]
        assert scores == sorted(scores, reverse=True) and all(score >= 0.5 for score in scores)
        near = tiny("codes", "search", codes, faces / "a.png", words, "--json")
        assert {o["name"] for o in near.objects} == {o["name"] for o in found.objects}
        assert all("cosine" in o for o in near.objects)


def test_by_an_attribute_the_nearest_are_those_of_the_same_probability(
    tiny: Rdm, codes: Path, table: Path
) -> None:
    import pyarrow.parquet as pq

    rows = {row["name"]: row["p_glasses"] for row in pq.read_table(table).to_pylist()}
    found = tiny("codes", "search", table, codes / "b.safetensors", "--by", "glasses", "--json").objects
    assert [o["name"] for o in found][0] == "b" and found[0]["distance"] == pytest.approx(0, abs=1e-4)
    import math

    logit = {name: math.log(p / (1 - p)) for name, p in rows.items()}
    order = sorted(logit, key=lambda name: abs(logit[name] - logit["b"]))
    assert [o["name"] for o in found] == order


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("glasses and", "an attribute is missing at the end"),
        ("(" * 500 + "glasses", "within one another"),
        ("x" * 5000, "at most 1000"),
        ("glases", "did you mean 'glasses'"),
        ("glasses; rm -rf /", "no such file"),
        ("'; DROP TABLE codes", "is not closed"),
        ("\x1b[31mred", "no attribute named"),
        ("gone.png", "gone.png: no such file"),
        (".", "a folder is no query"),
        ("sample:-1", "no attribute named"),
        ("", "an attribute is missing"),
    ],
)
def test_a_query_that_is_none_is_one_clear_line(tiny: Rdm, codes: Path, query: str, told: str) -> None:
    refused = tiny("codes", "search", codes, query)
    assert refused.code == 2 and refused.out == "" and told in refused.err
    assert len(refused.err.splitlines()) == 1 and "\x1b" not in refused.err


def test_queries_of_another_bundle_are_refused(
    tiny: Rdm, rdm: Rdm, codes: Path, table: Path, tmp_path: Path
) -> None:
    pytest.importorskip("usearch", reason="usearch is not installed")
    assert tiny("codes", "index", table, "-o", tmp_path / "i").code == 0
    one = Codes.load(codes / "a.safetensors")
    other = tmp_path / "other.safetensors"
    one.replace(infos=(replace(one.infos[0], bundle="other", bundle_digest="ab" * 32),)).save([other])
    for place in (codes, table, tmp_path / "i"):
        refused = rdm("codes", "search", place, other)
        assert refused.code == 1 and "were made with bundle tiny" in refused.err
        assert "not with other (abababababab)" in refused.err and refused.out == ""
        named = rdm("codes", "search", place, codes / "a.safetensors", "-b", "avatars64-diffae")
        assert named.code == 1 and "not with avatars64-diffae" in named.err


def test_an_index_answers_as_the_table_does_and_sends_words_to_it(
    tiny: Rdm, table: Path, codes: Path, faces: Path, tmp_path: Path
) -> None:
    pytest.importorskip("usearch", reason="usearch is not installed")
    folder = tmp_path / "i"
    made = tiny("codes", "index", table, "-o", folder, "--json")
    assert made.objects == [{"output": str(folder), "known": 0, "added": 5, "replaced": 0}]
    asked = (faces / "d.png", "--json")
    by_index, by_table = (tiny("codes", "search", place, *asked).objects for place in (folder, table))
    assert [o["name"] for o in by_index] == [o["name"] for o in by_table]
    for one, other in zip(by_index, by_table, strict=True):
        assert one["cosine"] == pytest.approx(other["cosine"], abs=2e-3)
    words = tiny("codes", "search", folder, "glasses")
    assert words.code == 2 and f"search {table}" in words.err
    by = tiny("codes", "search", folder, faces / "d.png", "--by", "hat")
    assert by.code == 2 and "--by" in by.err
    again = tiny("codes", "index", table, "-o", folder, "--json").objects[0]
    assert (again["known"], again["added"]) == (5, 0)


def test_without_usearch_one_line_names_the_extra(
    rdm: Rdm, codes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "usearch", None)
    monkeypatch.delitem(__import__("sys").modules, "usearch.index", raising=False)
    refused = rdm("codes", "index", codes, "-o", tmp_path / "i")
    assert refused.code == 2 and not (tmp_path / "i").exists()
    assert refused.err == "rdm: an index of codes needs usearch; pip install 'rdm-cli[search]'\n"


def test_a_damaged_code_is_told_and_the_others_are_searched(tiny: Rdm, codes: Path, faces: Path) -> None:
    (codes / "b.safetensors").write_text("no code")
    found = tiny("codes", "search", codes, faces / "a.png", "--json")
    assert found.code == 3 and {o["name"] for o in found.objects} == {"a", "c", "d", "sub/e"}
    assert found.err.count("b.safetensors") == 1 and "1 codes could not be read" in found.err


def test_a_sheet_shows_what_was_asked_and_what_was_found(
    tiny: Rdm, codes: Path, table: Path, faces: Path, tmp_path: Path
) -> None:
    sheet = tmp_path / "near.png"
    asked = (faces / "a.png", "--top", 3, "--sheet", sheet)
    assert tiny("codes", "search", table, *asked, "--images", faces).code == 0
    record = read_record(sheet)
    assert record is not None and record["what"] == "search" and "codes search" in record["command"]
    with Image.open(sheet) as image:
        assert image.width > 4 * 256 and image.height < 2 * 300  # four pictures in a row
    assert tiny("codes", "search", codes, *asked, "--force").code == 0  # decoded
    sheet.write_bytes((faces / "b.png").read_bytes())
    assert tiny("codes", "search", codes, *asked).code == 1
    assert sheet.read_bytes() == (faces / "b.png").read_bytes()


def test_a_table_has_the_probabilities_of_its_bundle_s_attributes(
    rdm: Rdm, codes: Path, table: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq
    import torch

    from rdm_cli.bundles.bundle import open_bundle

    directions = open_bundle(tiny_bundle).directions
    rows = pq.read_table(table).to_pylist()
    z = torch.tensor([row["z"] for row in rows])
    for i, name in enumerate(directions.names):
        told = torch.tensor([row[f"p_{name}"] for row in rows])
        torch.testing.assert_close(told, directions.logits(z).sigmoid()[:, i])
    without = rdm("codes", "table", codes, "-o", tmp_path / "w.parquet")
    assert without.code == 0 and "without probabilities of attributes" in without.err
    assert not [name for name in pq.read_schema(tmp_path / "w.parquet").names if name.startswith("p_")]


def test_a_table_opens_in_pandas_and_duckdb(tiny: Rdm, table: Path, tmp_path: Path) -> None:
    duckdb, pandas = import_module("duckdb"), import_module("pandas")
    placed = tmp_path / "placed.parquet"
    assert tiny("codes", "map", table, "-o", tmp_path / "m.html", "--table", placed).code == 0
    assert pandas.read_parquet(placed)["z"].iloc[0].shape == (8,)
    asked = f"SELECT name, x, y, list_cosine_similarity(z, z) FROM '{placed}' WHERE p_hat < 2"
    assert len(duckdb.sql(asked).fetchall()) == 5


def test_a_map_puts_x_and_y_into_a_new_table_and_takes_no_file_s_place(
    tiny: Rdm, table: Path, faces: Path, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    page, placed = tmp_path / "map.html", tmp_path / "placed.parquet"
    before = table.read_bytes()
    made = tiny("codes", "map", table, "-o", page, "--table", placed, "--images", faces, "--json")
    assert made.code == 0 and made.objects == [
        {"output": str(page), "table": str(placed), "points": 5, "codes": 5, "pictures": 5}
    ]
    rows, old = pq.read_table(placed).to_pylist(), pq.read_table(table).to_pylist()
    assert [{k: v for k, v in row.items() if k not in "xy"} for row in rows] == old
    assert all(isinstance(row[axis], float) for row in rows for axis in "xy")
    assert pq.read_schema(placed).metadata[b"z_shape"] == b"[8]" and table.read_bytes() == before
    again = tiny("codes", "map", table, "-o", page, "--table", placed)
    assert again.code == 1 and "is there already" in again.err
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    assert tiny("codes", "map", table, "-o", mine).code == 1 and mine.read_text() == "mine"
    assert tiny("codes", "map", table, "-o", tmp_path / "map.png").code == 2
    assert tiny("codes", "map", tmp_path / "codes", "-o", page, "--table", placed).code == 2


def test_a_map_of_codes_alone_decodes_as_many_as_asked(tiny: Rdm, codes: Path, tmp_path: Path) -> None:
    made = tiny("codes", "map", codes, "-o", tmp_path / "m.html", "--decode", 2, "--json")
    assert made.code == 0 and made.objects[0]["pictures"] == 2
    none = tiny("codes", "map", codes, "-o", tmp_path / "m.html", "--points", 4, "--json")
    assert none.objects[0] == {"output": str(tmp_path / "m.html"), "table": None, "points": 4, "codes": 5,
                               "pictures": 0}  # fmt: skip
    assert "add --decode" in none.err


def test_umap_names_its_extra(
    tiny: Rdm, codes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    refused = tiny("codes", "map", codes, "-o", tmp_path / "m.html", "--layout", "umap")
    assert refused.code == 2 and "umap-learn; pip install 'rdm-cli[map]'" in refused.err
    assert not (tmp_path / "m.html").exists()


def test_odd_and_twins_say_what_they_looked_at(tiny: Rdm, rdm: Rdm, codes: Path, faces: Path) -> None:
    from rdm_cli.codes.code import read_info

    odd = tiny("codes", "odd", codes)
    assert odd.code == 0 and "the bundle has no domain" in odd.err and "rdm encode --verify" in odd.err
    assert tiny("encode", faces / "a.png", "-o", codes / "copy.safetensors", "--no-x-t").code == 0
    found = tiny("codes", "twins", codes, "--json")
    assert found.code == 0 and {o["name"] for o in found.objects} == {"a", "copy"}
    assert all(o["same_file"] and o["group"] == 1 and o["cosine"] > 0.9999 for o in found.objects)
    assert read_info(codes / "copy.safetensors").source == "a.png"
    sheet = codes.with_name("twins.png")
    assert tiny("codes", "twins", codes, "--sheet", sheet).code == 0
    record = read_record(sheet)
    assert record is not None and (record["what"], record["at"]) == ("twins", 0.98)
    assert json.loads(rdm("codes", "twins", codes, "--json", "-q").lines[0])["group"] == 1


ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_every_command_of_the_page_runs(rdm: Rdm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("usearch", reason="usearch is not installed")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "assets" / "faces", "faces")
    for i, path in enumerate(sorted(Path("faces").glob("*.png"))):
        path.rename(f"faces/{i:06d}.png")
    page = (ROOT / "docs" / "codes-search.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, flags=re.M | re.S)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) > 10
    for command in commands:
        assert rdm(*shlex.split(command)[1:]).code == 0, command
