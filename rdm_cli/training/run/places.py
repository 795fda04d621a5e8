"""Where a training run may write: refused before hours of work, not after."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rdm_cli.bundles.places import INDEX
from rdm_cli.errors import UsageError
from rdm_cli.training.checkpoint import FILE_NAME


def refuse_places(
    folder: Path, bundle: Path, run_folder: Path, *, resume: bool, sources: Sequence[str | None]
) -> None:
    """Refuse before hours of training what would fail, or destroy something, after them.

    ``sources`` are the bundles that training starts from or around. A bundle that is there is replaced where
    a run is resumed, for it may be that run's own.
    """
    if not resume and (run_folder / FILE_NAME).exists():
        raise UsageError(
            f"{run_folder}: a run lies here already",
            hint="continue it with --resume, or name another --run",
        )
    if bundle.exists() and not _is_empty_folder(bundle):
        if not (bundle / INDEX).is_file():
            raise UsageError(f"{bundle}: something lies here that is no bundle", hint="name another --output")
        if any(source is not None and _is_the_same(Path(source), bundle) for source in sources):
            raise UsageError(f"{bundle}: training starts from this bundle", hint="name another --output")
        if not resume:
            raise UsageError(
                f"{bundle}: a bundle lies here already", hint="name another --output, or remove it"
            )
    if run_folder.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f"{run_folder}: the run's sheets would lie among the images of {folder}",
            hint="name another --run",
        )
    for place in (bundle.absolute().parent, run_folder.absolute()):
        nearest_there = next(p for p in (place, *place.parents) if os.path.lexists(p))
        if not nearest_there.is_dir() or not os.access(nearest_there, os.W_OK | os.X_OK):
            raise UsageError(f"{nearest_there}: nothing can be written here")


def _is_the_same(source: Path, bundle: Path) -> bool:
    """Whether ``source`` is ``bundle`` or a part of it, as its first stage is."""
    return source.exists() and source.resolve().is_relative_to(bundle.resolve())


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
