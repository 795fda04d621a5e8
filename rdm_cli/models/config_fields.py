"""Fields that configurations were given after bundles had been written without them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field
from typing import Any

UNWRITTEN: Mapping[str, bool] = {"unwritten": True}
"""``metadata`` of a field whose default is what came before it: it is not written at its default.

So a network of an older rdm has the same ``config.json``, and its bundle the same digest, as ever.
"""


def is_unwritten(field: Field[Any], value: Any) -> bool:
    """Whether ``field`` is left out of a file where it has ``value``."""
    return bool(field.metadata.get("unwritten")) and value == field.default
