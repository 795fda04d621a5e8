"""What the shell's Tab key offers: attributes, bundles, presets. No torch here: it must answer at once.

Solvers and other words of a fixed list are completed by typer itself. A function here takes the context of
the command and what is typed so far; where it offers nothing, most shells offer files.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rdm_cli.errors import RdmError
from rdm_cli.registry import DEFAULT_BUNDLE, FIRST_STAGE, PRESETS, load

USUAL_SCALE = 0.3


def bundles(ctx: Any, incomplete: str) -> list[tuple[str, str]]:
    """Names of bundles: shipped ones, own ones in the working folder, and fetched ones."""
    from rdm_cli.bundles.listing import listed_bundles

    return [(one.name, one.place) for one in listed_bundles() if one.name.startswith(incomplete)]


def bundles_and_folders(ctx: Any, incomplete: str) -> list[tuple[str, str]]:
    """Names of bundles while any begins so; else nothing, which leaves folders to the shell."""
    return bundles(ctx, incomplete) if incomplete else []


def attributes(ctx: Any, incomplete: str) -> list[str]:
    """Attributes of the bundle that the command names, or of the default one."""
    return [name for name in _attributes(ctx) if name.startswith(incomplete)]


def wanted_attributes(ctx: Any, incomplete: str) -> list[str]:
    """As :func:`attributes`, for the last of NAME=yes|no between commas."""
    before, comma, last = incomplete.rpartition(",")
    name, equals, _ = last.partition("=")
    ways = (f"{name}=yes", f"{name}=no") if equals else _attributes(ctx)
    return [f"{before}{comma}{way}" for way in ways if way.startswith(last)]


def edits(ctx: Any, incomplete: str) -> list[str]:
    """After the first input: attributes as NAME=SCALE, and files beside them."""
    if not ctx.params.get("inputs"):
        return []
    found = [f"{name}={USUAL_SCALE}" for name in _attributes(ctx) if name.startswith(incomplete)]
    return [*found, *_files(incomplete)] if found else []


def presets(ctx: Any, incomplete: str) -> list[str]:
    """Presets of the method that ``rdm train METHOD`` trains, or ``rdm train all --method METHOD``."""
    method = ctx.info_name if ctx.info_name in PRESETS else ctx.params.get("method") or "diffae"
    kinds = ("kl-", "vq-") if method == FIRST_STAGE else ()
    names = (name[3:] if name.startswith(kinds) else name for name in load(PRESETS, "method", method))
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _attributes(ctx: Any) -> Iterable[str]:
    from rdm_cli.bundles.listing import attribute_names
    from rdm_cli.bundles.places import find_bundle

    try:
        return attribute_names(find_bundle(str(ctx.params.get("bundle") or DEFAULT_BUNDLE), fetches=False))
    except RdmError:
        return []


def _files(incomplete: str) -> list[str]:
    folder, slash, name = incomplete.rpartition("/")
    try:
        names = sorted(path.name for path in Path(f"{folder}{slash}" or ".").iterdir())
    except OSError:
        return []
    return [f"{folder}{slash}{one}" for one in names if one.startswith(name) and (name or one[0] != ".")]
