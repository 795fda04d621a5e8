"""Codes: what an image becomes, in memory and as a .safetensors file.

A file holds ``z`` (but a plain DPM has none) and, unless it was left out, ``x_T`` in float32, without
a batch axis, and one metadata key, ``rdm``: canonical JSON, so that equal codes are equal bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rdm_cli.core.configs import from_json, to_json
from rdm_cli.core.tensor_files import write_tensors
from rdm_cli.errors import CodeError

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class CodeInfo:
    """How a code was made.

    ``steps`` is None where there is no x_T (z alone takes no steps); ``source_digest`` is the SHA-256
    of the image file and None where there was none, as for samples and edits. ``mse`` and ``psnr_db``
    are the measured reconstruction error, None where it was not asked for. ``edits`` lists what was
    done to z. ``stop_shift`` is the last fraction of a decode's steps in which PDAE's shift is left out, as
    it is for samples. ``class_name`` is that of a class-conditional bundle.
    """

    method: str
    bundle: str
    bundle_digest: str
    image_size: int
    solver: str = "ddim"
    steps: int | None = None
    precision: str = "fp32"
    fit: str = "crop"
    source: str | None = None
    source_digest: str | None = None
    edits: tuple[str, ...] = ()
    stop_shift: float = 0.0
    class_name: str | None = None
    mse: float | None = None
    psnr_db: float | None = None
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True, kw_only=True)
class Codes:
    """A batch of codes: ``z`` (N, *z_shape), ``x_T`` (N, C, H, W) or None, and an info for each.

    The codes of a plain DPM are x_T alone: their z is (N, 0). ``style`` (N, C, h, w) are the latents from
    which an LRDM of style and shape takes the style; None: another model, or another image's will do.
    """

    z: Tensor
    x_T: Tensor | None
    infos: tuple[CodeInfo, ...]
    style: Tensor | None = None

    def __len__(self) -> int:
        return len(self.infos)

    def __getitem__(self, index: int) -> Codes:
        """One code, as a batch of one."""
        i = range(len(self))[index]
        x_T = None if self.x_T is None else self.x_T[i : i + 1]
        style = None if self.style is None else self.style[i : i + 1]
        return Codes(z=self.z[i : i + 1], x_T=x_T, infos=(self.infos[i],), style=style)

    def __iter__(self) -> Iterator[Codes]:
        return (self[i] for i in range(len(self)))

    def replace(self, **changes: Any) -> Codes:
        """A copy with other tensors or infos."""
        return dataclasses.replace(self, **changes)

    def save(self, paths: Sequence[Path]) -> None:
        """Write each code to its path, atomically."""
        if len(paths) != len(self):
            raise ValueError(f"{len(self)} codes need as many paths, not {len(paths)}")
        for code, path in zip(self, paths, strict=True):
            tensors = {"z": code.z[0]} if code.z.numel() else {}
            tensors |= {} if code.x_T is None else {"x_T": code.x_T[0]}
            tensors |= {} if code.style is None else {"style": code.style[0]}
            stored = {name: t.detach().float().cpu().contiguous() for name, t in tensors.items()}
            text = json.dumps(to_json(code.infos[0]), sort_keys=True, separators=(",", ":"))
            write_tensors(path, stored, {"rdm": text})

    @staticmethod
    def load(path: Path) -> Codes:
        """Read one code file as a batch of one; raises CodeError where it is not one."""
        info = read_info(path)
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            if not names & {"z", "x_T"}:
                raise CodeError(f"{path}: this code holds neither z nor x_T")
            z = file.get_tensor("z")[None] if "z" in names else torch.zeros(1, 0)
            x_T = file.get_tensor("x_T")[None] if "x_T" in names else None
            style = file.get_tensor("style")[None] if "style" in names else None
        for name, value in (("z", z), ("x_T", x_T), ("style", style)):
            if value is not None and not bool(torch.isfinite(value).all()):
                raise CodeError(f"{path}: {name} holds values that are not finite")
        return Codes(z=z, x_T=x_T, infos=(info,), style=style)

    @staticmethod
    def concatenate(codes: Sequence[Codes]) -> Codes:
        """Join batches; x_T and the style are kept only where every part has one."""
        if len({c.z.shape[1:] for c in codes}) > 1:
            raise CodeError("these codes hold z for different numbers of steps", hint="decode them apart")
        return Codes(
            z=torch.cat([c.z for c in codes]),
            x_T=_joined([c.x_T for c in codes]),
            infos=tuple(info for c in codes for info in c.infos),
            style=_joined([c.style for c in codes]),
        )


def _joined(maps: Sequence[Tensor | None]) -> Tensor | None:
    present = [values for values in maps if values is not None]
    return torch.cat(present) if len(present) == len(maps) else None


def read_info(path: Path) -> CodeInfo:
    """The metadata of a code file, without its tensors; raises CodeError where it is not one."""
    if not path.is_file():
        raise CodeError(f"{path}: no such code file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CodeError(f"{path}: not a readable .safetensors file ({error})") from error
    if "rdm" not in metadata:
        raise CodeError(f"{path}: a .safetensors file, but not a code written by rdm")
    try:
        values = json.loads(metadata["rdm"])
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise CodeError(
                f"{path}: written in code format {version}, this rdm reads {FORMAT_VERSION}",
                hint="upgrade rdm, or encode the image again",
            )
        return from_json(CodeInfo, values)
    except (ValueError, AttributeError) as error:
        raise CodeError(f"{path}: damaged metadata ({error})") from error
