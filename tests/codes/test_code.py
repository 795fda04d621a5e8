"""Code files: canonical bytes, round trips, and what is no code."""

from __future__ import annotations

import errno
import json
import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from rdm_cli.bundles.config_json import to_json
from rdm_cli.codes.code import CodeInfo, Codes, read_info
from rdm_cli.errors import CodeError

INFO = CodeInfo(
    method="diffae", bundle="tiny", bundle_digest="ab" * 32, image_size=16, steps=5, source="ä.png",
    source_digest="cd" * 32, edits=("smiling:0.3",), mse=0.1, psnr_db=10.0,
)  # fmt: skip


def codes(num: int = 2, with_x_T: bool = True) -> Codes:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(num, 8, generator=generator)
    x_T = torch.randn(num, 3, 16, 16, generator=generator) if with_x_T else None
    return Codes(z=z, x_T=x_T, infos=tuple(replace(INFO, source=f"{i}.png") for i in range(num)))


@pytest.mark.parametrize("with_x_T", [True, False])
def test_round_trip(tmp_path: Path, with_x_T: bool) -> None:
    original = codes(with_x_T=with_x_T)
    paths = [tmp_path / "a" / "0.safetensors", tmp_path / "1.safetensors"]
    original.save(paths)
    again = Codes.concatenate([Codes.load(path) for path in paths])
    assert again.infos == original.infos
    torch.testing.assert_close(again.z, original.z, rtol=0, atol=0)
    assert (again.x_T is None) == (not with_x_T)
    if original.x_T is not None:
        torch.testing.assert_close(again.x_T, original.x_T, rtol=0, atol=0)


def test_equal_codes_are_equal_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for path in paths:
        codes(1).save([path])
    assert len({path.read_bytes() for path in paths}) == 1
    with safe_open(paths[0], framework="pt") as file:
        metadata = file.metadata()
    assert list(metadata) == ["rdm"]
    assert metadata["rdm"] == json.dumps(json.loads(metadata["rdm"]), sort_keys=True, separators=(",", ":"))


def test_stored_in_float32_on_the_cpu(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    original = codes(1)
    assert original.x_T is not None
    original.replace(z=original.z.double(), x_T=original.x_T.bfloat16()).save([path])
    again = Codes.load(path)
    assert again.z.dtype == torch.float32
    assert again.x_T is not None and again.x_T.dtype == torch.float32


def test_a_batch_is_a_sequence() -> None:
    batch = codes(3)
    assert len(batch) == 3 and [len(code) for code in batch] == [1, 1, 1]
    torch.testing.assert_close(batch[-1].z, batch.z[2:])
    with pytest.raises(IndexError):
        batch[3]
    with pytest.raises(IndexError):
        batch.select([0, 3])
    for rows in ([2, 0], torch.tensor([2, 0]), np.array([-1, 0])):
        some = batch.select(rows)  # type: ignore[arg-type]
        assert torch.equal(some.z, batch.z[[2, 0]]) and some.infos == (batch.infos[2], batch.infos[0])
    twice = batch.select([True, False, True])  # numbers, for z and for infos alike
    assert torch.equal(twice.z, batch.z[[1, 0, 1]]) and twice.infos[0] == batch.infos[1]
    with pytest.raises(ValueError, match="3 codes"):
        batch.save([Path("one")])
    for part, length in ((slice(1, None), 2), (slice(0, 1), 1), (slice(None, None, -1), 3), (slice(5, 9), 0)):
        chosen = batch[part]
        assert len(chosen) == length and chosen.infos == batch.infos[part]
        rows = list(range(3))[part]
        assert chosen.x_T is not None and batch.x_T is not None
        assert torch.equal(chosen.z, batch.z[rows]) and torch.equal(chosen.x_T, batch.x_T[rows])


@pytest.mark.parametrize(
    ("lacking", "told"),
    [
        ({"x_T": None, "other": None}, "hold a second state, an x_T, and others do not"),
        ({"other": None}, "hold a second state, and others do not"),
        ({"style": None}, "hold a style, and others do not"),
        ({"residuals": None}, "hold a lossless residual, and others do not"),
    ],
)
def test_codes_that_hold_different_things_are_not_joined(lacking: dict[str, None], told: str) -> None:
    """Joined, all would have lost what one lacks, and decoded to other pictures."""
    x = codes(1).x_T
    full = codes(1).replace(other=x, style=x, residuals=(b"r",))
    for pair in ([full, full.replace(**lacking)], [full.replace(**lacking), full]):
        with pytest.raises(CodeError, match=told):
            Codes.concatenate(pair)
    assert Codes.concatenate(part for part in (full, full)).holds == full.holds
    assert len(Codes.concatenate([full.without_x_T(), codes(1, with_x_T=False).replace(style=x)])) == 2


def test_codes_of_other_shapes_and_none_at_all_are_not_joined() -> None:
    one = codes(1)
    assert one.x_T is not None
    with pytest.raises(CodeError, match="an x_T of these codes has several shapes"):
        Codes.concatenate([one, one.replace(x_T=one.x_T[..., :8])])
    with pytest.raises(ValueError, match="no codes to join"):
        Codes.concatenate([])


def test_a_path_as_text_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    one = codes(1)
    one.save(str(path))
    assert torch.equal(Codes.load(str(path)).z, one.z)
    one.save([str(path)])
    one.save(path)
    assert os.listdir(tmp_path) == ["a.safetensors"]


def file_with(**changes: Any) -> bytes:
    values = json.loads(json.dumps(to_json(INFO))) | changes
    return save({"z": torch.zeros(8)}, {"rdm": json.dumps(values)})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not a readable"),
        (b"no safetensors file at all", "not a readable"),
        (file_with()[:-10], "not a readable"),
        (save({"z": torch.zeros(8)}), "not a code written by rdm"),
        (save({"z": torch.zeros(8)}, {"format": "pt"}), "not a code written by rdm"),
        (save({"x": torch.zeros(8)}, {"rdm": json.dumps(to_json(INFO))}), "holds neither z nor x_T"),
        (save({"z": torch.zeros(8)}, {"rdm": "{"}), "damaged metadata"),
        (save({"z": torch.zeros(8)}, {"rdm": "[]"}), "damaged metadata"),
        (save({"z": torch.zeros(8)}, {"rdm": "null"}), "damaged metadata"),
        (file_with(format_version=2), "format 2.*upgrade rdm"),
        (file_with(format_version=None), "format None"),
        (file_with(invented=1), "no field 'invented'"),
        (file_with(steps="5"), "steps should be of type int"),
        (save({"z": torch.full((8,), torch.nan)}, {"rdm": json.dumps(to_json(INFO))}), "z holds values"),
        (
            save({"z": torch.zeros(8), "x_T": torch.tensor([torch.inf])}, {"rdm": json.dumps(to_json(INFO))}),
            "x_T holds values",
        ),
    ],
)  # fmt: skip
def test_what_is_no_code(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CodeError, match=told) as caught:
        Codes.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "a.safetensors"):
        with pytest.raises(CodeError, match="no such code file"):
            read_info(path)


