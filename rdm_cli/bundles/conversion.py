"""Official checkpoints into a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rdm_cli.bundles.cards import conversion_card
from rdm_cli.bundles.places import refuse_other_than_bundle
from rdm_cli.bundles.writing import save_bundle
from rdm_cli.errors import CheckpointError, UsageError
from rdm_cli.methods.method import Converted, Method
from rdm_cli.registry import METHODS, load

_NOT_AS_EXPECTED = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip


def convert_files(
    method_name: str,
    files: Sequence[Path],
    output: Path,
    *,
    dtype: torch.dtype,
    force: bool = False,
    options: Mapping[str, Any] | None = None,
) -> str:
    """Convert ``files`` to a bundle at ``output``; returns a line about it.

    ``options`` are the method's own. Raises CheckpointError for files that cannot be read or do not fit
    together, UsageError for an option that the method does not have, and where ``output`` exists and
    ``force`` is off.
    """
    method: Method = load(METHODS, "method", method_name)
    options = dict(options or {})
    for name in options.keys() - method.convert_options:
        raise UsageError(f"--{name.replace('_', '-')} says nothing to {method_name}")
    if output.exists() and not force:
        raise UsageError(f"{output} exists", hint="name another folder, or replace it with --force")
    refuse_other_than_bundle(output)
    try:
        converted: Converted = method.convert(files, **options)
    except _NOT_AS_EXPECTED as error:
        # every name that a conversion looks up may hold anything at all
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{', '.join(map(str, files))}: not what {method.title} was published as "
            f"({type(error).__name__}: {reason})"
        ) from error
    save_bundle(
        output,
        method,
        converted.model,
        card=conversion_card(
            name=output.name,
            title=method.title,
            files=[file.name for file in files],
            summary=converted.summary,
        ),
        prior=converted.prior,
        directions=converted.directions,
        dtype=dtype,
    )
    return converted.summary
