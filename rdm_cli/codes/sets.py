"""Many codes as one tensor: what a prior and attributes are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rdm_cli.codes.code import read_z
from rdm_cli.data.sources.folders import CODE_SUFFIXES, MADE_BY_RDM, PassedOver, find_inputs
from rdm_cli.errors import CodeError, UsageError


@dataclass(frozen=True, kw_only=True)
class CodeSet:
    """``z`` (N, d), the codes' names (paths below the folder, without suffix), and what was passed over."""

    z: Tensor
    names: tuple[str, ...]
    passed_over: PassedOver


def read_code_set(folder: Path, *, bundle_name: str, bundle_digest: str) -> CodeSet:
    """Read the z of every code below ``folder`` but those of edits; x_T is not touched.

    Raises CodeError for a code of another bundle or a damaged one, UsageError where there are no codes.
    """
    passed_over = PassedOver()
    found: list[Tensor] = []
    names: list[str] = []
    for item in find_inputs([folder], suffixes=CODE_SUFFIXES):
        info, z = read_z(item.source)
        if info.bundle_digest != bundle_digest:
            raise CodeError(
                f"{item.source}: made with bundle {info.bundle} ({info.bundle_digest[:12]}), not with "
                f"{bundle_name} ({bundle_digest[:12]})",
                hint="encode the images again with this bundle",
            )
        if info.edits:
            passed_over[MADE_BY_RDM] += 1
            continue
        z = z.flatten()
        if found and z.shape != found[0].shape:
            raise CodeError(f"{item.source}: z has {len(z)} values, and those before it {len(found[0])}")
        found.append(z)
        names.append(item.relative.with_suffix("").as_posix())
    if not found:
        raise UsageError(f"{folder}/: no codes of images found ({passed_over})", hint="rdm encode makes them")
    return CodeSet(z=torch.stack(found), names=tuple(names), passed_over=passed_over)
