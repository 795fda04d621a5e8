"""In which arithmetic a machine makes pictures fastest: measured once, and remembered."""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import cast

import torch

from rdm_cli.data.io.atomic import write_whole
from rdm_cli.data.io.json_text import parse_object
from rdm_cli.runtime import Precision

LEAST_GAIN = 1.2
"""How many times as fast as fp32 bf16 has to be."""


def fast_precision(device: torch.device) -> Precision:
    """bf16 where ``device`` computes faster in it than in fp32, else fp32.

    A GPU says so itself. A CPU is measured once, in a tenth of a second; what was found is kept for that
    processor and this torch in ``fast-precision.json`` of the user's cache folder.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type != "cpu":
        return "fp32"
    machine = f"{_processor()}, torch {torch.__version__}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = cache / "rdm" / "fast-precision.json"
    try:
        known = parse_object(kept.read_bytes())
    except (OSError, ValueError):
        known = {}
    found = known.get(machine)
    if found in ("fp32", "bf16"):
        return cast(Precision, found)
    precision: Precision = "bf16" if gain_of_bf16() > LEAST_GAIN else "fp32"
    with suppress(OSError):  # what cannot be kept is measured again
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, (json.dumps({**known, machine: precision}, indent=2) + "\n").encode())
    return precision


def _processor() -> str:
    """The processor's model, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def gain_of_bf16() -> float:
    """How many times as fast as in fp32 a convolution of a small network is in bf16, by its fastest runs."""
    kinds = (torch.float32, torch.bfloat16)
    layers = {k: (torch.ones(8, 64, 32, 32, dtype=k), torch.ones(64, 64, 3, 3, dtype=k)) for k in kinds}
    fastest = dict.fromkeys(kinds, float("inf"))
    for _ in range(15):  # in turns, so that other load on the machine slows both
        for kind, (x, weight) in layers.items():
            started = time.perf_counter()
            torch.conv2d(x, weight, padding=1)
            fastest[kind] = min(fastest[kind], time.perf_counter() - started)
    return fastest[torch.float32] / fastest[torch.bfloat16]
