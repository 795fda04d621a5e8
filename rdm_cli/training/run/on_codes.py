"""Training on codes: the latent prior and attribute directions of an existing bundle."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rdm_cli.bundles.bundle import Bundle
from rdm_cli.bundles.writing import add_directions, add_prior, refuse_read_only
from rdm_cli.codes.sets import CodeSet, read_code_set
from rdm_cli.data.labels import match, read_labels
from rdm_cli.errors import BundleError, RdmError
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
    """The preset of the bundle's networks, whatever first stage they stand on."""
    names = [name for name in bundle.method.components if name != "first_stage"]
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

    ``note`` is told which files were passed over. Raises RdmError for too few codes and where training
    diverges, UsageError for a bundle that is not written to; the bundle then stays as it was.
    """
    refuse_read_only(bundle)
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


@dataclass(frozen=True, kw_only=True)
class TrainedAttributes:
    """``fit`` of ``num_labelled`` codes; the attributes that the bundle ``kept`` beside them and ``dropped``.

    ``remarks`` say what of codes and label table was passed over.
    """

    fit: AttributeFit
    num_labelled: int
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    remarks: tuple[str, ...]


def train_bundle_attributes(
    bundle: Bundle,
    codes: Path,
    labels: Path,
    *,
    held_out: float,
    seed: int,
    along: str = "means",
    replace_all: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> TrainedAttributes:
    """Fit attribute directions and put them into the bundle, in place of those of the same names.

    Its other attributes stay as they are; with ``replace_all`` they are dropped. Edits follow the difference
    of the class means or, with ``along`` "classifier", its weight, as in the paper. ``note`` is told which
    files were passed over.

    Raises RdmError where no code has a row in ``labels``, and where no attribute has enough examples;
    UsageError for a bundle that is not written to; BundleError for stored attributes that cannot be read, and
    so not kept.
    """
    refuse_read_only(bundle)
    bundle.require_z("attributes")
    stored = _stored_attributes(bundle, dropping=replace_all)
    found = _codes_of_images(codes, bundle, note)
    table = read_labels(labels)
    matched = match(table, found.names)
    num_labelled = len(found.names) - len(matched.unmatched)
    if num_labelled == 0:
        raise RdmError(
            f"{labels}: none of the {len(found.names)} codes has a row here",
            hint=f"the first code is called {found.names[0]}, the first row {table.files[0]}",
        )
    remarks = (*matched.remarks("codes"), *table.remarks)
    known = ~matched.values.isnan().all(dim=1)
    try:
        fit = fit_attributes(found.z[known], matched.values[known], table.names, held_out=held_out, seed=seed)
    except RdmError as error:  # what was passed over may be the reason
        raise RdmError("; ".join([error.message, *remarks]), hint=error.hint) from error
    directions = fit.directions if along == "means" else replace(fit.directions, pattern=None)
    add_directions(bundle, directions, replace_all=replace_all)
    others = tuple(name for name in stored if name not in fit.names)
    return TrainedAttributes(
        fit=fit,
        num_labelled=num_labelled,
        kept=() if replace_all else others,
        dropped=others if replace_all else (),
        remarks=remarks,
    )


def _stored_attributes(bundle: Bundle, *, dropping: bool) -> tuple[str, ...]:
    """The names that a bundle stores; BundleError where they cannot be read, and are not to be dropped."""
    if "attributes" not in bundle.parts:
        return ()
    try:
        return bundle.directions.names
    except BundleError as error:
        if dropping:
            return ()
        raise BundleError(error.message, hint="--replace drops what is stored") from error
