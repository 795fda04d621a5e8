"""Resident memory of ``rdm encode --no-x-t`` over many tiny images: flat, however many there are.

    python benchmarks/batch_memory.py --num 20000 --plot memory.png

Draws ``--num`` images of 16 px into a scratch folder (or, with ``--as-tar``, tar archives of 1,000), encodes
them with a small random bundle in a process of its own, and samples that process's resident set while it goes
on. Prints one JSON object: the memory at the first sample after ``--warm-up`` images, the largest after it,
their difference in MiB and in bytes an image. The bundle is small so that what grows with the images would
show.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

PER_ARCHIVE = 1000
SAMPLE_SECONDS = 0.2


def image_bytes(index: int) -> bytes:
    """A picture of its own for each index."""
    pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def write_images(root: Path, num: int, *, as_tar: bool) -> str:
    """Write them, and say what rdm is to be given."""
    root.mkdir()
    if not as_tar:
        for i in range(num):
            (root / f"{i:07d}.png").write_bytes(image_bytes(i))  # one flat folder: the hardest case
        return str(root)
    num_archives = -(-num // PER_ARCHIVE)
    for k in range(num_archives):
        with tarfile.open(root / f"{k:05d}.tar", "w") as archive:
            for i in range(k * PER_ARCHIVE, min(num, (k + 1) * PER_ARCHIVE)):
                content = image_bytes(i)
                member = tarfile.TarInfo(f"{i:07d}.png")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return f"{root}/{{{0:05d}..{num_archives - 1:05d}}}.tar"


def save_tiny_bundle(folder: Path) -> None:
    """A random Diff-AE of 16 px, which encodes thousands of images a minute."""
    from rdm_cli.bundles.writing import save_bundle
    from rdm_cli.methods.diffae.config import DiffAEConfig
    from rdm_cli.methods.diffae.method import METHOD
    from rdm_cli.methods.diffae.model import DiffAE
    from rdm_cli.models.encoder import EncoderConfig
    from rdm_cli.models.unet import UNetConfig

    shared = {
        "image_size": 16, "model_channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1,
        "attention_resolutions": (), "z_width": 8, "patch_size": 2,
    }  # fmt: skip
    unet = UNetConfig(**shared, time_width=32, dropout=0.0)
    save_bundle(folder, METHOD, DiffAE(DiffAEConfig(encoder=EncoderConfig(**shared), unet=unet)), card="#\n")


def resident_mib(pid: int) -> float:
    """A process's resident set; 0 where it is over."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def measure(command: list[str], every: int) -> list[tuple[int, float]]:
    """Run it, and return (images done, MiB resident) while its lines come in."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    told: list[str] = []
    reader = threading.Thread(target=lambda: told.extend(process.stderr or ()))
    reader.start()
    samples: list[tuple[int, float]] = []
    latest = 0.0
    for done, _ in enumerate(process.stdout, 1):
        now = time.monotonic()
        if done % every == 0 or now - latest > SAMPLE_SECONDS:
            samples.append((done, resident_mib(process.pid)))
            latest = now
    reader.join()
    if process.wait() != 0:
        raise SystemExit(f"rdm failed: {''.join(told)}")
    return [sample for sample in samples if sample[1]]


def plot(samples: list[tuple[int, float]], path: Path) -> None:
    """Memory against images."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3))
    axes.plot(*zip(*samples, strict=True))
    axes.set(
        xlabel="images encoded", ylabel="resident memory, MiB", ylim=(0, 1.2 * max(mib for _, mib in samples))
    )
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(
    num: Annotated[int, typer.Option(min=2)] = 20_000,
    warm_up: Annotated[int, typer.Option(help="Images before memory is to be flat.")] = 1000,
    as_tar: Annotated[bool, typer.Option(help="From tar archives into tar archives.")] = False,
    plot_to: Annotated[Path | None, typer.Option("--plot")] = None,
) -> None:
    """Measure, and print one JSON object."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        given = write_images(root / "images", num, as_tar=as_tar)
        save_tiny_bundle(root / "bundle")
        command = [
            sys.executable, "-m", "rdm_cli", "encode", given, "-o", str(root / "codes"), "--no-x-t",
            "-b", str(root / "bundle"), "--device", "cpu", "--manifest", str(root / "all.manifest.jsonl"),
            *(["--tar"] if as_tar else []),
        ]  # fmt: skip
        begun = time.monotonic()
        samples = measure(command, every=max(1, num // 200))
        seconds = time.monotonic() - begun
    after = [mib for done, mib in samples if done >= min(warm_up, num // 2)]
    growth = max(after) - after[0]
    result = {
        "images": num,
        "as_tar": as_tar,
        "seconds": round(seconds, 1),
        "mib_after_warm_up": round(after[0], 1),
        "mib_largest_after": round(max(after), 1),
        "growth_mib": round(growth, 2),
        "growth_bytes_an_image": round(growth * 2**20 / num, 1),
    }
    print(json.dumps(result))
    if plot_to is not None:
        plot(samples, plot_to)


if __name__ == "__main__":
    typer.run(main)
