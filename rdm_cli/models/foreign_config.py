"""Configurations of diffusers' own networks, kept as diffusers writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

LATER = "later"
"""In the metadata of a config's field that came after files had been written; None of it is not stored."""


@dataclass(frozen=True, kw_only=True)
class ForeignConfig:
    """A diffusers network's ``config.json``: the name of its class, and its ``values``.

    Entries that start with an underscore are diffusers' notes and are left out, but for ``_rdm_...``, which
    are ours. Raises ValueError for another class than the ``CLASSES``.
    """

    CLASSES: ClassVar[tuple[str, ...]] = ()

    class_name: str
    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.class_name not in self.CLASSES:
            raise ValueError(f"{self.class_name!r} is none of {', '.join(self.CLASSES)}")
        # as JSON would give them back
        kept = {k: v for k, v in self.values.items() if not k.startswith("_") or k.startswith("_rdm_")}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}
        object.__setattr__(self, "values", plain)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> ForeignConfig:
        """From a ``config.json``; one that names no class is of the first of ``CLASSES``."""
        return cls(class_name=values.get("_class_name", cls.CLASSES[0]), values=values)

    def to_values(self) -> dict[str, Any]:
        """What a ``config.json`` holds."""
        return {"_class_name": self.class_name, **self.values}
