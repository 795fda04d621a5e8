"""Codes with odd metadata, odd tensors and damaged bytes: decoded, or refused in one line."""

from __future__ import annotations

import json
import lzma
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.config_json import to_json
from rdm_cli.codes.code import CodeInfo, Codes, read_info
from rdm_cli.data.residual import restore_pixels
from rdm_cli.errors import CodeError
from rdm_cli.jobs.batch import Task
from rdm_cli.jobs.files import decode_files
from rdm_cli.pipeline.pipeline import Pipeline

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int8,
    torch.int64, torch.bool, torch.uint8,
]  # fmt: skip
ODD = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just([1, "a"])


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline(bundle=open_bundle(str(tiny_bundle)), batch_size=1)


def info(pipeline: Pipeline) -> dict[str, Any]:
    digest = pipeline.bundle.digest
    return to_json(CodeInfo(method="diffae", bundle="tiny", bundle_digest=digest, image_size=16, steps=1))


def decoded_or_refused(pipeline: Pipeline, path: Path) -> None:
    task = Task(source=path, target=path.with_suffix(".png"), name="code")
    (outcome,) = decode_files(lambda _: pipeline, [task], batch_size=1)
    assert (outcome.error is None) == task.target.exists()
    task.target.unlink(missing_ok=True)


@QUIET
@given(key=st.sampled_from([*CodeInfo.__dataclass_fields__, "other"]), odd=ODD)
def test_odd_metadata(pipeline: Pipeline, tmp_path: Path, key: str, odd: Any) -> None:
    values = info(pipeline) | {key: odd}
    if key in ("steps", "iterations") and isinstance(odd, int) and not isinstance(odd, bool) and odd > 20:
        return  # many steps are many, and no fault
    path = tmp_path / "code.safetensors"
    tensors = {"z": torch.zeros(8), "x_T": torch.zeros(3, 16, 16)}
    save_file(tensors, path, metadata={"rdm": json.dumps(values)})
    decoded_or_refused(pipeline, path)


@QUIET
@given(
    name=st.sampled_from(["z", "x_T", "style", "other", "residual"]),
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 16), max_size=4) | st.sampled_from([[8], [3, 16, 16]]),
)
def test_odd_tensors(
    pipeline: Pipeline, tmp_path: Path, name: str, dtype: torch.dtype, shape: list[int]
) -> None:
    path = tmp_path / "code.safetensors"
    tensors = {"z": torch.zeros(8), "x_T": torch.zeros(3, 16, 16), name: torch.zeros(shape).to(dtype)}
    save_file(tensors, path, metadata={"rdm": json.dumps(info(pipeline))})
    decoded_or_refused(pipeline, path)


@QUIET
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_are_no_code(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "code.safetensors"
    for content in (data, struct.pack("<Q", len(data)) + data, struct.pack("<Q", 2**60) + data):
        path.write_bytes(content)
        with pytest.raises(CodeError, match=r"code\.safetensors"):
            read_info(path)


@pytest.mark.parametrize(
    "metadata",
    [
        "[" * 100_000, "[]", "1", "NaN", "{}", '{"format_version": 2}', '{"format_version": null}',
        '{"format_version": 1}', '{"format_version": 1e999}', "\ud83d", "9" * 5000,
    ],
)  # fmt: skip
def test_metadata_of_no_kind(tmp_path: Path, metadata: str) -> None:
    path = tmp_path / "code.safetensors"
    try:
        save_file({"z": torch.zeros(8)}, path, metadata={"rdm": metadata})
    except UnicodeEncodeError:
        return  # safetensors itself writes no such thing
    with pytest.raises(CodeError, match=r"code\.safetensors: (damaged metadata|written in code format)"):
        read_info(path)


def test_a_code_of_a_later_version_says_so(pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "code.safetensors"
    values = info(pipeline) | {"format_version": 2, "new": "thing"}
    save_file({"z": torch.zeros(8)}, path, metadata={"rdm": json.dumps(values)})
    with pytest.raises(CodeError, match="code format 2, this rdm reads 1; upgrade rdm"):
        Codes.load(path)


def test_a_residual_that_goes_on_for_ever() -> None:
    """200 MB of zeros are some kilobytes of LZMA; no more are unpacked than pixels need."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "lc": 0, "lp": 0, "pb": 0}]
    packed = lzma.compress(bytes(200_000_000), format=lzma.FORMAT_RAW, filters=filters)
    assert len(packed) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="not that of a picture"):
            restore_pixels(np.zeros((3, 8, 8), dtype=np.uint8), struct.pack(">BBH", 1, 0, 5) + packed)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000  # of which LZMA's window is two thirds
    finally:
        tracemalloc.stop()


def test_a_code_does_not_choose_what_is_fetched(
    tmp_path: Path, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    from rdm_cli import cli

    asked = []

    def download(repository: str, **options: Any) -> str:
        asked.append(options.get("local_files_only", False))
        raise OSError("not here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    values = info(pipeline) | {"bundle": "hf:some/one"}
    path = tmp_path / "code.safetensors"
    save_file({"z": torch.zeros(8)}, path, metadata={"rdm": json.dumps(values)})
    assert cli.main(["decode", str(path), "-q"]) == 1
    assert "only --bundle fetches it" in capsys.readouterr().err
    assert cli.main(["decode", str(path), "-q", "--bundle", "hf:some/one"]) == 1
    assert asked == [True, False]
