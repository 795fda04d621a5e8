"""Samples are drawn as a stream: few in memory at once, kept where a run stops, gone on with by the next."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.codes.code import Codes
from rdm_cli.data.images.record import is_own_picture, read_record
from rdm_cli.data.sources.shards import Shard
from rdm_cli.errors import OccupiedError
from rdm_cli.jobs.pictures import PRIOR_BATCH, Draws, write_samples
from rdm_cli.pipeline.pipeline import Pipeline

NUM = 7
DRAWS = Draws(seed=1, steps=1)


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline(bundle=open_bundle(str(tiny_bundle)), batch_size=2)


@pytest.fixture(scope="module")
def whole(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    list(write_samples(pipeline, DRAWS, range(NUM), folder))
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_an_interrupted_run_keeps_what_is_done_and_the_next_goes_on(
    pipeline: Pipeline, whole: dict[str, bytes], tmp_path: Path
) -> None:
    stopped = write_samples(pipeline, DRAWS, range(NUM), tmp_path)
    first = [made.path.name for made in islice(stopped, 3)]
    stopped.close()
    kept = contents(tmp_path)
    assert first == ["000000.png", "000001.png", "000002.png"] and len(kept) == 6
    assert kept == {name: whole[name] for name in kept}
    # killed between the two files of a sample: it is drawn again
    (tmp_path / "000001.safetensors").unlink()
    made = list(write_samples(pipeline, DRAWS, range(NUM), tmp_path))
    assert [one.number for one in made if one.skipped] == [0, 2]
    assert contents(tmp_path) == whole
    # and once more there is nothing to draw
    assert all(
        one.skipped for one in write_samples(pipeline, DRAWS, range(NUM), tmp_path) if one.number is not None
    )
    assert contents(tmp_path) == whole


def test_no_more_samples_are_in_memory_than_a_batch(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are asked for: z are drawn some at once, pictures made fewer, and the grid ends."""
    sizes: dict[str, list[int]] = {"z": [], "decode": [], "grid": []}
    sample_z, decode = Pipeline.sample_z, Pipeline.decode

    def drawing(self: Pipeline, keys: Any, **options: Any) -> Any:
        sizes["z"].append(len(keys))
        return sample_z(self, keys, **options)

    def decoding(self: Pipeline, codes: Codes, **options: Any) -> Any:
        sizes["decode"].append(len(codes))
        return decode(self, codes, **options)

    monkeypatch.setattr(Pipeline, "sample_z", drawing)
    monkeypatch.setattr(Pipeline, "decode", decoding)
    monkeypatch.setattr("rdm_cli.jobs.pictures.GRID_PICTURES", 4)
    list(write_samples(pipeline, DRAWS, range(PRIOR_BATCH + 6), tmp_path))
    assert max(sizes["z"]) == PRIOR_BATCH and max(sizes["decode"]) == 2
    record = read_record(tmp_path / "grid.png")
    assert record is not None and record["num_pictures"] == 4


def test_shards_of_samples_are_parts_of_the_whole(
    pipeline: Pipeline, whole: dict[str, bytes], tmp_path: Path
) -> None:
    parts = [
        [made.number for made in write_samples(pipeline, DRAWS, range(NUM), tmp_path, holds=shard.holds)]
        for shard in (Shard(index=1, count=2), Shard(index=2, count=2))
    ]
    assert all(parts) and sorted(parts[0] + parts[1]) == list(range(NUM))
    assert contents(tmp_path) == {name: data for name, data in whole.items() if name != "grid.png"}
    # a run that is not divided finds all of them, and draws the grid
    list(write_samples(pipeline, DRAWS, range(NUM), tmp_path))
    assert contents(tmp_path) == whole


@pytest.mark.parametrize(
    "other", [Draws(seed=2, steps=1), Draws(seed=1, steps=2), Draws(seed=1, steps=1, prior_steps=2)]
)
def test_two_runs_of_samples_are_not_mixed(
    pipeline: Pipeline, whole: dict[str, bytes], tmp_path: Path, other: Draws
) -> None:
    list(write_samples(pipeline, DRAWS, range(NUM), tmp_path))
    with pytest.raises(OccupiedError, match=r"000000\.png: is there already, made otherwise"):
        list(write_samples(pipeline, other, range(3), tmp_path))
    # not even where no name is shared, as with draws that a condition accepts
    with pytest.raises(OccupiedError, match=r"0+\.png: is of another run of this command"):
        list(write_samples(pipeline, other, [90, 91], tmp_path))
    assert contents(tmp_path) == whole
    # more of the same draws are no other run
    list(write_samples(pipeline, DRAWS, range(NUM + 1), tmp_path))
    assert whole.items() - {("grid.png", whole["grid.png"])} < contents(tmp_path).items()


@pytest.mark.parametrize("name", ["000002.png", "000002.safetensors", "grid.png"])
def test_a_file_of_the_users_stops_sampling_before_any_work(
    pipeline: Pipeline, whole: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"my own")
    with pytest.raises(OccupiedError, match=f"{name}: is there already, and .*--force"):
        list(write_samples(pipeline, DRAWS, range(NUM), tmp_path))
    assert contents(tmp_path) == {name: b"my own"}
    list(write_samples(pipeline, DRAWS, range(NUM), tmp_path, force=True))
    assert contents(tmp_path) == whole


def test_what_a_sample_records(pipeline: Pipeline, tmp_path: Path) -> None:
    list(write_samples(pipeline, DRAWS, [3], tmp_path, condition={"attribute": "hat"}))
    record = read_record(tmp_path / "000003.png")
    assert record is not None and is_own_picture(tmp_path / "grid.png")
    assert record["what"] == "sample" and record["draw"] == 3 and record["seed"] == 1
    assert record["bundle_digest"] == pipeline.bundle.digest and record["condition"] == {"attribute": "hat"}
    assert record["decoding"]["steps"] == 1 and record["prior"]["name"] == "latent-ddim"
