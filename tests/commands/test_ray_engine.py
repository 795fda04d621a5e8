"""rdm encode and decode --engine ray: what the plain commands write, whatever is killed meanwhile."""

from __future__ import annotations

import io
import os
import random
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdm_cli.cli import main
from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.data.io.places import Blob
from rdm_cli.data.sinks.outputs import Folder
from rdm_cli.data.sources.opening import sources_of
from rdm_cli.data.sources.shards import WHOLE
from rdm_cli.engines import ray as engine
from rdm_cli.jobs.job import Job, plan_job

parquet = pytest.importorskip("pyarrow.parquet")
Rdm = Callable[..., Any]
ALIKE = ("--threads", 1)  # a worker has one; on several, a batch is rounded otherwise


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))}


def pictures(num: int, size: int = 16) -> dict[str, bytes]:
    """So many PNGs, all different, by name."""
    from PIL import Image

    rng, found = np.random.default_rng(0), {}
    for i in range(num):
        corners = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(corners).resize((size, size), Image.Resampling.BICUBIC).save(file, "PNG")
        found[f"{i:05d}.png"] = file.getvalue()
    return found


def write_table(path: Path, files: dict[str, bytes], rows_in_a_group: int) -> None:
    import pyarrow as arrow

    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    rows = [{"bytes": content, "path": name} for name, content in files.items()]
    parquet.write_table(arrow.table({"image": arrow.array(rows, kind)}), path, row_group_size=rows_in_a_group)


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def rows_of(table: Path) -> list[dict[str, Any]]:
    """The rows of all files of a table, by their names."""
    rows = [row for part in table.glob("*.parquet") for row in parquet.read_table(part).to_pylist()]
    return sorted(rows, key=lambda row: row["name"])


def job_of(place: Path, out: Path) -> Job:
    sources = sources_of([str(place)], suffixes=SUFFIXES)
    return plan_job(sources, Folder(out), ".safetensors", verb="encode", shard=WHOLE)


def read_of(job: Job) -> list[list[Any]]:
    """The tasks of each batch that reading tasks hand on."""
    return [tasks for _, part in engine._parts(job) for tasks, _ in engine._batches(part.tasks, 4)]


# What needs no Ray: how a job is divided and read.


@pytest.mark.parametrize("kind", ["folder", "parquet", "tar"])
def test_parts_have_every_input_once_with_what_it_holds(kind: str, tmp_path: Path) -> None:
    files = pictures(40)
    place = tmp_path / f"faces{'' if kind == 'folder' else f'.{kind}'}"
    if kind == "parquet":
        write_table(place, files, rows_in_a_group=3)
    elif kind == "tar":
        write_tar(place, files)
    else:
        place.mkdir()
        for name, content in files.items():
            (place / name).write_bytes(content)
    job = job_of(place, tmp_path / "out")
    read = [task for tasks in read_of(job) for task in tasks]
    plain = list(job_of(place, tmp_path / "out").tasks)
    assert [task.name for task in read] == [task.name for task in plain]
    assert [task.target for task in read] == [task.target for task in plain]
    assert [str(task.source) for task in read] == [str(task.source) for task in plain]
    assert [task.source.content for task in read] == list(files.values())
    assert len(list(engine._parts(job))) == (1 if kind == "tar" else 14)


