"""Training on codes: the latent prior and attribute directions of an existing bundle."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from rdm_cli.core.bundle_saving import add_directions, add_prior
from rdm_cli.core.bundles import Bundle
from rdm_cli.core.code_sets import CodeSet, read_code_set
from rdm_cli.data.labels import match, read_labels
from rdm_cli.errors import RdmError
from rdm_cli.methods.presets import Preset
from rdm_cli.models.latent_mlp import LatentMLPConfig
from rdm_cli.priors.latent_ddim import LatentDDIMConfig
from rdm_cli.training.attributes import AttributeFit, fit_attributes
from rdm_cli.training.prior import PriorRecord, PriorSettings, PriorTraining


def prior_network(bundle: Bundle, layers: int | None, hidden_width: int | None) -> LatentMLPConfig:
    """The network of a bundle's prior: its preset's, or a small one, with the user's changes."""
    bundle.require_z("a prior over z")
    width = bundle.z_width
    preset = _matching_preset(bundle)
    base = (preset and preset.prior) or LatentMLPConfig(z_width=width, hidden_width=512, num_layers=6)
    return LatentMLPConfig(
        z_width=width,
        hidden_width=hidden_width or base.hidden_width,
        num_layers=layers or base.num_layers,
        time_channels=base.time_channels,
    )


def _matching_preset(bundle: Bundle) -> Preset | None:
    names = list(bundle.method.components)
    ours = [bundle.model.component_config(name) for name in names]
    for preset in bundle.method.presets.values():
        if [getattr(preset.config, name) for name in names] == ours:
            return preset
    return None


def _codes_of_images(codes: Path, bundle: Bundle, note: Callable[[str], None]) -> CodeSet:
    found = read_code_set(codes, bundle_name=bundle.name, bundle_digest=bundle.digest)
    if found.passed_over:
        note(f"{codes}: {found.passed_over}")
    return found


def train_bundle_prior(
    bundle: Bundle,
    codes: Path,
    *,
    settings: PriorSettings,
    network: LatentMLPConfig,
    seed: int,
    weights_dtype: torch.dtype,
    on_record: Callable[[PriorRecord], None],
    note: Callable[[str], None] = lambda text: None,
) -> int:
    """Train a latent DDIM on the codes below ``codes`` and put it into the bundle; returns their number.

    ``note`` is told which files were passed over.

    Raises RdmError for too few codes and where training diverges; the bundle then stays as it was.
    """
    found = _codes_of_images(codes, bundle, note)
    try:
        training = PriorTraining(
            found.z, LatentDDIMConfig(network=network), settings=settings, seed=seed, device=bundle.device
        )
    except ValueError as error:
        raise RdmError(f"{codes}: {error}", hint="encode more images") from error
    for record in training.steps():
        if not math.isfinite(record.loss):
            raise RdmError(
                f"training stops at step {record.step}: the loss is {record.loss}", hint="lower --lr"
            )
        on_record(record)
    add_prior(bundle, training.result().cpu(), weights_dtype)
    return len(found.names)


def train_bundle_attributes(
    bundle: Bundle,
    codes: Path,
    labels: Path,
    *,
    held_out: float,
    seed: int,
    along: str = "means",
    note: Callable[[str], None] = lambda text: None,
) -> tuple[AttributeFit, int, tuple[str, ...]]:
    """Fit attribute directions and put them into the bundle.

    Edits follow the difference of the class means or, with ``along`` "classifier", its weight, as in the
    paper. ``note`` is told which files were passed over.

    Returns the fit, the number of labelled codes, and the codes that have no row in ``labels``. Raises
    RdmError where no code has one, and where no attribute has enough examples.
    """
    bundle.require_z("attributes")
    found = _codes_of_images(codes, bundle, note)
    table = read_labels(labels)
    matched = match(table, found.names)
    num_labelled = len(found.names) - len(matched.unmatched)
    if num_labelled == 0:
        raise RdmError(
            f"{labels}: none of the {len(found.names)} codes has a row here",
            hint=f"the first code is called {found.names[0]}, the first row {table.files[0]}",
        )
    known = ~matched.values.isnan().all(dim=1)
    fit = fit_attributes(found.z[known], matched.values[known], table.names, held_out=held_out, seed=seed)
    directions = fit.directions if along == "means" else replace(fit.directions, pattern=None)
    add_directions(bundle, directions)
    return fit, num_labelled, matched.unmatched
