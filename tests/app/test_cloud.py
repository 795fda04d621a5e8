"""Explore: which points there are, what each shows, and that a table of somebody else's opens no file."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from rdm_cli import cli
from rdm_cli.app.cloud import cloud_of
from rdm_cli.app.studio import Studio
from rdm_cli.codes.code import Codes
from rdm_cli.collection.rows import open_collection
from rdm_cli.errors import CodeError, UsageError
from rdm_cli.pipeline.pipeline import open_pipeline


def test_points_are_the_codes_and_show_what_their_z_says(studio: Studio, codes: Path) -> None:
    cloud = cloud_of(studio, open_collection(codes))
    assert len(cloud.z) == len(cloud.rows.names) == len(cloud.xy) == 12
    for number in (0, 5, 11):
        own = Codes.load(Path(cloud.rows.paths[number]))
        np.testing.assert_array_equal(cloud.z[number], own.z[0].numpy())
        shown = cloud.picture(studio, number)
        alone = studio.single.decode(own.without_x_T(), steps=1, keys=[0], output="pil")[0]
        assert shown.tobytes() == alone.tobytes()
    source = cloud.source(studio, 5)
    assert source.file.read_bytes() == Path(cloud.rows.paths[5]).read_bytes()
    assert source.word == cloud.rows.paths[5]
    for number in (-1, 12):
        with pytest.raises(UsageError):
            cloud.source(studio, number)


def test_of_many_codes_some_are_drawn_and_that_is_said(studio: Studio, codes: Path) -> None:
    cloud = cloud_of(studio, open_collection(codes), most=5)
    assert len(cloud.z) == 5 and cloud.told.startswith("5 of 12 codes, drawn at random")
    for number, name in enumerate(cloud.rows.names):
        own = Codes.load(codes / f"{name}.safetensors")
        np.testing.assert_array_equal(cloud.z[number], own.z[0].numpy())


def test_the_table_of_the_chosen_has_their_names_places_and_attributes(studio: Studio, codes: Path) -> None:
    cloud = cloud_of(studio, open_collection(codes))
    rows = list(csv.DictReader(io.StringIO(cloud.table([0, 3]).decode())))
    assert [row["name"] for row in rows] == [cloud.rows.names[0], cloud.rows.names[3]]
    own = studio.readings(Codes.load(Path(rows[1]["path"])))
    assert {name: round(value, 4) for name, value in own.items()} == {n: float(rows[1][n]) for n in own}


def test_a_table_opens_no_file_that_it_names(studio: Studio, codes: Path, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    assert cli.main(["codes", "table", str(codes), "-o", str(tmp_path / "z.parquet"), "-q"]) == 0
    table = parquet.read_table(tmp_path / "z.parquet")
    secret = str(tmp_path / "faces-of-others.safetensors")
    Codes.load(next(codes.iterdir())).save([Path(secret)])
    hostile = table.set_column(
        table.column_names.index("path"), "path", arrow.array([secret] * len(table))
    ).set_column(
        table.column_names.index("name"), "name", arrow.array(["../../up\0" + "p" * 300] * len(table))
    )
    parquet.write_table(hostile, tmp_path / "hostile.parquet")
    cloud = cloud_of(studio, open_collection(tmp_path / "hostile.parquet"))
    Path(secret).unlink()  # nothing asks for it
    source = cloud.source(studio, 3)
    np.testing.assert_array_equal(source.code.z[0].numpy(), cloud.z[3])
    assert source.code.x_T is None and source.file.name == f"..-..-up-{'p' * 91}.safetensors"


def test_codes_of_another_bundle_are_refused(codes: Path) -> None:
    with pytest.raises(CodeError, match="made with bundle tiny"):
        cloud_of(Studio(pipeline=open_pipeline()), open_collection(codes))


def test_the_chosen_against_the_rest_become_an_attribute(
    studio: Studio, tiny_bundle: Path, codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud = cloud_of(studio, open_collection(codes))
    hats = cloud.rows.probabilities["hat"]
    chosen = [i for i in range(12) if hats[i] >= np.median(hats)]
    learned = cloud.learned(studio, chosen, "cap")
    assert learned.told.startswith(f"cap, of {len(chosen)} and {12 - len(chosen)} codes: AUROC ")
    (tmp_path / "cap.safetensors").write_bytes(learned.content)
    words = [
        "attributes",
        "import",
        tmp_path / "cap.safetensors",
        "-b",
        tiny_bundle,
        "-o",
        tmp_path / "with-cap",
    ]
    assert cli.main([str(word) for word in words]) == 0, capsys.readouterr().err
    assert Studio(pipeline=open_pipeline(tmp_path / "with-cap")).names == (*studio.names, "cap")
    for name in ("hat", "a b", "", "x=1"):
        with pytest.raises(UsageError, match="cannot be the name"):
            cloud.learned(studio, chosen, name)
    with pytest.raises(UsageError):
        cloud.learned(studio, list(range(12)), "all")
