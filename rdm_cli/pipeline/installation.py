"""What is installed here and what works: the facts that a report of a fault should hold.

Nothing of them is a secret: no environment but what concerns rdm, threads and caches, no host name, and
the home folder is ``~``.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import collect_env

from rdm_cli import __version__
from rdm_cli.bundles.bundle import Bundle, open_bundle
from rdm_cli.errors import RdmError
from rdm_cli.pipeline.inspection import check, details
from rdm_cli.runtime import Precision, autocast, resolve_device, set_up

DISTRIBUTION = "rdm-cli"
TOLD = (
    "RDM_BUNDLE", "RDM_DEVICE", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HOME",
    "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TMPDIR", "RANK", "WORLD_SIZE", "SLURM_ARRAY_TASK_ID",
)  # fmt: skip
TOLERANCE = 0.05  # of the largest value: bf16 keeps 8 bits, and a few hundred products are summed


def examine(spec: str | None = None) -> dict[str, Any]:
    """All facts, and ``problems``, a line each; of the bundle ``spec`` too, where one is named."""
    set_up()
    packages, extras, problems = _installed()
    devices = [_device(torch.device(name)) for name in _device_names()]
    problems += [f"{d['device']}: fp32: {d['fp32']}" for d in devices if not d["fp32"].startswith("works")]
    facts: dict[str, Any] = {
        "rdm": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": _machine(),
        "packages": packages,
        "extras": extras,
        "devices": devices,
        "device_auto": str(resolve_device("auto")),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "memory": _memory(),
        "places": _places(),
        "environment": {name: tilde(os.environ[name]) for name in TOLD if name in os.environ},
    }
    if spec is not None:
        facts["bundle_facts"], of_bundle = _bundle(spec)
        problems += of_bundle
    return facts | {"problems": problems}


def _machine() -> dict[str, str]:
    """What torch says of a machine in a report of a fault of its own, as far as there is something to say."""
    found = {
        "os": collect_env.get_os(collect_env.run),
        "CUDA": torch.version.cuda,
        "driver": collect_env.get_nvidia_driver_version(collect_env.run),
        "cuDNN": torch.backends.cudnn.version(),
    }
    return {name: str(value) for name, value in found.items() if value}


def tilde(path: str) -> str:
    """``path`` with the home folder as ``~``."""
    home = str(Path.home())
    return "~" + path[len(home) :] if home != "/" and path.startswith(home) else path


def _installed() -> tuple[dict[str, str | None], dict[str, list[str]], list[str]]:
    """Versions of what rdm needs, what each extra lacks, and what is wrong with either."""
    from packaging.requirements import Requirement

    try:
        needed = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or ()]
    except metadata.PackageNotFoundError:
        return {"torch": torch.__version__}, {}, ["rdm was not installed by pip: what it needs is not known"]
    packages: dict[str, str | None] = {}
    extras: dict[str, list[str]] = {}
    problems: list[str] = []
    for requirement in needed:
        name, found = requirement.name, _version(requirement.name)
        fits = found is not None and requirement.specifier.contains(found, prereleases=True)
        extra = re.search(r"extra == ['\"]([\w-]+)", str(requirement.marker or ""))
        if extra is None:
            packages[name] = found
            if not fits:
                problems.append(f"{name} {found or 'is missing'}: {requirement} is needed")
        elif name != DISTRIBUTION:
            lacking = extras.setdefault(extra[1], [])
            lacking += [] if fits else [name]
    return packages, extras, problems


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _device_names() -> list[str]:
    names = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return [*names, "mps"] if torch.backends.mps.is_available() else names


def _device(device: torch.device) -> dict[str, str]:
    """A device's name and, for each precision, whether it works there and how fast."""
    facts = {"device": str(device), "name": _called(device)}
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 32, 32, 32, generator=generator).to(device)
    kernel = torch.randn(32, 32, 3, 3, generator=generator).to(device)
    try:
        expected = _work(x, kernel)
    except RuntimeError as error:
        return facts | {precision: f"fails ({_line(error)})" for precision in get_args(Precision)}
    for precision in get_args(Precision):
        facts[precision] = _try(device, precision, x, kernel, expected)
    return facts


