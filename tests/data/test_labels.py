"""Label tables in every format that is read, written by hand here, and their alignment to names."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdm_cli.data.labels import LabelTable, match, read_labels, snake_case
from rdm_cli.errors import RdmError, UsageError

NAN = float("nan")


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def assert_values(table: LabelTable, expected: list[list[float]]) -> None:
    assert table.values.dtype == torch.float32
    torch.testing.assert_close(
        table.values, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=0, equal_nan=True
    )


def test_metadata_csv(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "metadata.csv",
        "file_name,Smiling,caption,Wearing Hat,age\n"
        "a.png,1,a face,0,31\n"
        'sub/b.png,0,"one, two",,4\n'
        "\n"
        "./c.png, 1 ,,1,\n",
    )
    table = read_labels(path)
    assert table.names == ("smiling", "wearing_hat")
    assert table.files == ("a.png", "sub/b.png", "c.png")
    assert table.skipped == {
        "caption": "line 2 says neither yes nor no, and so do 1 more",
        "age": "line 2 says neither yes nor no, and so do 1 more",
    }
    assert table.remarks == [
        "columns that are no labels: caption (line 2 says neither yes nor no, and so do 1 more); "
        "age (line 2 says neither yes nor no, and so do 1 more)"
    ]
    assert_values(table, [[1, 0], [0, NAN], [1, 1]])


@pytest.mark.parametrize(
    ("no", "yes"),
    [("0", "1"), ("-1", "1"), ("false", "true"), ("False", "TRUE"), ("no", "Yes"), ("0.0", "1.0")],
)
def test_every_spelling_of_yes_and_no(tmp_path: Path, no: str, yes: str) -> None:
    path = written(tmp_path, "m.csv", f"file_name,x\na,{no}\nb,{yes}\nc,\n")
    assert_values(read_labels(path), [[0], [1], [NAN]])


@pytest.mark.parametrize(
    "cells", [("0", "1", "-1"), ("1", "yes"), ("true", "0"), ("0", "2"), ("", ""), ("no", "maybe")]
)
def test_columns_that_are_not_yes_or_no_are_left_out(tmp_path: Path, cells: tuple[str, ...]) -> None:
    rows = "".join(f"{i}.png,{cell},1\n" for i, cell in enumerate(cells))
    table = read_labels(written(tmp_path, "m.csv", "file_name,odd,sound\n" + rows))
    assert table.names == ("sound",) and list(table.skipped) == ["odd"] and "odd (" in table.remarks[0]


@pytest.mark.parametrize("unknown", ["", "NA", "N/A", "nan", "NaN", "<NA>", "null", "None", "?", "#N/A"])
def test_a_cell_that_is_not_available_is_unknown(tmp_path: Path, unknown: str) -> None:
    """What pandas and spreadsheets write for no answer: one such cell is no reason to drop its column."""
    table = read_labels(written(tmp_path, "m.csv", f"file_name,hat\na,0\nb,{unknown}\nc,1\n"))
    assert table.names == ("hat",) and not table.skipped and not table.remarks
    assert_values(table, [[0], [NAN], [1]])


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ("no,maybe,yes", "line 3 says neither yes nor no"),
        ("0,1,yes", "it mixes several ways to say yes and no"),
        ("NA,,nan", "all its cells are unknown"),
    ],
)
def test_why_a_column_is_no_label_is_said(tmp_path: Path, cells: str, why: str) -> None:
    rows = "".join(f"{i}.png,{cell}\n" for i, cell in enumerate(cells.split(",")))
    with pytest.raises(RdmError, match=f"no column of yes/no labels.*; hat: {why}"):
        read_labels(written(tmp_path, "m.csv", "file_name,hat\n" + rows))


@pytest.mark.parametrize("column", ["file_name", "filename", "image", "image_id", "File_Name"])
def test_column_of_files_by_any_usual_name(tmp_path: Path, column: str) -> None:
    table = read_labels(written(tmp_path, "m.csv", f"x,{column}\n1,a.png\n0,b.png\n"))
    assert table.files == ("a.png", "b.png") and table.names == ("x",)


def test_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    path = written(tmp_path, "m.csv", b"\xef\xbb\xbffile_name;x\r\na.png;1\r\nb.png;0\r\n")
    assert_values(read_labels(path), [[1], [0]])


def test_csv_with_the_row_numbers_that_pandas_adds(tmp_path: Path) -> None:
    table = read_labels(written(tmp_path, "m.csv", ",file_name,x\n0,a.png,1.0\n1,b.png,\n"))
    assert table.names == ("x",) and table.skipped == {"": "the column has no name"}


def test_metadata_jsonl(tmp_path: Path) -> None:
    rows = [
        {"file_name": "a.png", "smiling": True, "hat": 1, "text": "hi", "boxes": [1, 2]},
        {"file_name": "b.png", "smiling": False, "hat": None},
        {"file_name": "c.png", "hat": 0.0, "smiling": NAN},
    ]
    path = written(tmp_path, "metadata.jsonl", "\n".join(json.dumps(row) for row in rows) + "\n")
    table = read_labels(path)
    assert table.names == ("smiling", "hat") and list(table.skipped) == ["text", "boxes"]
    assert_values(table, [[1, 1], [0, NAN], [NAN, 0]])


@pytest.mark.parametrize("name", ["list_attr_celeba.txt", "CelebAMask-HQ-attribute-anno.txt"])
def test_celeba(tmp_path: Path, name: str) -> None:
    gap = "  " if "HQ" in name else " "  # the HQ list has two spaces after the name
    path = written(
        tmp_path,
        name,
        f"3\n5_o_Clock_Shadow Eyeglasses Smiling \n"
        f"000001.jpg{gap}-1  1 -1\n000002.jpg{gap}1 -1 -1\n000003.jpg{gap}-1 -1  1\n",
    )
    table = read_labels(path)
    assert table.names == ("5_o_clock_shadow", "eyeglasses", "smiling")
    assert table.files == ("000001.jpg", "000002.jpg", "000003.jpg")
    assert_values(table, [[0, 1, 0], [1, 0, 0], [0, 0, 1]])


def test_kind_is_told_by_content_where_the_suffix_says_nothing(tmp_path: Path) -> None:
    contents = (
        "file_name,x\na.png,1\n",
        "file_name\tx\na.png\t1\n",
        '{"file_name": "a.png", "x": 1}\n',
        "1\nx\na.png 1\n",
    )
    for i, content in enumerate(contents):
        table = read_labels(written(tmp_path, f"{i}.txt", content))
        assert (table.names, table.files) == (("x",), ("a.png",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", "name,x\na.png,1\n", r"m\.csv:1: no column file_name; the columns found: name, x"),
        ("m.csv", "file_name,x\na.png,1\nb.png\n", r"m\.csv:3: 1 cells where the header has 2"),
        ("m.csv", "file_name,x\na.png,1\n\nb.png,1,1\n", r"m\.csv:4: 3 cells where the header has 2"),
        ("m.csv", 'file_name,x\na.png,"1\n', r"m\.csv:\d: not valid CSV"),
        ("m.csv", "file_name,x\na.png,red\n", r"m\.csv:1: no column of yes/no labels"),
        ("m.csv", "file_name\na.png\n", r"m\.csv:1: no column of yes/no labels"),
        ("m.csv", "file_name,x\n ,1\n", r"m\.csv:2: the image's file name is empty"),
        ("m.csv", "file_name,x\na.png,1\nb,1\n./a.png,0\n", r"m\.csv:4: a\.png is listed already in line 2"),
        ("m.csv", "file_name,No Hat,no_hat\na,1,0\n", r"No Hat and no_hat are both called no_hat"),
        ("m.csv", "file_name,x\n", "lists no images"),
        ("m.csv", "", "no column file_name"),
        ("m.csv", b"file_name,x\n\xff.png,1\n", "not a text file in UTF-8"),
        ("m.jsonl", '{"file_name": "a", "x": 1}\n{oops\n', r"m\.jsonl:2: not valid JSON"),
        ("m.jsonl", '{"file_name": "a", "x": 1}\n[1]\n', r"m\.jsonl:2: each line must be a JSON object"),
        ("m.jsonl", '{"file_name": "a", "x": 1}\n{"x": 1}\n', r"m\.jsonl:2: no column file_name"),
        ("m.jsonl", '{"file_name": 7, "x": 1}\n', r"m\.jsonl:1: file_name must be a file's name"),
        ("l.txt", "2\nx y\na.jpg 1 -1\nb.jpg 1\n", r"l\.txt:4: 2 cells where the header has 3"),
        ("l.txt", "3\nx\na.jpg 1\nb.jpg 1\n", r"l\.txt:1: 3 images are announced, and 2 follow"),
        ("l.txt", "once upon a time\n", r"l\.txt:1: not a label table"),
    ],
)
def test_errors_say_what_and_where(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(RdmError, match=message) as caught:
        read_labels(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_table_and_folder_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such label table"):
        read_labels(tmp_path / "metadata.csv")
    with pytest.raises(UsageError, match=r"this is a folder; .*metadata\.csv"):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Smiling", "smiling"),
        ("5_o_Clock_Shadow", "5_o_clock_shadow"),
        ("Wearing Hat", "wearing_hat"),
        ("WearingHat", "wearing_hat"),
        ("HTTPError", "http_error"),
        (" No-Beard? ", "no_beard"),
        ("#", ""),
    ],
)
def test_snake_case(name: str, expected: str) -> None:
    assert snake_case(name) == expected


@given(st.text())
def test_snake_case_is_settled_at_once(name: str) -> None:
    assert snake_case(snake_case(name)) == snake_case(name)


ANSWERS = st.sampled_from([0.0, 1.0, NAN])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    columns=st.lists(st.lists(ANSWERS, min_size=4, max_size=4), min_size=1, max_size=5),
    spelling=st.sampled_from([("0", "1"), ("-1", "1"), ("no", "yes"), ("false", "true")]),
)
def test_formats_agree(tmp_path: Path, columns: list[list[float]], spelling: tuple[str, str]) -> None:
    columns = [[1.0, 0.0, *column] for column in columns]  # each column has both answers
    names = [f"label_{i}" for i in range(len(columns))]
    rows = list(zip(*columns, strict=True))
    cells = [["" if math.isnan(value) else spelling[int(value)] for value in row] for row in rows]
    header = ",".join(["file_name", *names])
    lines = [",".join([f"{i}.png", *row]) for i, row in enumerate(cells)]
    objects = [
        json.dumps({"file_name": f"{i}.png", **dict(zip(names, row, strict=True))})
        for i, row in enumerate(cells)
    ]
    for table in (
        read_labels(written(tmp_path, "m.csv", "\n".join([header, *lines]))),
        read_labels(written(tmp_path, "m.jsonl", "\n".join(objects))),
    ):
        assert table.names == tuple(names) and not table.skipped
        assert_values(table, [list(row) for row in rows])


def table_of(*files: str) -> LabelTable:
    """A table whose row i holds the value i % 2 in column ``parity`` and 1 in row 0's ``first``."""
    values = torch.tensor([[i % 2, i == 0] for i in range(len(files))], dtype=torch.float32)
    return LabelTable(names=("parity", "first"), files=files, values=values)


