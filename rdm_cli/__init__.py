"""rdm: representation diffusion models on the command line and in Python.

The names below load what they need when they are first used, so that importing the package is free.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rdm_cli.core.codes import Codes
    from rdm_cli.core.pipeline import Pipeline, open_pipeline
    from rdm_cli.core.runtime import set_up
    from rdm_cli.errors import RdmError

__all__ = ["Codes", "Pipeline", "RdmError", "__version__", "open_pipeline", "set_up"]

_HOMES = {
    "Codes": "rdm_cli.core.codes",
    "Pipeline": "rdm_cli.core.pipeline",
    "RdmError": "rdm_cli.errors",
    "open_pipeline": "rdm_cli.core.pipeline",
    "set_up": "rdm_cli.core.runtime",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
