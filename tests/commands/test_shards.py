"""rdm encode and decode in shards: the parts are the whole, and manifests say what was done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Rdm = Callable[..., Any]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """22 pictures in two folders, and one that is none."""
    folder, rng = tmp_path / "many", np.random.default_rng(0)
    (folder / "sub").mkdir(parents=True)
    for i in range(22):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / ("", "sub")[i % 2] / f"{i:02d}.png")
    (folder / "bad.png").touch()
    return folder


def contents(folder: Path, suffix: str = ".safetensors") -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob(f"*{suffix}"))}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_parts_are_the_whole_byte_for_byte(tiny: Rdm, many: Path, tmp_path: Path) -> None:
    """Without --batch-size too: the number of images in all settles it, not that of the shard."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert tiny("encode", many, "-o", whole, "--steps", 1).code == 3
    told = []
    for i in range(1, 5):
        result = tiny("encode", many, "-o", parts, "--steps", 1, "--shard", f"{i}/4", "--json")
        assert result.code in (0, 3) and f"shard {i}/4, by --shard: " in result.err
        told.append({o["input"] for o in result.objects})
    assert contents(parts) == contents(whole) and len(contents(whole)) == 22
    assert sum(map(len, told)) == len(set.union(*told)) == 23 and min(map(len, told)) > 1
    pictures = tmp_path / "pictures"
    assert tiny("decode", whole, "-o", pictures / "whole", "--steps", 1).code == 0
    for i in (2, 1):
        assert tiny("decode", whole, "-o", pictures / "parts", "--steps", 1, "--shard", f"{i}/2").code == 0
    assert contents(pictures / "parts", ".png") == contents(pictures / "whole", ".png")


def test_a_shard_has_a_manifest(tiny: Rdm, many: Path, tmp_path: Path) -> None:
    output = tmp_path / "codes"
    for i in (1, 2):
        tiny("encode", many, "-o", output, "--no-x-t", "--shard", f"{i}/2")
    manifests = sorted(output.glob("*.jsonl"))
    assert [p.name for p in manifests] == [f"encode-0000{i}-of-00002.manifest.jsonl" for i in (1, 2)]
    records = []
    for i, path in enumerate(manifests, 1):
        head, *items = lines(path)
        assert head == {"verb": "encode", "shard": f"{i}/2", "items": len(items)}
        records += items
    assert {r["input"] for r in records} == {str(p) for p in many.rglob("*.png")} and len(records) == 23
    for record in records:
        assert set(record) == {"input", "output", "digest", "seconds", "error"} and record["seconds"] >= 0
        if record["input"].endswith("bad.png"):
            assert "the file is empty" in record["error"] and record["digest"] is None
        else:
            assert record["error"] is None
            written = (output / record["output"]).read_bytes()
            assert record["digest"] == hashlib.sha256(written).hexdigest()


def test_a_manifest_is_appended_to_and_survives_a_torn_line(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    path, output = tmp_path / "m.jsonl", tmp_path / "o"
    command = ("encode", faces, "-o", output, "--no-x-t", "--manifest", path)
    assert tiny(*command).code == 0
    first = lines(path)
    assert len(first) == 6 and first[0] == {"verb": "encode", "shard": "1/1", "items": 5}
    path.write_bytes(path.read_bytes()[:-30])  # killed while it wrote the last
    assert tiny(*command).code == 0
    text = path.read_text().splitlines()
    assert [json.loads(line) for line in text[:5]] == first[:5]
    with pytest.raises(json.JSONDecodeError):
        json.loads(text[5])
    # the four that are recorded are not recorded again, the fifth is
    assert [json.loads(line).get("input") for line in text[6:]] == [None, first[5]["input"]]
    assert json.loads(text[7])["digest"] == first[5]["digest"]
    Image.new("RGB", (16, 16)).save(faces / "a.png")
    assert tiny(*command).code == 0
    (again,) = [json.loads(line) for line in path.read_text().splitlines()[9:]]
    assert again["input"] == str(faces / "a.png") and again["digest"] != first[1]["digest"]


def test_the_environment_names_the_shard(
    tiny: Rdm, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    command = ("encode", faces, "--no-x-t", "-o")
    result = tiny(*command, tmp_path / "o")
    assert "rdm: shard 2/2, by RANK: " in result.err
    assert 0 < len(contents(tmp_path / "o")) < 5
    quiet = tiny(*command, tmp_path / "o", "-q")  # nobody asked for a part of it
    assert quiet.err.startswith("rdm: shard 2/2, by RANK: ") and len(quiet.err.splitlines()) == 1
    assert "--shard 1/1 does all" in quiet.err
    everything = tiny(*command, tmp_path / "all", "--shard", "1/1")
    assert "shard" not in everything.err and len(everything.lines) == 5
    monkeypatch.setenv("RANK", "2")
    wrong = tiny(*command, tmp_path / "o")
    assert wrong.code == 2 and "RANK=2 of WORLD_SIZE=2" in wrong.err and len(wrong.err.splitlines()) == 1


def test_one_file_through_pipes_is_not_divided(
    tiny: Rdm, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = (faces / "a.png").read_bytes()
    refused = tiny("encode", "-", "-o", tmp_path, "--shard", "1/2", stdin=image)
    assert refused.code == 2 and "--shard" in refused.err
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "99")
    assert tiny("encode", "-", "-o", tmp_path, "--no-x-t", stdin=image).lines == [
        str(tmp_path / "stdin.safetensors")
    ]


def test_a_manifest_is_not_shared_by_verbs_nor_shards(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    path, codes = tmp_path / "m.jsonl", tmp_path / "codes"
    assert tiny("encode", faces, "-o", codes, "--no-x-t", "--manifest", path).code == 0
    before = path.read_bytes()
    for command in (
        ("decode", codes, "-o", tmp_path / "o", "--manifest", path),
        ("encode", faces, "-o", codes, "--no-x-t", "--manifest", path, "--shard", "1/2"),
    ):
        result = tiny(*command, "--steps", 1)
        assert result.code == 2
        assert f"rdm: {path}: the manifest of encode, shard 1/1, and this is {command[0]}" in result.err
    assert path.read_bytes() == before and not (tmp_path / "o").exists()


def test_status_after_another_sharding(tiny: Rdm, rdm: Rdm, faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "o"
    assert tiny("encode", faces, "-o", output, "--no-x-t", "--shard", "3/4").code == 0
    for i in (1, 2):
        assert tiny("encode", faces, "-o", output, "--no-x-t", "--shard", f"{i}/2").code == 0
    result = rdm("codes", "status", output, "--json")
    assert result.code == 0
    assert [(o["shard"], o["counted"]) for o in result.objects] == [
        ("1/2", True),
        ("2/2", True),
        ("3/4", False),
    ]
    assert result.err.splitlines() == [
        "rdm: encode: manifests of several shardings; the latest, in 2, is counted, and those in 4 are not; "
        "delete the manifests of a sharding that is over"
    ]
    (output / "encode-00002-of-00002.manifest.jsonl").unlink()
    assert rdm("codes", "status", output).code == 3