def test_match_goes_by_path_then_bare_path_then_stem() -> None:
    table = table_of("a.png", "sub/c.png", "other/d.v2.webp")
    matched = match(table, ["c.safetensors", "./a.png", "nobody.png", "d.v2.safetensors"])
    assert matched.unmatched == ("nobody.png",)
    expected = torch.stack([table.values[1], table.values[0], torch.full((2,), NAN), table.values[2]])
    torch.testing.assert_close(matched.values, expected, equal_nan=True)
    assert matched.guessed == {"c.safetensors": "sub/c.png", "d.v2.safetensors": "other/d.v2.webp"}
    assert matched.remarks("codes") == [
        "1 of 4 codes have no row in the label table, nobody.png among them",
        "2 codes found their rows by their file names alone: c.safetensors is taken for sub/c.png",
    ]


def test_labels_of_another_split_are_nobodys() -> None:
    """Inverted labels give AUROC 1.00: nothing that comes later would notice."""
    table = table_of("train/000000.png", "train/000001.png", "val/000001.png")
    matched = match(table, ["val/000000.png", "val/000001.png", "test/000000.safetensors"])
    assert matched.unmatched == ("val/000000.png", "test/000000.safetensors") and not matched.guessed
    torch.testing.assert_close(matched.values[1], table.values[2])
    assert match(table, ["a/000000.png", "000000.png"]).unmatched == ("a/000000.png", "000000.png")
    flat = match(table_of("000000.png", "000001.png"), ["img_align_celeba/000001.jpg", "000000.png"])
    assert flat.unmatched == () and not flat.guessed  # CelebA's list names no folders


