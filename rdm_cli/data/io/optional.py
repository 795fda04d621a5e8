"""Packages that rdm does without until something asks for them: the extras of its installation."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from rdm_cli.errors import UsageError


def optional_module(name: str, *, package: str, purpose: str, extra: str = "sources") -> ModuleType:
    """The module ``name`` of ``package``, imported; UsageError with the remedy where it is absent."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != name.partition(".")[0]:
            raise
        raise UsageError(f"{purpose} needs {package}", hint=f"pip install 'rdm-cli[{extra}]'") from None
