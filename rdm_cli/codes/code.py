"""Codes: what an image becomes, in memory and as a .safetensors file.

A file holds ``z`` (but a plain DPM has none) and, unless it was left out, ``x_T`` in float32 (float64 where a
solver keeps a second state beside it), without a batch axis, and one metadata key, ``rdm``: canonical JSON,
so that equal codes are equal bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import torch
from safetensors.torch import save as serialize
from torch import Tensor

from rdm_cli.bundles.config_json import from_json, to_json
from rdm_cli.data.io.json_text import parse_object
from rdm_cli.data.io.places import Place, Readable, paths_of, put
from rdm_cli.data.io.tensor_files import first_not_finite, read_names, read_with_metadata
from rdm_cli.data.sources.folders import CODE_SUFFIX, CODE_SUFFIXES, find_inputs
from rdm_cli.errors import CodeError, setting

FORMAT_VERSION = 1
CONDITIONS = ("style",)
"""What a code may hold besides z and x_T: conditions of an image, for the models that declare them."""

_REAL = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(frozen=True, kw_only=True)
class CodeInfo:
    """How a code was made.

    ``solver`` and ``steps`` are those by which x_T was inferred, or a sample was decoded; ``steps`` is None
    where there is no x_T (z alone takes no steps). ``spacing`` says on which timesteps, None being the
    method's own; ``iterations`` how often an inversion asked the network where it solved an equation.
    ``value_range`` are the values of black and white that were asked for, of grey images of more than 8 bits.
    ``source_digest`` is the SHA-256 of the image file and None where there was none, as for samples and
    edits; ``source_size`` its width and height in pixels. What a code brings back is not that image but the
    square of ``image_size`` that ``fit`` makes of it. ``mse`` and ``psnr_db`` are the measured
    reconstruction error, None where it was not asked for; ``pixels_digest`` is the SHA-256 of the pixels
    that a lossless code restores. ``edits`` lists what was done to z. ``stop_shift`` is the last fraction of
    a decode's steps in which PDAE's shift is left out, as it is for samples. ``class_name`` is that of a
    class-conditional bundle.
    """

    method: str
    bundle: str
    bundle_digest: str
    image_size: int
    solver: str = "ddim"
    steps: int | None = None
    spacing: str | None = None
    iterations: int | None = None
    precision: str = "fp32"
    fit: str = "crop"
    value_range: tuple[float, ...] | None = None
    source: str | None = None
    source_digest: str | None = None
    source_size: tuple[int, int] | None = None
    edits: tuple[str, ...] = ()
    stop_shift: float = 0.0
    class_name: str | None = None
    mse: float | None = None
    psnr_db: float | None = None
    pixels_digest: str | None = None
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True, kw_only=True)
class Codes:
    """A batch of codes: ``z`` (N, *z_shape), ``x_T`` (N, C, H, W) or None, and an info for each.

    The codes of a plain DPM are x_T alone: their z is (N, 0). ``style`` (N, C, h, w) are the latents from
    which an LRDM of style and shape takes the style; None: another model, or another image's will do.
    ``other`` (N, C, H, W) is the second state of a solver that keeps two, both then in float64. ``residuals``
    bring the decoded pictures to the very pixels of the images (:mod:`rdm_cli.data.residual`). ``names`` are
    what the codes are called where they are saved into a folder, such as ``sub/a``; None: by their numbers.
    """

    z: Tensor
    x_T: Tensor | None
    infos: tuple[CodeInfo, ...]
    style: Tensor | None = None
    other: Tensor | None = None
    residuals: tuple[bytes, ...] | None = None
    names: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        """What there is, in one line: no tensors."""
        held = {"z": self.z, **{name: values for name, values in self._maps().items() if values is not None}}
        shapes = ", ".join(f"{name} {tuple(values.shape)}" for name, values in held.items())
        bundles = " and ".join(dict.fromkeys(info.bundle for info in self.infos)) or "no bundle"
        residuals = "" if self.residuals is None else ", residuals"
        return f"<Codes: {len(self)} of {bundles}; {shapes}{residuals}>"

    def __post_init__(self) -> None:
        if not isinstance(self.z, Tensor) or not self.z.is_floating_point():
            raise ValueError("z must be a tensor of floats")
        held = {"z": self.z, **self._maps(), "residuals": self.residuals, "names": self.names}
        for name, values in held.items():
            if values is not None and len(values) != len(self.infos):
                raise ValueError(f"{len(self.infos)} infos need as many rows of {name}, not {len(values)}")

    def __len__(self) -> int:
        return len(self.infos)

    def __getitem__(self, index: int | slice) -> Codes:
        """One code, as a batch of one, or those of a slice."""
        rows = range(len(self))[index]
        return self.select([rows] if isinstance(rows, int) else rows)

    def select(self, indices: Sequence[int]) -> Codes:
        """Some of the codes, in the order of ``indices``; raises IndexError where there are not so many."""
        if isinstance(indices, Tensor) and indices.dtype == torch.bool:
            raise TypeError("codes are chosen by numbers, not by a mask: mask.nonzero().flatten()")
        rows = [range(len(self))[i] for i in indices]
        maps = {name: None if m is None else m[rows] for name, m in self._maps().items()}
        return Codes(
            z=self.z[rows],
            infos=tuple(self.infos[i] for i in rows),
            residuals=None if self.residuals is None else tuple(self.residuals[i] for i in rows),
            names=None if self.names is None else tuple(self.names[i] for i in rows),
            **maps,
        )

    def _maps(self) -> dict[str, Tensor | None]:
        return {"x_T": self.x_T, **{name: getattr(self, name) for name in CONDITIONS}, "other": self.other}

    @property
    def conditions(self) -> dict[str, Tensor]:
        """What a denoiser is told, by name: z and, of :data:`CONDITIONS`, those that there are."""
        found = {name: getattr(self, name) for name in ("z", *CONDITIONS)}
        return {name: values for name, values in found.items() if values is not None}

    def without_x_T(self) -> Codes:
        """z, and what else does not depend on an x_T: for another one."""
        return self.replace(x_T=None, other=None, residuals=None)

    @property
    def holds(self) -> frozenset[str]:
        """What there is besides z; only codes that hold the same can be joined without loss."""
        present = {name for name, values in self._maps().items() if values is not None}
        return frozenset(present | ({"residuals"} if self.residuals is not None else set()))

    def __iter__(self) -> Iterator[Codes]:
        return iter((self,)) if len(self) == 1 else (self[i] for i in range(len(self)))

    def replace(self, **changes: Any) -> Codes:
        """A copy with other tensors or infos."""
        return dataclasses.replace(self, **changes)

    def save(self, places: Iterable[Place | str] | Place | str) -> list[str]:
        """Write each code to its place, whole or not at all; returns the SHA-256 of each one's bytes.

        A path is a place. One path alone is a folder, unless it ends in ``.safetensors`` or is a file's: each
        code gets a file of its name in it, and a file that is there already is replaced. Raises ValueError
        for more or fewer places and for two codes of one name, and CodeError at the first code that holds
        values that are not finite; those before it are written.
        """
        if isinstance(places, str | Path) and _is_folder(Path(places)):
            places = self._places_in(Path(places))
        found = paths_of(places)
        if len({str(place) for place in found}) != len(found):
            raise ValueError("each code needs a place of its own")
        if len(found) != len(self):
            raise ValueError(f"{len(self)} codes need as many places, not {len(found)}")
        return [put(place, code._to_bytes(place)) for code, place in zip(self, found, strict=True)]

    def _places_in(self, folder: Path) -> list[Path]:
        """A file below ``folder`` for each code; its folders are made."""
        names = self.names if self.names is not None else tuple(f"{i:06d}" for i in range(len(self)))
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two of these codes are called {twice!r}: codes.replace(names=...) names them")
        for name in names:
            parts = PurePath(name).parts
            if not parts or ".." in parts or PurePath(name).is_absolute():
                raise ValueError(f"a code's name is a path below the folder, which {name!r} is not")
        places = [folder / f"{name}{CODE_SUFFIX}" for name in names]
        for parent in {place.parent for place in (*places, folder / "any")}:
            parent.mkdir(parents=True, exist_ok=True)
        return places

    def digests(self) -> list[str]:
        """SHA-256 of the bytes that :meth:`save` writes of each code; raises CodeError as it does."""
        return [hashlib.sha256(code._to_bytes("a code")).hexdigest() for code in self]

    def _to_bytes(self, place: Place | str) -> bytes:
        """A batch of one as the bytes of its file, which goes to ``place``."""
        tensors = {"z": self.z[0]} if self.z.numel() else {}
        tensors |= {name: values[0] for name, values in self._maps().items() if values is not None}
        exact = {"x_T", "other"} if self.other is not None else set()
        kinds = {name: torch.float64 if name in exact else torch.float32 for name in tensors}
        stored = {name: t.detach().to("cpu", kinds[name]).contiguous() for name, t in tensors.items()}
        if (name := first_not_finite(stored.items())) is not None:
            raise CodeError(
                f"{place}: its {name} holds values that are not finite, so it is not written",
                hint=f"try another {setting('precision')}",
            )
        if self.residuals is not None:
            stored["residual"] = torch.frombuffer(bytearray(self.residuals[0]), dtype=torch.uint8)
        text = json.dumps(to_json(self.infos[0]), sort_keys=True, separators=(",", ":"))
        return serialize(stored, metadata={"rdm": text})

    @staticmethod
    def load(source: Readable | str) -> Codes:
        """Read the code in a file as a batch of one, or all below a folder, in the order of their paths.

        Each is called by its path without the suffix. Raises CodeError for what is no code, and for codes of
        a folder that hold different things (:meth:`concatenate`); UsageError for a folder without codes.
        """
        source = Path(source) if isinstance(source, str) else source
        if not isinstance(source, Path) or not source.is_dir():
            return Codes._load(source, source.stem)
        found = find_inputs([source], suffixes=CODE_SUFFIXES)
        return Codes.concatenate(
            Codes._load(item.source, item.relative.with_suffix("").as_posix()) for item in found
        )

    @staticmethod
    def _load(source: Readable, name: str) -> Codes:
        info, found = _read(source)
        if not found.keys() & {"z", "x_T"}:
            raise CodeError(f"{source}: this code holds neither z nor x_T")
        residual = found.pop("residual", None)
        exact = {"x_T", "other"} if "other" in found else set()
        found = {n: t[None].to(torch.float64 if n in exact else torch.float32) for n, t in found.items()}
        z = found.pop("z", torch.zeros(1, 0, dtype=torch.float32))
        maps = {n: found.get(n) for n in ("x_T", *CONDITIONS, "other")}
        residuals = None if residual is None else (residual.numpy().tobytes(),)
        return Codes(z=z, infos=(info,), residuals=residuals, names=(name,), **maps)

    @staticmethod
    def concatenate(parts: Iterable[Codes]) -> Codes:
        """Join batches that hold the same things, in the same shapes: nothing is dropped to make them fit.

        Those without names are called by their numbers, where others have some.

        Raises CodeError where some hold what others lack (:meth:`without_x_T` leaves the x_T out of all),
        ValueError for no batch at all.
        """
        codes = list(parts)
        if not codes:
            raise ValueError("there are no codes to join")
        lacking = frozenset[str].union(*(c.holds for c in codes)) - codes[0].holds.intersection(
            *(c.holds for c in codes)
        )
        if lacking:
            words = ", ".join(_CALLED[name] for name in sorted(lacking))
            raise CodeError(
                f"some of these codes hold {words}, and others do not",
                hint="use them apart, or make all alike",
            )
        if len({c.z.shape[1:] for c in codes}) > 1:
            raise CodeError("these codes hold z for different numbers of steps", hint="decode them apart")
        maps: dict[str, Tensor] = {}
        for name in codes[0].holds - {"residuals"}:
            held = [values for c in codes if (values := c._maps()[name]) is not None]
            if len({values.shape[1:] for values in held}) > 1:
                raise CodeError(f"{_CALLED[name]} of these codes has several shapes", hint="use them apart")
            maps[name] = torch.cat(held)
        residuals = tuple(r for c in codes for r in c.residuals or ())
        names: list[str] = []
        for c in codes:
            names += c.names or (f"{len(names) + i:06d}" for i in range(len(c)))
        return Codes(
            z=torch.cat([c.z for c in codes]),
            infos=tuple(info for c in codes for info in c.infos),
            residuals=residuals if "residuals" in codes[0].holds else None,
            names=tuple(names) if any(c.names for c in codes) else None,
            **{"x_T": None, **maps},
        )


def _is_folder(path: Path) -> bool:
    """Whether codes are saved into ``path``, and not as it."""
    return path.is_dir() or not (path.suffix == CODE_SUFFIX or path.is_file())


_CALLED = {
    "x_T": "an x_T", "other": "a second state", "style": "a style", "residuals": "a lossless residual",
}  # fmt: skip


def read_info(source: Readable) -> CodeInfo:
    """The metadata of a code; of a file, without its tensors. Raises CodeError where it is not one."""
    return _read(source, names=())[0]


def read_held(source: Readable) -> tuple[CodeInfo, frozenset[str]]:
    """The metadata of a code and the names of its tensors. Raises CodeError where it is not one."""
    with _readable(source):
        metadata, names = read_names(source)
    return _info_of(source, metadata), names


def read_z(source: Readable) -> tuple[CodeInfo, Tensor]:
    """The metadata and z, float32 (*z_shape), of a code; of a file, no more is read. Raises CodeError."""
    info, tensors = _read(source, names=("z",))
    if "z" not in tensors:
        raise CodeError(f"{source}: this code holds no z")
    return info, tensors["z"].float()


_KINDS = dict.fromkeys(("z", "x_T", *CONDITIONS, "other"), _REAL) | {"residual": (torch.uint8,)}


def _read(source: Readable, names: Collection[str] = tuple(_KINDS)) -> tuple[CodeInfo, dict[str, Tensor]]:
    """The metadata, and the tensors of these names, as far as there are, of finite numbers."""
    with _readable(source):
        metadata, tensors = read_with_metadata(source, names)
    info = _info_of(source, metadata)
    for name, value in tensors.items():
        if value.dtype not in _KINDS[name]:
            raise CodeError(f"{source}: {name} holds {value.dtype}, which no code does")
    if (wrong := first_not_finite(tensors.items())) is not None:
        raise CodeError(f"{source}: {wrong} holds values that are not finite")
    return info, tensors


@contextmanager
def _readable(source: Readable) -> Iterator[None]:
    """Within the block, what keeps ``source`` from being read is a CodeError."""
    if isinstance(source, Path) and not source.is_file():
        raise CodeError(f"{source}: no such code file")
    try:
        yield
    except (ValueError, OSError) as error:
        raise CodeError(f"{source}: not a readable .safetensors file ({error})") from error


def _info_of(source: Readable, metadata: Mapping[str, str]) -> CodeInfo:
    if "rdm" not in metadata:
        raise CodeError(f"{source}: a .safetensors file, but not a code written by rdm")
    try:
        values = parse_object(metadata["rdm"])
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise CodeError(
                f"{source}: written in code format {version}, this rdm reads {FORMAT_VERSION}",
                hint="upgrade rdm, or encode the image again",
            )
        return from_json(CodeInfo, values)
    except ValueError as error:
        raise CodeError(f"{source}: damaged metadata ({error})") from error
