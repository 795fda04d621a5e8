"""Parquet files of images: which column is read, how much is unpacked at once, what is refused by name."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.data.sources.opening import sources_of
from rdm_cli.data.sources.parquet import ParquetImages
from rdm_cli.errors import RdmError, UsageError

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

IMAGE = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])


def images(*contents: bytes | None) -> Any:
    return arrow.array([{"bytes": content, "path": "x/a.png"} for content in contents], type=IMAGE)


def written(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    parquet.write_table(arrow.table(columns), path, **options)
    return path


def read(path: Path, column: str | None = None) -> dict[str, bytes | str]:
    """Of every item, by its name in the table, its content or why it cannot be read."""
    found: dict[str, bytes | str] = {}
    for item in ParquetImages(str(path), column=column).items():
        name = str(item.source).removeprefix(f"{path}/")
        try:
            found[name] = item.source.read_bytes()
        except RdmError as error:
            found[name] = str(error)
    return found


def test_the_column_called_image_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", {"conditioning_image": images(b"no"), "image": images(b"yes")})
    assert read(path) == {"00000000.png": b"yes"}
    assert read(path, "conditioning_image") == {"00000000.png": b"no"}


def test_several_columns_of_images_are_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", {"left": images(b"1"), "n": [3], "right": images(b"2")})
    assert read(path) == {
        "(rest)": f"{path}: 2 columns may hold images (left, right); choose one with --column"
    }
    assert read(path, "right") == {"00000000.png": b"2"}
    assert "the column n holds no images (left, n, right)" in str(read(path, "n")["(rest)"])
    assert "the column middle is not there (left, n, right)" in str(read(path, "middle")["(rest)"])


@pytest.mark.parametrize("kind", [arrow.binary(), arrow.large_binary()])
def test_columns_of_plain_bytes_hold_images_too(tmp_path: Path, kind: Any) -> None:
    data = arrow.array([b"1", None], type=kind)
    path = written(tmp_path / "a.parquet", {"jpg": data, "label": [1, 2]})
    found = read(path)
    assert found["00000000"] == b"1" and "no bytes in the table" in str(found["00000001"])
    # a struct is what datasets writes; bytes beside it are a hash, say
    path = written(tmp_path / "b.parquet", {"hash": data, "photo": images(b"2", b"3")})
    assert list(read(path).values()) == [b"2", b"3"]
    path = written(tmp_path / "c.parquet", {"one": data, "two": data})
    assert "2 columns may hold images (one, two)" in str(read(path)["(rest)"])


def test_a_column_without_a_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(UsageError, match=r"--column image: none of the inputs is a \.parquet file"):
        sources_of([str(tmp_path / "a.png")], suffixes=SUFFIXES, column="image")


def test_a_table_without_rows_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", {"image": images()})
    assert read(path) == {"(rest)": f"{path}: a table without rows"}


def test_rows_are_named_across_row_groups_and_pages(tmp_path: Path) -> None:
    rng = random.Random(0)
    contents = [rng.randbytes(rng.randrange(2000)) for _ in range(300)]
    for options in ({}, {"use_dictionary": False, "data_page_size": 1000, "write_batch_size": 2}, {
        "data_page_version": "2.0", "compression": "zstd",
    }):  # fmt: skip
        path = written(tmp_path / "a.parquet", {"image": images(*contents)}, row_group_size=70, **options)
        assert read(path) == {f"{i:08d}.png": content for i, content in enumerate(contents)}


@pytest.mark.parametrize("use_dictionary", [False, True])
def test_a_page_that_unpacks_to_far_more_is_refused_by_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_dictionary: bool
) -> None:
    from rdm_cli.data.sources import parquet_pages

    monkeypatch.setattr(parquet_pages, "MAX_PAGE_BYTES", 2**20)
    contents = [b"1", bytes(2**20), b"3", random.Random(0).randbytes(2**21)]
    options = {"row_group_size": 1, "compression": "zstd", "use_dictionary": use_dictionary}
    path = written(tmp_path / "a.parquet", {"image": images(*contents)}, **options)
    found = read(path)
    assert found.pop("00000000.png") == b"1" and found.pop("00000002.png") == b"3"
    assert found.pop("00000003.png") == contents[3]  # large, and no larger than what is stored of it
    ((name, told),) = found.items()
    assert name == "(rows 1 to 1)"
    assert "unpacks to 1,048,5" in str(told) and "more than 1,048,576" in str(told)


def test_a_footer_that_lies_about_a_page_is_not_believed(tmp_path: Path) -> None:
    """The page's own header is what a reader allocates by."""
    path = written(tmp_path / "a.parquet", {"image": images(bytes(5000))}, use_dictionary=False)
    chunk = parquet.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    begin = chunk.data_page_offset
    # field 2, the size unpacked: a zigzag varint after the type's one byte
    assert data[begin : begin + 3] == b"\x15\x00\x15"
    size = data[begin + 3 : begin + 5]
    assert size[0] & 128 and not size[1] & 128
    data[begin + 3 : begin + 5] = b"\xfe\xff\xff\xff\x0f"  # 2^31 - 1
    path.write_bytes(data)
    (told,) = read(path).values()
    assert "unpacks to 2,147,483,647, more than" in str(told)


def test_a_cell_above_the_limit_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rdm_cli.data.sources import parquet as module

    monkeypatch.setattr(module, "MAX_CELL_BYTES", 1000)
    path = written(tmp_path / "a.parquet", {"image": images(b"1", bytes(1001), b"3")})
    found = read(path)
    assert found.pop("00000001.png") == f"{path}/00000001.png: 1,001 bytes, more than 1,000"
    assert list(found.values()) == [b"1", b"3"]


def test_damaged_pages_are_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", {"image": images(b"1" * 100)}, use_dictionary=False)
    begin = parquet.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    rng = random.Random(0)
    for _ in range(200):
        broken = data.copy()
        for _ in range(rng.randrange(1, 4)):
            broken[begin + rng.randrange(60)] = rng.randrange(256)
        path.write_bytes(broken)
        for told in read(path).values():
            assert isinstance(told, bytes) or "damaged" in told or "unpacks to" in told or "no bytes" in told


MEMORY = """
import resource, sys
from rdm_cli.data.sources.parquet import ParquetImages
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
num = 0
for item in ParquetImages(sys.argv[1]).items():
    num += len(item.source.read_bytes())
print(num, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_follow_the_row_group(tmp_path: Path) -> None:
    """One group of 150 MB in pages of some 5 MB; a reader of whole groups takes it all."""
    content = random.Random(0).randbytes(10**6)
    images_of_it = images(*(content[i:] + content[:i] for i in range(150)))
    options = {"use_dictionary": False, "write_batch_size": 5, "compression": "none"}
    path = written(tmp_path / "a.parquet", {"image": images_of_it}, **options)
    run = subprocess.run([sys.executable, "-c", MEMORY, path], capture_output=True, text=True, check=True)
    num, kilobytes = map(int, run.stdout.split())
    assert num == 150 * 10**6 and kilobytes < 90_000
