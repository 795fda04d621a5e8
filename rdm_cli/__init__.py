"""rdm: representation diffusion models on the command line and in Python.

    import rdm_cli as rdm

    pipe = rdm.open_pipeline("avatars64-diffae")
    codes = pipe.encode(["a.png", "b.png"])
    smiling = pipe.manipulate(codes, {"smiling": 0.3})
    rdm.show({"as they are": pipe.decode(codes), "smiling": pipe.decode(smiling)})

The names below load what they need when they are first used, so that importing the package is free.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rdm_cli.codes.code import CodeInfo, Codes
    from rdm_cli.engines.encoder import Encoder
    from rdm_cli.errors import RdmError
    from rdm_cli.pipeline.pipeline import Pipeline, open_pipeline
    from rdm_cli.pipeline.show import show
    from rdm_cli.runtime import set_up

__all__ = [
    "CodeInfo", "Codes", "Encoder", "Pipeline", "RdmError", "__version__", "open_pipeline", "set_up", "show",
]  # fmt: skip

_HOMES = {
    "CodeInfo": "rdm_cli.codes.code",
    "Codes": "rdm_cli.codes.code",
    "Encoder": "rdm_cli.engines.encoder",
    "Pipeline": "rdm_cli.pipeline.pipeline",
    "RdmError": "rdm_cli.errors",
    "open_pipeline": "rdm_cli.pipeline.pipeline",
    "set_up": "rdm_cli.runtime",
    "show": "rdm_cli.pipeline.show",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