def test_a_table_is_read_by_several(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", pictures(40), rows_in_a_group=3)
    job = job_of(tmp_path / "t.parquet", tmp_path / "out")
    parts = [list(part.tasks) for _, part in engine._parts(job)]
    assert [len(tasks) for tasks in parts] == [3] * 13 + [1]
    batches = read_of(job)
    assert max(map(len, batches)) <= 4 and sum(map(len, batches)) == 40


def test_what_cannot_be_read_is_told_with_its_input(faces: Path, tmp_path: Path) -> None:
    (faces / "a.png").unlink()
    (faces / "a.png").symlink_to(tmp_path / "nowhere")
    (first, *others), *_ = read_of(job_of(faces, tmp_path / "out"))
    assert first.error is None and first.source == faces / "a.png"  # as the plain command finds it
    assert all(isinstance(task.source, Blob) for task in others)
    write_tar(tmp_path / "empty.tar", {})
    ((only,),) = [tasks for tasks in read_of(job_of(tmp_path / "empty.tar", tmp_path / "out")) if tasks]
    assert "nothing to read among its 0 members" in str(only.error)


def test_what_it_cannot_do_is_refused_before_ray_is_started(
    rdm: Rdm, tiny_bundle: Path, faces: Path, tmp_path: Path
) -> None:
    for words, told in (
        ((faces, "-o", tmp_path / "o", "--tar", "--engine", "ray"), "--tar"),
        ((faces, "-o", tmp_path / "o", "--address", "x:1"), "add --engine ray"),
        ((faces / "a.png", "-o", "-", "--engine", "ray"), "leave out --engine"),
    ):
        refused = rdm("encode", *words, "--no-x-t", "-b", tiny_bundle)
        assert refused.code == 2 and told in refused.err
    code = tmp_path / "a.safetensors"
    assert rdm("encode", faces / "a.png", "-o", code, "-b", tiny_bundle).code == 0
    for words, told in (
        (
            (faces, "-o", tmp_path / "o", "--tar", "--engine", "ray"),
            "--tar: with --engine results are files;",
        ),
        ((faces, "-o", tmp_path / "o", "--per-gpu", 2), "add --engine ray"),
        ((code, "-o", "-", "--engine", "ray"), "leave out --engine"),
    ):
        refused = rdm("decode", *words)
        assert refused.code == 2 and told in refused.err


def test_a_cluster_that_does_not_answer_is_told(
    rdm: Rdm, tiny_bundle: Path, faces: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray.data")
    words = ("--no-x-t", "-b", tiny_bundle, "--engine", "ray", "--address", "127.0.0.1:1")
    refused = rdm("encode", faces, "-o", tmp_path / "o", *words)
    assert refused.code == 1 and "rdm: Ray at 127.0.0.1:1: Connection refused; " in refused.err
    assert "encoded 0 images" in refused.err


# On clusters of this machine's own.


@pytest.fixture(scope="module")
def cluster() -> Iterator[Callable[..., Any]]:
    """``cluster(3)`` starts one of three nodes, each with one processor and 100 MB for objects."""
    pytest.importorskip("ray.data")
    from ray.cluster_utils import Cluster

    patch, started = pytest.MonkeyPatch(), list[Any]()
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0", "RAY_worker_niceness": "0",
        "RAY_BACKEND_LOG_LEVEL": "fatal", "OMP_NUM_THREADS": "1",
    }.items():  # fmt: skip
        patch.setenv(name, value)

    def start(num_nodes: int) -> Any:
        options = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
        made = Cluster(initialize_head=True, head_node_args=options | {"include_dashboard": False})
        started.append(made)
        for _ in range(num_nodes - 1):
            made.add_node(**options)
        return made

    yield start
    for made in started:
        made.shutdown()
    patch.undo()


@pytest.fixture(scope="module")
def three_nodes(cluster: Callable[..., Any]) -> Any:
    return cluster(3)


def workers() -> list[int]:
    """The processes that work for Ray: those that read, and those that encode."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::") and b"_Worker" in (
                folder / "cmdline"
            ).read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_every_source_gives_the_files_that_the_plain_command_writes(
    tiny: Rdm, three_nodes: Any, faces: Path, tmp_path: Path
) -> None:
    files = pictures(30)
    bad = {"00030.png": b"no picture", "notes.txt": b"none"}
    write_table(tmp_path / "t.parquet", files, rows_in_a_group=4)
    write_tar(tmp_path / "s-0.tar", files | bad)
    write_tar(tmp_path / "s-1.tar", files)
    (faces / "bad.png").write_bytes(b"no picture")
    (faces / "note.txt").write_text("none")
    for names, code in ((("t.parquet",), 0), (("s-0.tar", "s-1.tar"), 3), (("faces",), 3)):
        places = [tmp_path / name for name in names]
        ways = {"plain": (), "ray": ("--engine", "ray", "--address", three_nodes.address)}
        said = {}
        for way, words in ways.items():
            made = tiny("encode", *places, "-o", tmp_path / way, "--no-x-t", "--json", *words,
                        "--manifest", tmp_path / f"{way}-{names[0]}.jsonl")  # fmt: skip
            assert made.code == code, made.err
            lines = [{k: str(v).replace(f"/{way}/", "/") for k, v in o.items()} for o in made.objects]
            told = [line for line in made.err.splitlines() if not line.startswith("encoded ")]
            total = made.err.splitlines()[-1].partition(" s (")[2].partition(")")[2]
            said[way] = (sorted(map(str, lines)), sorted(told), total)
        assert said["ray"] == said["plain"]
        assert contents(tmp_path / "ray") == contents(tmp_path / "plain")
    again = tiny("encode", tmp_path / "t.parquet", "-o", tmp_path / "ray", "--no-x-t", *ways["ray"], *ALIKE)
    assert again.code == 0 and "encoded 0 images" in again.err and "30 already done" in again.err


@pytest.mark.slow
def test_codes_are_decoded_into_the_pictures_of_the_plain_command(
    rdm: Rdm, tiny_bundle: Path, three_nodes: Any, tmp_path: Path
) -> None:
    """With x_T and without, from files and archives, by the bundle that is named, or that each code records.

    Ray's workers have smaller batches, which round differently: a pixel may be off by one level.
    """
    from PIL import Image

    def shown(path: Path) -> Any:
        with Image.open(path) as image:
            return np.asarray(image, dtype=int)

    write_table(tmp_path / "t.parquet", pictures(24), rows_in_a_group=12)
    codes, tars, shipped, exact = (tmp_path / name for name in ("codes", "tars", "shipped", "exact"))
    for words in (
        ("-o", exact, "--lossless", "-b", tiny_bundle),
        ("-o", codes, "-b", tiny_bundle),
        ("-o", tars, "--tar", "--no-x-t", "-b", tiny_bundle),
        ("-o", shipped, "--no-x-t", "-b", "avatars64-diffae"),
    ):
        assert rdm("encode", tmp_path / "t.parquet", *words).code == 0
    for folder in (codes, shipped):
        whole = next(folder.rglob("*.safetensors")).read_bytes()
        (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    ways = {"plain": ("--threads", 1), "ray": ("--engine", "ray", "--address", three_nodes.address)}
    for place, words, code, num in (
        (codes, ("-b", tiny_bundle, "--x-t", "random"), 3, 24),
        (next(tars.iterdir()), ("-b", tiny_bundle, "--seed", 7, "--steps", 3, "--solver", "unipc"), 0, 24),
        (shipped, (), 3, 24),
        (exact, ("-b", tiny_bundle), 0, 24),
    ):
        found = {}
        for way, more in ways.items():
            out = tmp_path / f"{place.name}-{way}"
            made = rdm("decode", place, "-o", out, *words, *more)
            assert made.code == code, made.err
            assert ("cut.safetensors" in made.err) == (code == 3)
            found[way] = {p.relative_to(out).as_posix(): shown(p) for p in out.rglob("*.png")}
        assert len(found["plain"]) == num and found["ray"].keys() == found["plain"].keys()
        off = np.stack([abs(found["ray"][name] - pixels) for name, pixels in found["plain"].items()])
        assert off.max() <= (0 if place == exact else 1) and (off > 0).mean() < 0.001
    again = rdm("decode", exact, "-o", out, *words, *ways["ray"])
    assert again.code == 0 and "24 already done" in again.err  # what is restored to the pixel


@pytest.mark.slow
def test_workers_that_are_killed_change_nothing(
    tiny: Rdm, three_nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table to a table, with a worker killed at random three times."""
    write_table(tmp_path / "t.parquet", pictures(3000), rows_in_a_group=50)
    command = ("encode", tmp_path / "t.parquet", "--no-x-t", *ALIKE)
    assert tiny(*command, "-o", tmp_path / "plain.parquet").code == 0
    killed = list[int]()

    def kill() -> None:
        choose = random.Random(0)
        while len(killed) < 3:
            time.sleep(1)
            if found := workers():
                killed.append(choose.choice(found))
                os.kill(killed[-1], signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    words = ("--engine", "ray", "--address", three_nodes.address)
    made = tiny(*command, "-o", tmp_path / "ray.parquet", *words)
    assert made.code == 0, made.err
    assert killed
    plain, disturbed = (rows_of(tmp_path / name) for name in ("plain.parquet", "ray.parquet"))
    assert len(plain) == len(disturbed) == 3000
    for one, other in zip(plain, disturbed, strict=True):
        for name in [name for name in one if name.startswith("p_")]:  # of many z at once, and so rounded
            assert other.pop(name) == pytest.approx(one.pop(name), abs=1e-5)
    assert disturbed == plain
    assert main(["codes", "merge", str(tmp_path / "ray.parquet"), "-o", str(tmp_path / "one.parquet")]) == 0


@pytest.mark.slow
def test_ray_data_calls_an_encoder(three_nodes: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    """As docs/clusters.md says it: reading and results are Ray's own."""
    import ray

    import rdm_cli

    files = pictures(20) | {"bad.png": b"no picture"}
    write_table(tmp_path / "t.parquet", files, rows_in_a_group=4)
    ray.init(three_nodes.address, log_to_driver=False)
    try:
        rows = ray.data.read_parquet(str(tmp_path / "t.parquet"))
        rows = rows.map_batches(
            rdm_cli.Encoder,
            fn_constructor_kwargs={"bundle": str(tiny_bundle), "threads": 1, "batch_size": 8},
            batch_size=8,
            num_cpus=0.5,
            compute=ray.data.ActorPoolStrategy(size=2),
        )
        rows.write_parquet(str(tmp_path / "z"))
    finally:
        ray.shutdown()
    made = parquet.read_table(tmp_path / "z").to_pylist()
    expected = rdm_cli.Encoder(str(tiny_bundle), threads=1, batch_size=8)({"image": list(files.values())})
    found = {row["source_digest"]: list(row["z"]) for row in made if row["error"] is None}
    assert found == {
        digest: z.tolist()
        for digest, z, error in zip(*(expected[n] for n in ("source_digest", "z", "error")), strict=True)
        if error is None
    }
    assert len(made) == 21 and len(found) == 20


@pytest.mark.slow
def test_what_goes_wrong_in_a_worker_is_raised_as_it_would_be_here(
    three_nodes: Any, tiny_bundle: Path, faces: Path, tmp_path: Path
) -> None:
    """And a bundle that is another one there is told."""
    from functools import partial

    from rdm_cli import options
    from rdm_cli.commands.opening import open_on
    from rdm_cli.errors import BundleError
    from rdm_cli.jobs.encode import encode_files

    machine = options.Machine(device="cpu", threads=1)
    for bundle, words in ((tmp_path / "nosuch", "nosuch"), (tiny_bundle, "tiny is another bundle there")):
        opened = partial(open_on, machine, str(bundle), options.Images())
        workers = engine.Workers(opened=opened, digest="0" * 64, work=encode_files, on_gpus=False)
        with pytest.raises(BundleError, match=words) as raised:
            list(engine.outcomes_on_ray(job_of(faces, tmp_path / "out"), workers, three_nodes.address))
        assert type(raised.value).__module__ == "rdm_cli.errors"


@pytest.mark.slow
def test_workers_share_a_gpu(
    cluster: Callable[..., Any], tiny_bundle: Path, faces: Path, tmp_path: Path
) -> None:
    """A GPU that Ray was told of; the bundle's networks stay on the CPU."""
    from functools import partial

    from rdm_cli import options
    from rdm_cli.bundles.bundle import open_bundle
    from rdm_cli.commands.opening import open_on
    from rdm_cli.errors import UsageError
    from rdm_cli.jobs.encode import Encoding, encode_files
    from rdm_cli.pipeline.effort import Effort

    work = partial(encode_files, encoding=Encoding(effort=Effort(with_x_T=False)))
    opened = partial(open_on, options.Machine(device="cpu", threads=1), str(tiny_bundle), options.Images())
    digest = open_bundle(str(tiny_bundle)).digest
    workers = engine.Workers(opened=opened, digest=digest, work=work, on_gpus=True, per_gpu=2)
    made = cluster(1)
    with pytest.raises(UsageError, match="Ray's cluster has no GPU"):
        list(engine.outcomes_on_ray(job_of(faces, tmp_path / "out"), workers, made.address))
    made.add_node(num_cpus=1, num_gpus=1, object_store_memory=100 * 2**20)
    outcomes = list(engine.outcomes_on_ray(job_of(faces, tmp_path / "out"), workers, made.address))
    assert [outcome.error for outcome in outcomes] == [None] * 5 and len(contents(tmp_path / "out")) == 5
