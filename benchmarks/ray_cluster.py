"""``rdm encode --engine ray`` on this machine: is all there, what does it cost, how much memory does it hold?

    python benchmarks/ray_cluster.py faces/ --num 5000 --work /tmp/ray-cluster

The images of a folder become a Parquet file and tar archives. Plain ``rdm encode`` makes a table of the one
and code files of the others; so does Ray, on three nodes: undisturbed, with a node killed in the middle, and
with a worker killed at random ten times. Every item has to be there once, and equal. Then both are measured
on this machine: seconds from the first file to the last, and CPU seconds of all processes, less those of a
short run, in turns. At last a source of four times Ray's store is encoded, and the largest memory of its
processes is read. ``--only`` does a part.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import typer
from PIL import Image

STORE_BYTES = 100 * 2**20
SHORT = 512  # images of a run that is nearly all start
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0", "RAY_worker_niceness": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal", "OMP_NUM_THREADS": "1",
}  # fmt: skip
Part = Literal["faults", "overhead", "memory"]


def images_below(folder: Path, num: int) -> Iterator[tuple[str, bytes]]:
    """The first ``num`` PNGs of a folder that may hold very many, as the system lists them."""
    with os.scandir(folder) as entries:
        found = islice((e for e in entries if e.name.endswith(".png")), num)
        yield from sorted((entry.name, Path(entry.path).read_bytes()) for entry in found)


def write_table(path: Path, images: list[tuple[str, bytes]], rows_in_a_group: int = 100) -> None:
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    rows = [{"bytes": content, "path": name} for name, content in images]
    parquet.write_table(arrow.table({"image": arrow.array(rows, kind)}), path, row_group_size=rows_in_a_group)


def write_tars(folder: Path, images: list[tuple[str, bytes]], members: int = 500) -> list[Path]:
    paths = []
    for start in range(0, len(images), members):
        paths.append(folder / f"s-{start // members:04d}.tar")
        with tarfile.open(paths[-1], "w") as archive:
            for name, content in images[start : start + members]:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return paths


def digest_of_codes(folder: Path) -> tuple[int, str]:
    """How many code files lie below a folder, and the SHA-256 of all: names and bytes."""
    total, num = hashlib.sha256(), 0
    for path in sorted(folder.rglob("*.safetensors")):
        total.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
        num += 1
    return num, total.hexdigest()


def digest_of_rows(table: Path) -> tuple[int, str]:
    """How many rows a table has, and the SHA-256 of all, by their names: z bit for bit, and its sources.

    Probabilities of attributes are left out: they are made of some hundreds of z at once, and so rounded.
    """
    rows = arrow.concat_tables([parquet.read_table(path) for path in table.glob("*.parquet")]).sort_by("name")
    total = hashlib.sha256()
    for name in rows.column_names:
        if name.startswith("p_"):
            continue
        column = rows.column(name)
        total.update(repr(column.to_pylist()).encode())
    return rows.num_rows, total.hexdigest()


def rdm(*words: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "rdm_cli", "encode", *map(str, words), "--no-x-t", "-q"]
    return subprocess.Popen(
        command, env=os.environ | ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def ended(process: subprocess.Popen[bytes]) -> None:
    _, err = process.communicate()
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: {err.decode()[-2000:]}")


def processes(pattern: bytes) -> list[int]:
    """The processes whose command line begins so, as Ray names them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if re.match(pattern, (folder / "cmdline").read_bytes()):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@contextmanager
def cluster(num_nodes: int) -> Iterator[Any]:
    """Nodes of one processor and a store of 100 MB each, all on this machine; the first leads."""
    from ray.cluster_utils import Cluster

    options: dict[str, Any] = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    made = Cluster(initialize_head=True, head_node_args=options | {"include_dashboard": False})
    try:
        made.others = [made.add_node(**options) for _ in range(num_nodes - 1)]
        yield made
    finally:
        made.shutdown()


