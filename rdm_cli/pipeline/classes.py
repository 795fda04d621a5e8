"""Classes of a class-conditional bundle: by name outside, by number inside.

An image is of the class that the user names or, where none is named, of the one whose folder it lies in;
a code records its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rdm_cli.bundles.bundle import Bundle
from rdm_cli.codes.code import CodeInfo
from rdm_cli.errors import CodeError, UsageError, setting
from rdm_cli.kernels.randomness import key_to_seed
from rdm_cli.registry import nearest


def checked_class(bundle: Bundle, name: str | None) -> str | None:
    """``name`` as it is; raises UsageError where ``bundle`` does not know it."""
    known = bundle.model.class_names
    if name is None or name in known:
        return name
    if not known:
        raise UsageError(f"{bundle.name}: {setting('class_name')}: this bundle knows no classes")
    raise UsageError(f"{bundle.name}: there is no class {name!r}", hint=nearest(name, known))


def class_of_image(bundle: Bundle, path: Path) -> str | None:
    """The class whose folder an image lies in; None where there are no classes.

    Raises UsageError where its folder is named like none of them.
    """
    known = bundle.model.class_names
    if not known:
        return None
    name = path.absolute().parent.name
    if name not in known:
        raise UsageError(
            f"{path}: of which class is it? Its folder {name!r} is none of {', '.join(known)}",
            hint=f"name one with {setting('class_name')}",
        )
    return name


def drawn_class(bundle: Bundle, seed: int, key: int | str) -> str | None:
    """A class drawn for (``seed``, ``key``), each as likely as another; None where there are no classes."""
    known = bundle.model.class_names
    return known[key_to_seed(seed, "class", key) % len(known)] if known else None


def class_numbers(bundle: Bundle, names: Sequence[str | None]) -> dict[str, Tensor]:
    """``y`` (B,), what a class-conditional model takes; {} for others.

    Raises CodeError for a class that the bundle does not know, or none where it knows some.
    """
    known = bundle.model.class_names
    for name in names:
        if name is None and known:
            raise CodeError("no class is recorded", hint=f"name one with {setting('class_name')}")
        if name is not None and name not in known:
            raise CodeError(f"{bundle.name} knows no class {name!r}")
    return {"y": torch.tensor([known.index(name) for name in names if name is not None])} if known else {}


def common_class(first: CodeInfo, second: CodeInfo) -> str | None:
    """The class of two codes; raises CodeError where they are of two."""
    if first.class_name != second.class_name:
        raise CodeError(
            f"one code is of the class {first.class_name}, the other of {second.class_name}",
            hint=f"name one for both with {setting('class_name')}",
        )
    return first.class_name
