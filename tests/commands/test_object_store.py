"""rdm over an S3-compatible server that runs here: images from it, codes, archives and manifests to it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")

Rdm = Callable[..., Any]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """s3fs's file system with an empty bucket ``bucket``; rdm finds the server as users' tools do."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem(use_listings_cache=False)
    files.mkdir("bucket")
    yield files
    files.rm("bucket", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def codes_in(store: Any, prefix: str) -> dict[str, bytes]:
    paths = [p for p in store.find(prefix) if p.endswith(".safetensors")]
    return {p.removeprefix(f"{prefix}/"): store.cat_file(p) for p in paths}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.safetensors")}


@pytest.fixture
def expected(tiny: Rdm, faces: Path, tmp_path: Path) -> dict[str, bytes]:
    assert tiny("encode", faces, "-o", tmp_path / "here", "--steps", 1, "--batch-size", 8).code == 0
    return contents(tmp_path / "here")


def test_images_from_the_store_and_codes_to_it(
    tiny: Rdm, rdm: Rdm, store: Any, faces: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    store.put(str(faces), "bucket/faces", recursive=True)
    store.pipe_file("bucket/faces/bad.png", b"no picture")
    command = ("encode", "s3://bucket/faces", "-o", "s3://bucket/codes", "--steps", 1, "--batch-size", 8)
    for i in (1, 2):
        result = tiny(*command, "--shard", f"{i}/2")
        assert result.code in (0, 3), result.err
    assert codes_in(store, "bucket/codes") == expected
    again = [tiny(*command, "--shard", f"{i}/2").err for i in (1, 2)]
    assert sum("already done" in err for err in again) == 2 and "encoded 0 images" in again[0]
    manifests = [f"bucket/codes/encode-0000{i}-of-00002.manifest.jsonl" for i in (1, 2)]
    lines = [json.loads(line) for m in manifests for line in store.cat_file(m).splitlines()]
    assert {r["output"] for r in lines if r.get("digest")} == set(expected)
    # and back, from the store into files
    assert tiny("decode", "s3://bucket/codes", "-o", tmp_path / "pictures", "--steps", 1).code == 0
    assert tiny("decode", tmp_path / "here", "-o", tmp_path / "others", "--steps", 1).code == 0
    for path in (tmp_path / "others").rglob("*.png"):
        other = tmp_path / "pictures" / path.relative_to(tmp_path / "others")
        assert other.read_bytes() == path.read_bytes()
    verified = rdm("codes", "verify", "s3://bucket/codes", "--json")
    assert verified.code == 0 and all(o["recorded"] for o in verified.objects)
    status = rdm("codes", "status", "s3://bucket/codes", "--json")
    assert [o["manifest"] for o in status.objects] == [f"s3://{name}" for name in manifests]
    assert sum(o["done"] for o in status.objects) == 5 and sum(o["left"] for o in status.objects) == 0


def test_archives_and_lists(
    tiny: Rdm, store: Any, faces: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in "abc":
            archive.add(faces / f"{name}.png", f"{name}.png")
    store.pipe_file("bucket/s-0.tar", file.getvalue())
    command = ("encode", "s3://bucket/s-{0..0}.tar", "-o", "s3://bucket/out", "--tar", "--steps", 1)
    assert tiny(*command).code == 0
    made = store.cat_file("bucket/out/s-0.tar")
    with tarfile.open(fileobj=io.BytesIO(made)) as archive:
        found = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    assert found == {name: data for name, data in expected.items() if name[0] in "abc" and "/" not in name}
    assert "3 already done" in tiny(*command).err
    assert store.cat_file("bucket/out/s-0.tar") == made
    store.put(str(faces / "d.png"), "bucket/d.png")
    (tmp_path / "list").write_text(f"s3://bucket/d.png\nfile://{faces}/a.png\n{faces}/b.png\n")
    command = ("encode", "--files-from", tmp_path / "list", "-o", tmp_path / "o", "--steps", 1)
    assert tiny(*command, "--batch-size", 8).code == 0
    assert contents(tmp_path / "o") == {n: d for n, d in expected.items() if n[0] in "abd"}


@pytest.mark.slow
def test_ray_reads_from_the_store_and_writes_to_it(
    tiny: Rdm, store: Any, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code files and a table; both go on where they are."""
    pytest.importorskip("ray.data")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.add(faces, "faces")
    store.pipe_file("bucket/s-0.tar", file.getvalue())
    store.put(str(faces), "bucket/faces", recursive=True)
    alike = ("--no-x-t", "--threads", 1)
    assert tiny("encode", "s3://bucket/s-0.tar", "-o", "s3://bucket/plain", *alike).code == 0
    ray = (*alike, "--engine", "ray")
    made = tiny("encode", "s3://bucket/s-0.tar", "-o", "s3://bucket/ray", *ray)
    assert made.code == 0, made.err
    assert codes_in(store, "bucket/ray") == codes_in(store, "bucket/plain") and len(made.lines) == 5
    table = ("encode", "s3://bucket/faces", "-o", "s3://bucket/z.parquet", *ray)
    assert "encoded 5 images" in tiny(*table).err
    parts = {path: store.cat_file(path) for path in store.find("bucket/z.parquet")}
    assert len(parts) > 1  # a small job is divided, too
    assert "5 already done" in tiny(*table).err
    assert {path: store.cat_file(path) for path in store.find("bucket/z.parquet")} == parts


def test_a_table_in_the_store_goes_on(tiny: Rdm, store: Any, faces: Path) -> None:
    command = ("encode", faces, "-o", "s3://bucket/z.parquet", "--no-x-t")
    assert "encoded 5 images" in tiny(*command).err
    (part,) = store.find("bucket/z.parquet")
    assert "5 already done" in tiny(*command).err
    assert store.find("bucket/z.parquet") == [part]


def test_one_object_is_named_as_one_file_is(tiny: Rdm, store: Any, faces: Path) -> None:
    code, place = "s3://bucket/one/x.safetensors", "s3://bucket/one/x.png"
    assert tiny("encode", faces / "a.png", "-o", code, "--steps", 1).lines == [code]
    assert tiny("decode", code, "-o", place).lines == [place]
    edited = tiny("manipulate", code, "hat=0.5", "-o", "s3://bucket/one/y.webp")
    assert edited.code == 0, edited.err
    assert sorted(store.find("bucket/one")) == [
        f"bucket/one/{name}" for name in ("x.png", "x.safetensors", "y.safetensors", "y.webp")
    ]
    store.put(str(faces / "b.png"), "bucket/one/z.png")
    refused = tiny("decode", code, "-o", "s3://bucket/one/z.png")
    assert refused.code == 1 and "s3://bucket/one/z.png: is there already" in refused.err


def test_what_is_not_there_is_one_line(tiny: Rdm, store: Any, faces: Path, tmp_path: Path) -> None:
    for words, code in (
        (("s3://bucket/nothing", "-o", tmp_path / "o"), 1),
        (("s3://no-such-bucket/faces", "-o", tmp_path / "o"), 1),
        (("s3://bucket/a.tar", "-o", tmp_path / "o"), 1),
        (("nosuch://bucket/faces", "-o", tmp_path / "o"), 2),
        ((faces, "-o", "hf://datasets/me/codes"), 2),
        ((faces, "-o", "s3://no-such-bucket/codes", "--no-x-t"), 1),
    ):
        result = tiny("encode", *words, "-q")
        assert result.code == code, (words, result.err)
        assert all(line.startswith("rdm: ") for line in result.err.splitlines())
    monkeypatched = tiny("encode", "pipe:ls", "-o", tmp_path / "o")
    assert monkeypatched.code == 2