def num_done(place: Path) -> int:
    """How many results are there by now; of a table its rows."""
    if place.suffix != ".parquet":
        return sum(1 for _ in place.rglob("*.safetensors"))
    return sum(parquet.read_metadata(path).num_rows for path in place.glob("part-*.parquet"))


def disturbed(place: Path, num: int, process: subprocess.Popen[bytes], disturb: str, made: Any) -> int:
    """Kill a node in the middle, or ten workers at random; returns how many were killed."""
    if disturb == "a node killed":
        while process.poll() is None and num_done(place) < num // 3:
            time.sleep(0.2)
        made.remove_node(made.others.pop(), allow_graceful=False)
        return 1
    choose, killed = random.Random(0), 0
    while process.poll() is None and num_done(place) < num // 10:
        time.sleep(0.2)
    while process.poll() is None and killed < 10:
        if found := processes(rb"ray::.*(_Worker|_read)"):
            os.kill(choose.choice(found), signal.SIGKILL)
            killed += 1
        time.sleep(choose.uniform(0.2, 2))
    return killed


def faults(work: Path, num: int) -> None:
    """Three nodes: undisturbed, a node killed, ten workers killed; of tables and of files."""
    kinds: dict[str, tuple[list[Path], str, Callable[[Path], tuple[int, str]]]] = {
        "Parquet to Parquet": ([work / "faces.parquet"], ".parquet", digest_of_rows),
        "webdataset to files": (sorted(work.glob("s-*.tar")), "", digest_of_codes),
    }
    for kind, (sources, ending, digest) in kinds.items():
        plain = work / f"plain{ending}"
        if not plain.exists():
            ended(rdm(*sources, "-o", plain))
        expected = digest(plain)
        print(f"{kind}: plain: {expected[0]} of {num}, {expected[1][:12]}", flush=True)
        for disturb in ("undisturbed", "a node killed", "ten workers killed"):
            place = work / f"{disturb.replace(' ', '-')}{ending}"
            shutil.rmtree(place, ignore_errors=True)
            with cluster(3) as made:
                begun = time.perf_counter()
                process = rdm(*sources, "-o", place, "--engine", "ray", "--address", made.address)
                killed = 0 if disturb == "undisturbed" else disturbed(place, num, process, disturb, made)
                ended(process)
                seconds = time.perf_counter() - begun
            found = digest(place)
            verdict = "equal" if found == expected else "DIFFERENT"
            print(f"{kind}: {disturb} ({killed}): {found[0]}, {verdict}, {seconds:.0f} s", flush=True)


def cpu_seconds_of(process: subprocess.Popen[bytes]) -> float:
    """CPU seconds of a process and all below it, until it ends, by looking again and again."""
    ticks, known = os.sysconf("SC_CLK_TCK"), dict[int, float]()
    members = {process.pid}
    while process.poll() is None:
        stats = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                values = (folder / "stat").read_text().rpartition(")")[2].split()
                stats[int(folder.name)] = (int(values[1]), (int(values[11]) + int(values[12])) / ticks)
            except (OSError, IndexError):
                continue
        grown = True
        while grown:
            below = {pid for pid, (parent, _) in stats.items() if parent in members} - members
            members |= below
            grown = bool(below)
        known |= {pid: used for pid, (_, used) in stats.items() if pid in members}
        time.sleep(0.1)
    return sum(known.values())


