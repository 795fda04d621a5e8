"""Classes of a class-conditional bundle: by name outside, by number inside.

An image is of the class that the user names or, where none is named, of the one whose folder it lies in;
a code records its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rdm_cli.bundles.bundle import Bundle
from rdm_cli.codes.code import CodeInfo
from rdm_cli.errors import CodeError, UsageError, setting
from rdm_cli.kernels.randomness import key_to_seed
from rdm_cli.registry import nearest

CLASS = "class"


def known_classes(bundle: Bundle) -> tuple[str, ...]:
    """The classes that ``bundle`` knows: () for most."""
    return next((spec.names for spec in bundle.model.conditions if spec.name == CLASS), ())


def checked_class(bundle: Bundle, name: str | None) -> str | None:
    """``name`` as it is; raises UsageError where ``bundle`` does not know it."""
    known = known_classes(bundle)
    if name is None or name in known:
        return name
    if not known:
        raise UsageError(f"{bundle.name}: {setting('class_name')}: this bundle knows no classes")
    raise UsageError(f"{bundle.name}: there is no class {name!r}", hint=nearest(name, known))


def given_of(bundle: Bundle, path: Path | None, class_name: str | None) -> dict[str, Any]:
    """What the code of an image records as given by name: ``class_name``, or the class of its folder.

    {} where there are no classes, and for an image of no file without a ``class_name``. Raises UsageError
    where the folder is named like no class.
    """
    known = known_classes(bundle)
    if class_name is not None:
        return {"class_name": class_name}
    if not known or path is None:
        return {}
    name = path.absolute().parent.name
    if name not in known:
        raise UsageError(
            f"{path}: of which class is it? Its folder {name!r} is none of {', '.join(known)}",
            hint=f"name one with {setting('class_name')}",
        )
    return {"class_name": name}


def given_of_draw(bundle: Bundle, seed: int, key: int | str) -> dict[str, Any]:
    """A class drawn for (``seed``, ``key``), each as likely as another; {} where there are no classes."""
    known = known_classes(bundle)
    return {"class_name": known[key_to_seed(seed, "class", key) % len(known)]} if known else {}


def given_conditions(bundle: Bundle, infos: Sequence[CodeInfo]) -> dict[str, Tensor]:
    """The conditions of the model that are given by name, (B,) each, as codes record them; {} for most.

    Raises CodeError for a class that the bundle does not know, or none where it knows some.
    """
    known, names = known_classes(bundle), [info.class_name for info in infos]
    for name in names:
        if name is None and known:
            raise CodeError("no class is recorded", hint=f"name one with {setting('class_name')}")
        if name is not None and name not in known:
            raise CodeError(f"{bundle.name} knows no class {name!r}")
    return {CLASS: torch.tensor([known.index(name) for name in names if name is not None])} if known else {}


def require_alike(first: CodeInfo, second: CodeInfo) -> None:
    """Raise CodeError where two codes are of two classes."""
    if first.class_name != second.class_name:
        raise CodeError(
            f"one code is of the class {first.class_name}, the other of {second.class_name}",
            hint=f"name one for both with {setting('class_name')}",
        )