def _called(device: torch.device) -> str:
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return f"{found.name}, {found.total_memory / 2**30:.1f} GB"
    model = re.search(r"Model name:\s*(.+)", collect_env.get_cpu_info(collect_env.run) or "")
    return f"{model[1].strip()}, {platform.machine()}" if model else platform.machine()


def _work(x: Tensor, kernel: Tensor) -> Tensor:
    """A convolution and an attention-like product, as the networks have them."""
    y = functional.conv2d(x, kernel, padding=1).flatten(2)
    return (y.transpose(1, 2) @ y).float()


def _try(device: torch.device, precision: Precision, x: Tensor, kernel: Tensor, expected: Tensor) -> str:
    try:
        with autocast(device, precision):
            _work(x, kernel).sum().item()  # the first time takes longer
            begun = time.monotonic()
            result = _work(x, kernel)
            result.sum().item()  # waits for a GPU
            seconds = time.monotonic() - begun
    except RdmError as error:
        return error.message
    except RuntimeError as error:
        return f"fails ({_line(error)})"
    off = float((result - expected).abs().max() / expected.abs().max())
    return f"works ({1000 * seconds:.1f} ms)" if off < TOLERANCE else f"is wrong by {100 * off:.0f} %"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _memory() -> dict[str, float]:
    """Of this machine, in GB: ``total`` and, where it is told, ``available``."""
    found = {}
    try:
        for line in Path("/proc/meminfo").read_text("utf-8").splitlines():
            name, _, rest = line.partition(":")
            if name in ("MemTotal", "MemAvailable"):
                found[name.removeprefix("Mem").lower()] = round(int(rest.split()[0]) / 2**20, 1)
    except (OSError, ValueError, IndexError):
        pass  # no Linux
    return found


def _places() -> dict[str, dict[str, Any]]:
    """Where rdm reads and writes, and how much is free there, in GB; None where there is no such folder."""
    from huggingface_hub import constants

    folders = {
        "here": Path.cwd(),
        "hub cache": Path(constants.HF_HUB_CACHE),
        "temporary": Path(tempfile.gettempdir()),
    }
    return {
        name: {"path": tilde(str(path)), "free_gb": _free(path), "writable": _writable(path)}
        for name, path in folders.items()
    }


def _free(path: Path) -> float | None:
    there = next((p for p in (path, *path.parents) if p.is_dir()), None)
    return None if there is None else round(shutil.disk_usage(there).free / 2**30, 1)


def _writable(path: Path) -> bool:
    there = next((p for p in (path, *path.parents) if p.exists()), path)
    return os.access(there, os.W_OK)


def _bundle(spec: str) -> tuple[dict[str, Any], list[str]]:
    """What a bundle is and needs, and what is wrong with it."""
    try:
        facts = details(spec)
    except RdmError as error:
        return {"bundle": spec}, [str(error)]
    problems = [f"{spec}: {part}: {problem}" for part, problem in check(spec) if problem is not None]
    num = sum(value for name, value in facts.items() if name.endswith("_parameters"))
    facts |= {"weights_gb": round(4 * num / 2**30, 2), "needs": _needs(open_bundle(spec))}
    return facts | {"folder": tilde(facts["folder"])}, problems


def _needs(bundle: Bundle) -> list[str]:
    """The packages that open its networks, besides torch."""
    names = [n for n in bundle.method.components if getattr(bundle.model, n) is not None]
    modules = {
        type(module).__module__.partition(".")[0]
        for name in names
        for module in getattr(bundle.model, name).modules()
    }
    return sorted(modules - {"torch", "rdm_cli"})
