"""Fuzzing of every reader, guided by the coverage of rdm's own code.

    pip install 'rdm-cli[fuzz]'
    python tests/fuzz/coverage_guided.py READER [-max_total_time=60] [more of libFuzzer's options]

READER is one of the names in ``READERS``. It begins with the files in ``tests/fuzz/seeds/READER``; what
reaches new code is kept in ``out/fuzz/READER``, and what breaks something is written there as ``crash-*``.
Add that file to the seeds together with the fix: ``test_seeds.py`` reads them all.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

SEEDS = Path(__file__).with_name("seeds")
MAX_PIXELS = 2**16
MAX_BYTES = 4096


@cache
def scratch() -> Path:
    """A folder in memory, where there is such a thing."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="rdm-fuzz-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def written(data: bytes, name: str) -> Path:
    path = scratch() / name
    path.write_bytes(data)
    return path


def image(data: bytes) -> None:
    from rdm_cli.data.images.pixels import load_rgb
    from rdm_cli.errors import ImageError

    try:
        assert load_rgb(written(data, "a.png"), max_pixels=MAX_PIXELS).mode == "RGB"
    except ImageError:
        pass


def code(data: bytes) -> None:
    from rdm_cli.codes.code import Codes
    from rdm_cli.errors import CodeError

    try:
        assert len(Codes.load(written(data, "a.safetensors"))) == 1
    except CodeError:
        pass


def labels(data: bytes) -> None:
    from rdm_cli.data.labels import read_labels
    from rdm_cli.errors import RdmError

    kinds = {b"j": "a.jsonl", b"c": "a.csv"}
    try:
        table = read_labels(written(data[1:], kinds.get(data[:1], "a.txt")))
        assert table.values.shape == (len(table.files), len(table.names))
    except RdmError:
        pass


def checkpoint(data: bytes) -> None:
    from rdm_cli.errors import CheckpointError
    from rdm_cli.methods.official.reading import load_official

    try:
        load_official(written(data, "a.ckpt"))
    except CheckpointError:
        pass


def training(data: bytes) -> None:
    from rdm_cli.errors import CheckpointError
    from rdm_cli.training.checkpoint import FILE_NAME, load_checkpoint

    try:
        load_checkpoint(written(data, FILE_NAME).parent)
    except CheckpointError:
        pass


def settings(data: bytes) -> None:
    from rdm_cli.errors import CheckpointError
    from rdm_cli.methods.official.pairs import read_mapping

    try:
        read_mapping(written(data, "a.yml"))
    except CheckpointError:
        pass


def scheduler(data: bytes) -> None:
    from rdm_cli.bundles.scheduler_json import read_scheduler
    from rdm_cli.data.io.json_text import parse_object

    try:
        read_scheduler(parse_object(data))
    except ValueError:
        pass


def config(data: bytes) -> None:
    from rdm_cli.bundles.config_json import from_json
    from rdm_cli.data.io.json_text import parse_object
    from rdm_cli.models.unet import UNetConfig

    try:
        from_json(UNetConfig, parse_object(data))
    except ValueError:
        pass


def residual(data: bytes) -> None:
    import numpy as np

    from rdm_cli.data.residual import restore_pixels

    try:
        assert restore_pixels(np.zeros((3, 4, 4), dtype=np.uint8), data).shape == (3, 4, 4)
    except ValueError:
        pass


READERS: dict[str, Callable[[bytes], None]] = {
    reader.__name__: reader
    for reader in (image, code, labels, checkpoint, training, settings, scheduler, config, residual)
}


def main(argv: list[str]) -> None:
    if len(argv) < 2 or argv[1] not in READERS:
        sys.exit(f"name a reader: {', '.join(READERS)}")
    import atheris

    reader = READERS[argv[1]]
    with atheris.instrument_imports(include=["rdm_cli"]):
        for seed in sorted((SEEDS / argv[1]).iterdir()):
            reader(seed.read_bytes())  # which imports what it needs
    found = Path("out/fuzz") / argv[1]
    found.mkdir(parents=True, exist_ok=True)
    options = [f"-max_len={MAX_BYTES}", f"-artifact_prefix={found}/", *argv[2:]]
    atheris.Setup([argv[0], *options, str(found), str(SEEDS / argv[1])], reader)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
