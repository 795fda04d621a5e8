"""rdm_cli.Encoder: columns in, columns out, whatever an engine's batches are made of."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rdm_cli
from rdm_cli.errors import UsageError

NAMES = ("a", "b", "c", "d", "sub/e")


@pytest.fixture
def encoder(tiny_bundle: Path) -> Callable[..., rdm_cli.Encoder]:
    return lambda **options: rdm_cli.Encoder(str(tiny_bundle), **options)


@pytest.fixture
def files(faces: Path) -> list[bytes]:
    return [(faces / f"{name}.png").read_bytes() for name in NAMES]


def objects(values: list[Any]) -> np.ndarray:
    column = np.empty(len(values), object)
    for i, value in enumerate(values):
        column[i] = value
    return column


def test_it_makes_the_codes_of_a_pipeline(
    encoder: Callable[..., rdm_cli.Encoder], files: list[bytes], faces: Path, tiny_bundle: Path
) -> None:
    pipeline = rdm_cli.open_pipeline(str(tiny_bundle), batch_size=8)
    codes = pipeline.encode([faces / f"{name}.png" for name in NAMES], steps=2)
    given = {"image": objects(files), "key": np.arange(5)}
    answer = encoder(with_x_T=True, steps=2, batch_size=8)(given)
    assert set(answer) == {"key", "z", "x_T", "source_digest", "error"}
    assert np.array_equal(answer["z"], codes.z.numpy()) and answer["z"].dtype == np.float32
    assert codes.x_T is not None and np.array_equal(answer["x_T"], codes.x_T.numpy())
    assert answer["source_digest"].tolist() == [hashlib.sha256(file).hexdigest() for file in files]
    assert answer["error"].tolist() == [None] * 5 and answer["key"].tolist() == [0, 1, 2, 3, 4]


def test_bytes_structs_and_arrays_are_the_same_images(
    encoder: Callable[..., rdm_cli.Encoder], files: list[bytes], faces: Path
) -> None:
    pixels = [np.asarray(Image.open(faces / f"{name}.png")) for name in NAMES]
    encode = encoder(batch_size=8)
    expected = encode({"image": files})["z"]
    structs = objects([{"bytes": file, "path": "x.png"} for file in files])
    for images in (objects(files), structs, np.stack(pixels), objects(pixels), pixels):
        answer = encode({"image": images})
        assert answer["error"].tolist() == [None] * 5
        assert np.array_equal(answer["z"], expected)


def test_rows_do_not_depend_on_how_they_are_batched(
    encoder: Callable[..., rdm_cli.Encoder], files: list[bytes]
) -> None:
    encode = encoder(batch_size=4)
    whole = encode({"image": objects(files)})["z"]
    parts = [encode({"image": objects(files[i : i + 2])})["z"] for i in (0, 2, 4)]
    assert np.array_equal(whole, np.concatenate(parts))
    assert encode({"image": objects([])})["z"].shape == (0, 8)


def test_a_row_that_cannot_be_read_says_why_and_spoils_no_other(
    encoder: Callable[..., rdm_cli.Encoder], files: list[bytes]
) -> None:
    encode = encoder()
    mixed = [files[0], b"no picture", None, {"path": "lost.png", "bytes": None}, np.zeros((2, 2), float), b""]
    answer = encode({"image": objects([*mixed, files[1]])})
    assert [error is None for error in answer["error"]] == [True, *[False] * 5, True]
    assert "row 1: not an image" in answer["error"][1]
    assert answer["error"][2] == "row 2: no image" and answer["error"][3] == "lost.png: no image"
    assert "uint8" in answer["error"][4] and "empty" in answer["error"][5]
    assert np.isnan(answer["z"][1:6]).all() and not np.isnan(answer["z"][[0, 6]]).any()
    assert answer["source_digest"][1] is None
    encode({"image": objects([b"no picture"])})
    assert encode.num_failed == 6
    alone = encode({"image": objects([files[0], files[1]])})["z"]
    np.testing.assert_allclose(answer["z"][[0, 6]], alone, rtol=1e-5, atol=1e-6)


def test_frames_are_batches(encoder: Callable[..., rdm_cli.Encoder], files: list[bytes]) -> None:
    """What Spark's mapInPandas and Dask's map_partitions hand over."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"image": files, "key": list("abcde")}, index=range(7, 12))
    encode = encoder(batch_size=8)
    answer = encode(frame)
    assert answer["key"].tolist() == list("abcde")
    assert np.array_equal(answer["z"], encode({"image": files})["z"])
    made = pandas.DataFrame({name: list(column) for name, column in answer.items()})
    assert len(made) == 5 and made["z"][0].shape == (8,)


def test_dask_encodes_partitions(encoder: Callable[..., rdm_cli.Encoder], files: list[bytes]) -> None:
    """As docs/clusters.md says it."""
    pandas, dask = pytest.importorskip("pandas"), pytest.importorskip("dask")
    frames = pytest.importorskip("dask.dataframe")
    encode = encoder(batch_size=8)

    def encoded(frame: Any) -> Any:
        return pandas.DataFrame({name: list(column) for name, column in encode(frame).items()}, frame.index)

    frame = pandas.DataFrame({"image": pandas.Series(files, dtype=object), "key": list("abcde")})
    with dask.config.set(scheduler="synchronous", **{"dataframe.convert-string": False}):
        parts = frames.from_pandas(frame, npartitions=3)
        made = parts.map_partitions(encoded, meta=encoded(frame.head(1))).compute()
    assert made["key"].tolist() == list("abcde") and made["error"].isna().all()
    assert np.array_equal(np.stack(made["z"]), encode({"image": files})["z"])


def test_what_fits_no_column_is_refused(encoder: Callable[..., rdm_cli.Encoder], files: list[bytes]) -> None:
    with pytest.raises(UsageError, match="no column 'image'; it has jpg"):
        encoder()({"jpg": files})
    assert encoder(column="jpg")({"jpg": files})["z"].shape == (5, 8)
    with pytest.raises(UsageError, match="has a column 'z' already"):
        encoder()({"image": files, "z": np.zeros(5)})
    with pytest.raises(ValueError, match="different lengths"):
        encoder()({"image": files, "key": np.zeros(4)})
    with pytest.raises(UsageError, match="two states"):
        encoder(with_x_T=True, inversion="exact")


def test_engines_send_the_class_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(rdm_cli.Encoder)) is rdm_cli.Encoder
