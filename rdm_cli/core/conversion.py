"""Official checkpoints into a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from rdm_cli.core.bundle_folders import refuse_other_than_bundle
from rdm_cli.core.bundles import save_bundle
from rdm_cli.core.cards import conversion_card
from rdm_cli.errors import UsageError
from rdm_cli.methods.method import Converted, Method
from rdm_cli.registry import METHODS, load


def convert_files(
    method_name: str, files: Sequence[Path], output: Path, *, dtype: torch.dtype, force: bool = False
) -> str:
    """Convert ``files`` to a bundle at ``output``; returns a line about it.

    Raises CheckpointError for files that cannot be read or do not fit together, UsageError where
    ``output`` exists and ``force`` is off.
    """
    method: Method = load(METHODS, "method", method_name)
    if output.exists() and not force:
        raise UsageError(f"{output} exists", hint="name another folder, or replace it with --force")
    refuse_other_than_bundle(output)
    converted: Converted = method.convert(files)
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