def seconds_between(folder: Path) -> float:
    """From the first code file of a folder to the last."""
    times = [path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")]
    return (max(times) - min(times)) / 1e9


def overhead(work: Path, num: int, rounds: int) -> None:
    """Seconds and CPU seconds of all images without and with Ray, on this machine, in turns."""
    # a thread on each processor, or a worker
    ways = {"plain": ["--threads", str(os.cpu_count())], "ray": ["--engine", "ray"]}
    wall: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, words in ways.items():
            used = []
            for source in (work / "short.parquet", work / "faces.parquet"):
                out = work / "measured"
                shutil.rmtree(out, ignore_errors=True)
                process = rdm(source, "-o", out, *words)
                used.append(cpu_seconds_of(process))
                ended(process)
            wall[way].append(seconds_between(out))
            cpu[way].append(used[1] - used[0])
        print({way: (round(wall[way][-1], 1), round(cpu[way][-1], 1)) for way in ways}, flush=True)
    for name, values, images in (("first to last file", wall, num), ("CPU", cpu, num - SHORT)):
        plain, ray = (median(values[way]) for way in ways)
        ratios = [b / a - 1 for a, b in zip(values["plain"], values["ray"], strict=True)]
        told = ", ".join(f"{100 * ratio:+.1f} %" for ratio in ratios)
        print(f"{name}: {images} images: plain {plain:.1f} s, Ray {ray:.1f} s; rounds: {told}", flush=True)


def memory(work: Path) -> None:
    """A source of four times the store: the largest memory of each kind of process, and what was spilled."""
    source = work / "large.parquet"
    rng = np.random.default_rng(0)
    images, size = [], 0
    while size < 4 * STORE_BYTES:
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(
            file, "PNG", compress_level=1
        )
        images.append((f"{len(images):05d}.png", file.getvalue()))
        size += len(images[-1][1])
    write_table(source, images, 50)
    peaks, over = dict[str, int](), threading.Event()

    def watch() -> None:
        names = {
            "worker": rb"ray::.*_Worker",
            "reading": rb"ray::.*_read",
            "raylet and its store": rb".*/raylet\0",
        }
        while not over.wait(0.2):
            for name, pattern in names.items():
                for pid in processes(pattern):
                    try:
                        status = Path(f"/proc/{pid}/status").read_text()
                    except OSError:
                        continue
                    found = re.search(r"RssAnon:\s+(\d+)", status), re.search(r"RssShmem:\s+(\d+)", status)
                    anonymous, shared = (int(m[1]) // 1024 if m else 0 for m in found)
                    peaks[name] = max(peaks.get(name, 0), shared if name == "store" else anonymous)

    threading.Thread(target=watch, daemon=True).start()
    with cluster(1) as made:
        place = work / "large-codes"
        shutil.rmtree(place, ignore_errors=True)
        process = rdm(source, "-o", place, "--engine", "ray", "--address", made.address)
        ended(process)
        spilled = sum(
            path.stat().st_size
            for folder in Path("/tmp/ray/session_latest").glob("ray_spilled_objects*")
            for path in folder.rglob("*")
            if path.is_file()
        )
    over.set()
    print(f"a source of {size / 2**20:.0f} MB, {len(images)} images; a store of {STORE_BYTES / 2**20:.0f} MB")
    print(f"codes: {num_done(place)}; spilled and left on disk: {spilled / 2**20:.0f} MB")
    for name, peak in sorted(peaks.items()):
        print(f"largest memory, {name}: {peak} MB", flush=True)


def run(
    folder: Annotated[Path, typer.Argument(help="PNGs.")],
    num: Annotated[int, typer.Option(help="Images.")] = 5000,
    work: Annotated[Path, typer.Option(help="Where sources and results go; kept.")] = Path("ray-cluster"),
    rounds: Annotated[int, typer.Option(help="Rounds of the comparison.")] = 3,
    only: Annotated[Part | None, typer.Option(help="Do this part alone.")] = None,
) -> None:
    """See the file's docstring."""
    os.environ.update(ENVIRONMENT)
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "faces.parquet").exists():
        images = list(images_below(folder, num))
        if len(images) < num:
            raise SystemExit(f"{folder}: {len(images)} PNGs, and {num} were asked for")
        write_tars(work, images)
        write_table(work / "short.parquet", images[:SHORT])
        write_table(work / "faces.parquet", images)
    if only in (None, "faults"):
        faults(work, num)
    if only in (None, "overhead"):
        overhead(work, num, rounds)
    if only in (None, "memory"):
        memory(work)


if __name__ == "__main__":
    typer.run(run)
