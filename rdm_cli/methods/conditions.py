"""What a denoiser is told besides x_t and t: tensors by their names.

A model's ``encode`` gives them, its ``denoiser`` takes them back, and a code stores them. ``z`` is one of
each model. What else a model takes it declares itself, as ``conditions``, one :class:`ConditionSpec` each: so
nothing outside a method's folder knows which they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from torch import Tensor

Conditions: TypeAlias = Mapping[str, Tensor]
"""A batch's conditions: ``z`` (B, *z_shape) and, of each other that the model declares, (B, *shape)."""

NOTHING: Conditions = MappingProxyType({})
"""No conditions."""


@dataclass(frozen=True, kw_only=True)
class ConditionSpec:
    """A condition that a model takes besides z; ``shape`` is that of one image's.

    Of two origins. With ``names`` it is given: the user, or the folder that an image lies in, names one of
    them, and the tensor holds its number (int64, shape ()). Without, it is the image's own, which ``encode``
    gives, and another image's will do as well.
    """

    name: str
    shape: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


def of_images(specs: Iterable[ConditionSpec]) -> dict[str, ConditionSpec]:
    """Those of ``specs`` that only an image gives, by their names."""
    return {spec.name: spec for spec in specs if not spec.names}
