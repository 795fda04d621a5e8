"""What can be named on the command line, as "module:attribute" strings: looking needs no torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from rdm_cli.errors import UsageError

METHODS = {
    "pdae": "rdm_cli.methods.pdae.method:METHOD",
    "dpm": "rdm_cli.methods.dpm.method:METHOD",
    "lrdm": "rdm_cli.methods.lrdm.method:METHOD",
    "diffae": "rdm_cli.methods.diffae.method:METHOD",
}
FIRST_STAGE = "first-stage"
TRAINABLE = METHODS | {FIRST_STAGE: "rdm_cli.methods.first_stage.method:METHOD"}
PRESETS = {name: place.replace(".method:METHOD", ".presets:PRESETS") for name, place in TRAINABLE.items()}
PRIORS = {
    "latent-ddim": "rdm_cli.priors.latent_ddim:LatentDDIM",
    "gaussian": "rdm_cli.priors.gaussian:GaussianPrior",
}
SOLVERS = {
    "ddim": "rdm_cli.kernels.solvers:DDIM",
    "ancestral": "rdm_cli.kernels.solvers:ANCESTRAL",
    "dpm-solver++": "rdm_cli.kernels.solvers:DPM_SOLVER",
    "unipc": "rdm_cli.kernels.solvers:UNIPC",
    "heun": "rdm_cli.kernels.solvers:HEUN",
    "fixed-point": "rdm_cli.kernels.solvers:FIXED_POINT",
    "exact": "rdm_cli.kernels.solvers:EXACT",
}
INVERSIONS = ("ddim", "fixed-point", "exact")
"""The solvers that lead up, too, from the published one to the most exact."""
DEFAULT_BUNDLE = "avatars64-diffae"


def nearest(name: str, known: Iterable[str]) -> str:
    """The list of known names, with a guess where one is close to ``name``: for an error's hint."""
    known = list(known)
    guess = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(known)
    return f"did you mean {guess[0]!r}? Known: {listed}" if guess else f"known: {listed}"


def load(table: dict[str, str], kind: str, name: str) -> Any:
    """Import what ``name`` stands for; raises UsageError listing the known names."""
    if name not in table:
        raise UsageError(f"there is no {kind} {name!r}", hint=nearest(name, table))
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)
