"""An index of a million made-up codes: how long it takes, in how much memory, and what it finds.

    python benchmarks/search_index.py --codes 1000000 --output /tmp/search-index

The codes have mean and covariance of a bundle's training codes (its domain), so that they lie as real ones
do; of ``--planted`` of them, ten copies lie among the others, each moved by a tenth of a standard deviation.

1. ``rdm codes index`` builds the index of their table in a process of its own, which is killed with SIGKILL
   when half of the codes are written, and started again; time, processor time and peak memory are those of
   both;
2. queries (planted codes, and new draws) are asked one by one, on one thread, after some that warm up; on a
   shared machine their processor time says more than the clock;
3. recall@10 is the share of the ten nearest by exact float32 cosines that the index gives.

Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.collection.index import CONTENTS, Index, read_contents
from rdm_cli.collection.rows import open_collection

COPIES, NOISE = 10, 0.1
AT_ONCE = 20_000


def write_table(path: Path, bundle: str, num_codes: int, num_planted: int) -> None:
    """A table of made-up codes of ``bundle``: draws of its domain, and copies of the first of them."""
    opened = open_bundle(bundle)
    assert opened.domain is not None
    root = torch.linalg.inv(opened.domain.whitening.double()).numpy().astype(np.float32)
    mean = opened.domain.mean.numpy()
    std = np.linalg.norm(root, axis=0)
    rng = np.random.default_rng(0)
    kind = pa.list_(pa.float32(), len(mean))
    schema = pa.schema(
        [("name", pa.string()), ("path", pa.string()), ("z", kind)]
        + [("bundle", pa.string()), ("bundle_digest", pa.string())],
        metadata={"z_shape": json.dumps([len(mean)])},
    )
    copies_at = rng.permutation(np.arange(num_planted, num_codes))[: COPIES * num_planted]
    planted = np.full(num_codes, -1)
    planted[copies_at] = np.repeat(np.arange(num_planted), COPIES)
    first = np.empty((0, len(mean)), dtype=np.float32)
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        for start in range(0, num_codes, AT_ONCE):
            num = min(AT_ONCE, num_codes - start)
            z = rng.standard_normal((num, len(mean)), dtype=np.float32) @ root + mean
            if start == 0:
                first = z[:num_planted].copy()
            of = planted[start : start + num]
            z[of >= 0] = first[of[of >= 0]] + NOISE * std * rng.standard_normal(
                ((of >= 0).sum(), len(mean)), dtype=np.float32
            )
            names = [f"{i:07d}" for i in range(start, start + num)]
            flat = pa.FixedSizeListArray.from_arrays(pa.array(z.ravel()), len(mean))
            columns = [pa.array(names), pa.array(names), flat]
            columns += [pa.array([text] * num) for text in (opened.name, opened.digest)]
            writer.write_table(pa.table(columns, schema=schema))


def build(table: Path, index: Path, threads: int, kill_at: int | None) -> tuple[float, float]:
    """Seconds and peak MiB of one build; with ``kill_at`` it is killed when so many codes are written."""
    command = [sys.executable, "-m", "rdm_cli", "codes", "index", str(table), "-o", str(index), "-q"]
    begun = time.monotonic()
    process = subprocess.Popen([*command, "--threads", str(threads)])
    peak = 0.0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status")
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except (OSError, ValueError):
            continue
        peak = max(peak, int(lines.get("VmHWM", "0 kB").split()[0]) / 1024)
        if kill_at is not None and (index / CONTENTS).is_file() and read_contents(index).num_rows >= kill_at:
            process.send_signal(signal.SIGKILL)
            process.wait()
            break
        time.sleep(0.2)
    if kill_at is None and process.returncode:
        raise SystemExit(f"rdm codes index ended with {process.returncode}")
    return time.monotonic() - begun, peak


def nearest(table: Path, index: Index, queries: np.ndarray, num: int) -> list[list[str]]:
    """The names of the ``num`` nearest of each query by exact cosines."""
    names: np.ndarray = np.empty((len(queries), 0), dtype=object)
    scores: np.ndarray = np.empty((len(queries), 0), dtype=np.float32)
    for rows in open_collection(table).rows():
        cosines = queries @ index.contents.space.unit(rows.z).T
        both = np.concatenate([scores, cosines], axis=1)
        called = np.concatenate(
            [names, np.broadcast_to(np.array(rows.names, dtype=object), cosines.shape)], 1
        )
        best = np.argpartition(-both, num, axis=1)[:, :num]
        scores, names = np.take_along_axis(both, best, 1), np.take_along_axis(called, best, 1)
    return [list(row) for row in names]


def asked_of(index: Index, table: Path, directions: np.ndarray) -> dict[str, float]:
    """How fast the index answers to ``directions`` (Q, d), and how much of what exact search finds."""
    for direction in directions[:50]:
        index.search(direction, 10)
    milliseconds, busy, answers = [], [], []
    for direction in directions:
        begun, busy_before = time.perf_counter(), time.thread_time()
        hits = index.search(direction, 10)
        busy.append(1000 * (time.thread_time() - busy_before))
        milliseconds.append(1000 * (time.perf_counter() - begun))
        answers.append({hit.name for hit in hits})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    exact = nearest(table, index, directions, 10)
    shared = sum(len(found & set(names)) for found, names in zip(answers, exact, strict=True))
    return {
        "recall_at_10": shared / (10 * len(directions)),
        "median_ms": float(np.median(milliseconds)),
        "p95_ms": float(np.quantile(milliseconds, 0.95)),
        "median_processor_ms": float(np.median(busy)),
        "p95_processor_ms": float(np.quantile(busy, 0.95)),
        "peak_mib": peak,
    }


def main() -> None:
    """Make the codes, build, kill, go on, and ask."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codes", type=int, default=1_000_000)
    parser.add_argument("--planted", type=int, default=500)
    parser.add_argument("--queries", type=int, default=500, help="of each kind: planted, and new draws")
    parser.add_argument("--bundle", default="avatars64-diffae")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ask-only", action="store_true", help="ask the index that an earlier run has left")
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    table, folder = asked.output / "codes.parquet", asked.output / "index"
    told: dict[str, object] = {"codes": asked.codes, "threads": asked.threads}
    if not asked.ask_only:
        if not table.exists():
            write_table(table, asked.bundle, asked.codes, asked.planted)
        killed_seconds, killed_peak = build(table, folder, asked.threads, asked.codes // 2)
        told["kept_after_kill"] = read_contents(folder).num_rows
        seconds, peak = build(table, folder, asked.threads, None)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        told["build_seconds"] = killed_seconds + seconds
        told["build_processor_seconds"] = used.ru_utime + used.ru_stime
        told["build_peak_mib"] = max(killed_peak, peak)
    index = Index(folder)
    assert index.contents.num_rows == asked.codes and index.contents.complete
    told["index_mib"] = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    domain = open_bundle(asked.bundle).domain
    assert domain is not None
    root = torch.linalg.inv(domain.whitening.double()).numpy().astype(np.float32)
    rng = np.random.default_rng(1)
    drawn = rng.standard_normal((asked.queries, len(root)), dtype=np.float32) @ root + domain.mean.numpy()
    planted = next(iter(open_collection(table).rows())).z[: min(asked.queries, asked.planted)]
    for kind, z in (("planted", planted), ("drawn", drawn)):
        told[kind] = asked_of(index, table, index.contents.space.unit(z))
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
