"""Opens networks that diffusers wrote, in each way in which it stores weights beside a ``config.json``.

    diffusion_pytorch_model.safetensors                          one file
    diffusion_pytorch_model.safetensors.index.json               several, and which tensor lies where
    diffusion_pytorch_model.fp16.safetensors                     a variant, in one file
    diffusion_pytorch_model.safetensors.index.fp16.json          a variant, in several

and the same with ``.bin``, which are pickles. A variant is taken where there is nothing else. Weights become
float32, whatever they are stored as.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdm_cli.data.io.json_text import read_object
from rdm_cli.data.io.tensor_files import tensor_shapes
from rdm_cli.errors import CheckpointError
from rdm_cli.methods.official.reading import load_official
from rdm_cli.models.first_stage import quiet_diffusers
from rdm_cli.models.size_limit import no_larger_than

STEM = "diffusion_pytorch_model"
FILES = ("config.json", f"{STEM}*.safetensors", f"{STEM}*.json")
"""Patterns of all that a network may be made of, but for pickles."""
_USUAL_VARIANT = "fp16"


@dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """The ``files`` that hold a network's weights; ``variant`` is diffusers' word for their kind, if any."""

    files: tuple[Path, ...]
    variant: str | None
    is_safe: bool


def find_weights(folder: Path, *, pickled: bool = False) -> StoredWeights:
    """A network's weights in ``folder``: safetensors, else, where they are wanted, pickles.

    Raises CheckpointError where there are none, some are missing, or they are of several variants of which
    none is fp16.
    """
    for suffix in ("safetensors", "bin"):
        names = _variants(folder, suffix)
        if not names:
            continue
        if suffix == "bin" and not pickled:
            raise CheckpointError(f"{names[min(names)]}: these weights are pickled")
        variant = next((v for v in ("", _USUAL_VARIANT) if v in names), None)
        if variant is None and len(names) > 1:
            found = ", ".join(sorted(names))
            raise CheckpointError(
                f"{folder}: weights of the variants {found}, and rdm cannot tell which is meant",
                hint="leave the file of one of them there",
            )
        chosen = next(iter(names)) if variant is None else variant
        path = names[chosen]
        files = _shards(path, suffix) if path.suffix == ".json" else (path,)
        return StoredWeights(files=files, variant=chosen or None, is_safe=suffix == "safetensors")
    raise CheckpointError(
        f"{folder / STEM}.safetensors: the weights are missing; rdm reads {STEM}.safetensors, its variants "
        "(.fp16.safetensors) and its parts with their index.json"
    )


def _variants(folder: Path, suffix: str) -> dict[str, Path]:
    """The file, or the index, of each variant; "" is the plain one. A whole file goes before an index."""
    found: dict[str, Path] = {}
    patterns = (rf"{STEM}(?:\.(\w+))?\.{suffix}", rf"{STEM}\.{suffix}\.index(?:\.(\w+))?\.json")
    for pattern in patterns:
        for path in sorted(folder.glob(f"{STEM}*")):
            if match := re.fullmatch(pattern, path.name):
                found.setdefault(match[1] or "", path)
    return found


def _shards(index: Path, suffix: str) -> tuple[Path, ...]:
    try:
        places = read_object(index).get("weight_map")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{index}: not readable as JSON ({error})") from error
    names: list[Any] = list(places.values()) if isinstance(places, dict) and places else [None]
    files = set()
    for name in names:
        # a name with a folder in it would lead elsewhere
        if not isinstance(name, str) or not re.fullmatch(rf"{STEM}[\w.]*-\d+-of-\d+\.{suffix}", name):
            raise CheckpointError(f"{index}: its weight_map names {name!r}, which is no part of the weights")
        files.add(index.parent / name)
    missing = [path for path in sorted(files) if not path.is_file()]
    if missing:
        raise CheckpointError(f"{missing[0]}: this part of the weights is missing")
    return tuple(sorted(files))


def open_network(network: Any, folder: Path, weights: StoredWeights) -> Any:
    """The diffusers class ``network`` as ``folder`` has it, in float32; raises CheckpointError.

    It is not built much larger than its ``weights``, whatever its configuration says.
    """
    try:
        shapes = [shape for path in weights.files for shape in _shapes(path, weights)]
        with quiet_diffusers(), no_larger_than(shapes):
            opened = network.from_pretrained(
                str(folder), use_safetensors=weights.is_safe, variant=weights.variant, local_files_only=True
            )
    except CheckpointError:
        raise
    except Exception as error:  # diffusers raises many kinds for configs and weights that do not fit
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{folder}: not a network that diffusers opens ({reason})") from error
    return opened.float()


def _shapes(path: Path, weights: StoredWeights) -> list[tuple[int, ...]]:
    if weights.is_safe:
        return list(tensor_shapes(path).values())
    return [tuple(value.shape) for value in load_official(path).values() if hasattr(value, "shape")]
