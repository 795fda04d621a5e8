"""What evaluation needs and rdm does without: packages of the extra ``evaluate``."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import ModuleType

from rdm_cli.data.io import optional
from rdm_cli.errors import UsageError

INSTALL = "pip install 'rdm-cli[evaluate]'"


def optional_module(name: str, *, package: str) -> ModuleType:
    """The module ``name`` of ``package``, imported; raises UsageError where it is absent."""
    return optional.optional_module(name, package=package, purpose="this evaluation", extra="evaluate")


def file_of_package(package: str, inside: str) -> Path:
    """A file that ``package`` installs, ``inside`` being its path from site-packages; nothing is imported.

    Raises UsageError, with the remedy, where the package or the file is absent.
    """
    try:
        found = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise UsageError(f"this evaluation needs {package}", hint=INSTALL) from None
    path = Path(str(found.locate_file(inside)))
    if not path.is_file():
        raise UsageError(f"{path}: missing from {package}", hint=f"{INSTALL} --force-reinstall")
    return path