def test_a_caller_that_knows_the_folders_has_no_stems() -> None:
    table = table_of("train/0.png")
    assert match(table, ["0.png"]).guessed == {"0.png": "train/0.png"}
    assert match(table, ["0.png"], by_stem=False).unmatched == ("0.png",)
    assert match(table_of("0.png"), ["train/0.png"], by_stem=False).unmatched == ()


def test_match_prefers_the_exact_path() -> None:
    table = table_of("a.png", "a.jpg", "sub/a.png")
    matched = match(table, ["sub/a.png", "a.jpg", "a.png"])
    torch.testing.assert_close(matched.values, table.values[[2, 1, 0]])


@pytest.mark.parametrize(
    ("files", "name", "message"),
    [
        (("a.png", "a.jpg"), "a.safetensors", r"a\.safetensors: .* a\.png and a\.jpg"),
        (("x/a.png", "y/a.png"), "a.png", r"a\.png: .* x/a\.png and y/a\.png"),
    ],
)
def test_name_with_several_rows_is_refused(files: tuple[str, ...], name: str, message: str) -> None:
    with pytest.raises(RdmError, match=message):
        match(table_of(*files), [name])


def test_row_with_several_names_is_refused() -> None:
    with pytest.raises(RdmError, match=r"x/a\.png and y/a\.png both answer to .* a\.png"):
        match(table_of("a.png"), ["x/a.png", "y/a.png"])


def test_name_given_twice_has_its_row_twice() -> None:
    table = table_of("a.png", "b.png")
    matched = match(table, ["b", "b", "a"])
    torch.testing.assert_close(matched.values, table.values[[1, 1, 0]])


PATHS = st.lists(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join), unique=True, max_size=10
)


@given(files=PATHS, data=st.data())
def test_match_of_the_tables_own_names_is_the_table(files: list[str], data: st.DataObject) -> None:
    table = table_of(*(f"{file}.png" for file in files)) if files else table_of("z.png")
    order = data.draw(st.permutations(range(len(table.files))))
    for suffix in (".png", ".safetensors", ""):
        matched = match(table, [table.files[i].removesuffix(".png") + suffix for i in order])
        assert matched.unmatched == ()
        torch.testing.assert_close(matched.values, table.values[list(order)])


def test_nothing_to_match() -> None:
    matched = match(table_of("a.png"), [])
    assert matched.values.shape == (0, 2) and matched.unmatched == ()