@pytest.mark.parametrize(
    "words",
    [
        "I/O error: No space left on device (os error 28)",
        'IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })',  # before 0.6
    ],
)
def test_a_full_disk_is_an_os_error_and_leaves_nothing(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    from rdm_cli.data.io import tensor_files

    def full(*_: object, **__: object) -> None:
        raise SafetensorError(f"Error while serializing: {words}")

    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    monkeypatch.setattr(tensor_files, "save_file", full)
    with pytest.raises(OSError) as caught:
        tensor_files.write_tensors(path, {"z": torch.zeros(3)}, {})
    assert caught.value.errno == errno.ENOSPC
    assert (caught.value.filename, caught.value.strerror) == (str(path), "No space left on device")
    assert os.listdir(tmp_path) == ["a.safetensors"] and path.read_bytes() == b"old"


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """The kernel refuses to let a file grow; what is said of a code and of other tensors is the same."""
    from rdm_cli.data.io.tensor_files import write_tensors

    path = tmp_path / "a.safetensors"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError) as code:
            codes(1).save([path])
        with pytest.raises(OSError) as others:
            write_tensors(path, {"z": torch.zeros(1000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for caught in (code, others):
        told = (caught.value.errno, caught.value.strerror, caught.value.filename)
        assert told == (errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    assert os.listdir(tmp_path) == []


def test_tensors_and_infos_of_other_numbers_are_no_codes() -> None:
    made = codes(3)
    assert made.x_T is not None
    for changes in (
        {"infos": made.infos[:1]},
        {"z": made.z[:2]},
        {"x_T": made.x_T[:1]},
        {"residuals": (b"",)},
    ):
        with pytest.raises(ValueError, match="infos need as many rows"):
            made.replace(**changes)
    for z in (made.z.int(), made.z.numpy()):
        with pytest.raises(ValueError, match="a tensor of floats"):
            made.replace(z=z)


def test_a_mask_chooses_no_codes() -> None:
    with pytest.raises(TypeError, match="not by a mask"):
        codes(3).select(torch.tensor([True, False, True]))  # type: ignore[arg-type]


def test_two_codes_are_not_saved_in_one_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a place of its own"):
        codes(2).save([tmp_path / "a.safetensors"] * 2)
    assert not list(tmp_path.iterdir())
