"""Training on codes: the latent prior and attribute directions of an existing bundle."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rdm_cli.bundles.bundle import Bundle
from rdm_cli.bundles.writing import add_directions, add_domain, add_prior, refuse_read_only
from rdm_cli.codes.sets import CodeSet, read_code_set
from rdm_cli.data.labels import LabelTable, Matched, match, read_labels
from rdm_cli.data.sources.folders import find_inputs
from rdm_cli.errors import BundleError, CheckpointError, RdmError, UsageError
from rdm_cli.kernels.schedules import LINEAR
from rdm_cli.methods.concepts import find_concepts
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.domain import fit_domain
from rdm_cli.methods.presets import Preset
from rdm_cli.methods.transport import Transports, fit_transports
from rdm_cli.models.latent_mlp import LatentMLPConfig
from rdm_cli.models.residual_mlp import ResidualMLPConfig
from rdm_cli.priors.latent_ddim import LatentDDIMConfig
from rdm_cli.training.attributes import AttributeFit, check_examples, fit_attributes
from rdm_cli.training.checkpoint import FILE_NAME
from rdm_cli.training.interrupts import DeferredInterrupt
from rdm_cli.training.prior import PriorRecord, PriorSettings, PriorTraining

PriorNetwork = LatentMLPConfig | ResidualMLPConfig
SOLVER, STEPS = "dpm-solver++", 20
"""How codes are drawn from a prior that predicts v; docs/training.md compares steps and solvers."""
RUN_FOLDER = "prior-run"
"""Where a bundle keeps the checkpoint of a prior's training that is not at its end."""
SAVE_EVERY_SECONDS = 120.0
RECIPE = PriorSettings(lr=1e-3)
"""How a ResidualMLP is trained."""


def prior_network(
    bundle: Bundle, layers: int | None, hidden_width: int | None, *, with_labels: bool = False
) -> PriorNetwork:
    """The network of a bundle's prior: its preset's, or a small one, with the user's changes.

    A published preset's cannot be told attributes: ``with_labels``, one of its size that can takes its place.
    """
    bundle.require_z("a prior over z")
    preset = _matching_preset(bundle)
    base = (preset and preset.prior) or ResidualMLPConfig()
    if with_labels and isinstance(base, LatentMLPConfig):
        base = ResidualMLPConfig(hidden_width=base.hidden_width, num_layers=base.num_layers // 2)
    return replace(
        base,
        z_width=bundle.z_width,
        hidden_width=hidden_width or base.hidden_width,
        num_layers=layers or base.num_layers,
    )


def prior_settings(
    network: PriorNetwork, *, samples: int | None, batch_size: int | None, lr: float | None
) -> PriorSettings:
    """How ``network`` is trained where the user names nothing else: both kinds in minutes on a CPU."""
    base = PriorSettings() if isinstance(network, LatentMLPConfig) else RECIPE
    return replace(
        base,
        num_samples=base.num_samples if samples is None else samples,
        batch_size=base.batch_size if batch_size is None else batch_size,
        lr=base.lr if lr is None else lr,
    )


def prior_config(network: PriorNetwork, attributes: tuple[str, ...] = ()) -> LatentDDIMConfig:
    """The prior around ``network``: as published around the published one, else by a better recipe."""
    if isinstance(network, LatentMLPConfig):
        return LatentDDIMConfig(network=network)
    return LatentDDIMConfig(
        network=network, prediction="v", schedule=LINEAR, solver=SOLVER, steps=STEPS, attributes=attributes
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
    network: PriorNetwork,
    seed: int,
    weights_dtype: torch.dtype,
    on_record: Callable[[PriorRecord], None],
    labels: Path | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> int:
    """Train a latent DDIM on the codes below ``codes`` and put it into the bundle; returns their number.

    With ``labels`` it can be told the attributes of that table which have examples of both answers. ``note``
    is told what of codes and label table was passed over. What was trained is kept in the bundle's folder
    ``prior-run`` every two minutes and when the user stops it; the same training, begun again, goes on from
    there, bit for bit. Raises RdmError for too few codes, where no code
    has a row in ``labels`` and where training diverges, UsageError for a bundle that is not written to; the
    bundle then stays as it was.
    """
    refuse_read_only(bundle)
    found = _codes_of_images(codes, bundle, note)
    names, values = ((), None) if labels is None else _labels_of(found, labels, note)
    try:
        training = PriorTraining(
            found.z,
            prior_config(network, names),
            settings=settings,
            seed=seed,
            device=bundle.device,
            labels=values,
        )
    except ValueError as error:
        raise RdmError(f"{codes}: {error}", hint="encode more images") from error
    run = bundle.folder / RUN_FOLDER
    _resume(training, run, note)
    saved = time.monotonic()
    with DeferredInterrupt() as interrupt:
        for record in training.steps():
            if not math.isfinite(record.loss):
                raise RdmError(
                    f"training stops at step {record.step}: the loss is {record.loss}", hint="lower --lr"
                )
            on_record(record)
            if interrupt.asked or time.monotonic() - saved > SAVE_EVERY_SECONDS:
                run.mkdir(exist_ok=True)
                training.save(run)
                saved = time.monotonic()
            if interrupt.asked:
                note(f"stopped at step {record.step}; the same command goes on from there")
                raise KeyboardInterrupt
    add_prior(bundle, training.result().cpu(), weights_dtype)
    shutil.rmtree(run, ignore_errors=True)
    _keep_domain(bundle, found, note)
    return len(found.names)


def _resume(training: PriorTraining, run: Path, note: Callable[[str], None]) -> None:
    """Go on with the training whose checkpoint lies in the folder ``run``, if it is this one."""
    if not (run / FILE_NAME).is_file():
        return
    try:
        if training.resume(run):
            note(f"goes on after step {training.num_steps_done}")
        else:
            note(f"{run}: another training was stopped here; this one begins anew in its place")
    except CheckpointError as error:
        note(f"{error}; the training begins anew")


def _keep_domain(bundle: Bundle, found: CodeSet, note: Callable[[str], None]) -> None:
    """Store what the images of these codes look like, so that verbs can tell others from them."""
    if bundle.model.time_dependent:
        return
    domain = fit_domain(found.z)
    if domain is None:
        note(f"{len(found.names)} codes are too few to tell images that are unlike them")
    else:
        add_domain(bundle, domain)


def _labels_of(
    found: CodeSet, labels: Path, note: Callable[[str], None]
) -> tuple[tuple[str, ...], torch.Tensor]:
    """The attributes of a table that have both answers among these codes, and their values (N, K)."""
    table, matched = _matched(found.names, labels, "code")
    both = [bool((column == 0).any() and (column == 1).any()) for column in matched.values.T]
    names = tuple(name for name, has_both in zip(table.names, both, strict=True) if has_both)
    for name in table.names:
        if name not in names:
            note(f"{labels.name}: {name} left out: all codes have one answer")
    for line in (*matched.remarks("codes"), *table.remarks):
        note(f"{labels.name}: {line}")
    if not names:
        raise RdmError(f"{labels}: no attribute has codes with it and codes without it")
    return names, matched.values[:, both]


def _matched(names: Sequence[str], labels: Path, kind: str) -> tuple[LabelTable, Matched]:
    """A label table, and its values for each of ``names``; RdmError where none has a row there."""
    table = read_labels(labels)
    matched = match(table, names)
    if len(matched.unmatched) == len(names):
        raise RdmError(
            f"{labels}: none of the {len(names)} {kind}s has a row here",
            hint=f"the first {kind} is called {names[0]}, the first row {table.files[0]}",
        )
    return table, matched


def check_labels(folder: Path, labels: Path, *, seed: int) -> None:
    """Raise what training on the codes of the images in ``folder`` would raise for the table ``labels``.

    RdmError where no image has a row there, and where no attribute has enough examples.
    """
    names = [item.relative.as_posix() for item in find_inputs([folder])]
    table, matched = _matched(names, labels, "image")
    known = matched.values[~matched.values.isnan().all(dim=1)]
    try:
        check_examples(known, table.names, seed=seed)
    except RdmError as error:
        raise RdmError(f"{labels}: {error.message}", hint=error.hint) from error


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
    fitted = _fit(found, labels, held_out=held_out, seed=seed)
    fit, num_labelled, remarks = fitted.fit, fitted.num_labelled, fitted.remarks
    directions = fit.directions if along == "means" else replace(fit.directions, pattern=None)
    add_directions(bundle, directions, fitted.transports, replace_all=replace_all)
    _keep_domain(bundle, found, note)
    others = tuple(name for name in stored if name not in fit.directions.names)
    return TrainedAttributes(
        fit=fit,
        num_labelled=num_labelled,
        kept=() if replace_all else others,
        dropped=others if replace_all else (),
        remarks=remarks,
    )


@dataclass(frozen=True, kw_only=True)
class FittedAttributes:
    """``fit`` and ``transports`` of ``num_labelled`` codes; ``remarks`` say what was passed over."""

    fit: AttributeFit
    transports: Transports
    num_labelled: int
    remarks: tuple[str, ...]


def fit_bundle_attributes(
    bundle: Bundle,
    codes: Path,
    labels: Path,
    *,
    only: Sequence[str] = (),
    seed: int,
    note: Callable[[str], None] = lambda text: None,
) -> FittedAttributes:
    """Fit the attributes of the table ``labels`` to a bundle's ``codes``; the bundle stays as it is.

    ``only`` names those that are wanted, none: all. Raises UsageError for one that the table does not have,
    RdmError as :func:`train_bundle_attributes`.
    """
    bundle.require_z("attributes")
    return _fit(_codes_of_images(codes, bundle, note), labels, only=only, held_out=0.2, seed=seed)


def _fit(
    found: CodeSet, labels: Path, *, only: Sequence[str] = (), held_out: float, seed: int
) -> FittedAttributes:
    table, matched = _matched(found.names, labels, "code")
    if unknown := [name for name in only if name not in table.names]:
        raise UsageError(
            f"{labels}: no label {unknown[0]!r} in this table", hint=f"it has {', '.join(table.names)}"
        )
    names = tuple(only) or table.names
    values = matched.values[:, [table.names.index(name) for name in names]]
    remarks = (*matched.remarks("codes"), *table.remarks)
    known = ~values.isnan().all(dim=1)
    try:
        fit = fit_attributes(found.z[known], values[known], names, held_out=held_out, seed=seed)
    except RdmError as error:  # what was passed over may be the reason
        raise RdmError("; ".join([error.message, *remarks]), hint=error.hint) from error
    return FittedAttributes(
        fit=fit,
        transports=fit_transports(found.z[known].flatten(1), values[known], names),
        num_labelled=len(found.names) - len(matched.unmatched),
        remarks=remarks,
    )


def discover_concepts(
    bundle: Bundle,
    codes: Path,
    *,
    seed: int,
    advance: Callable[[float], None],
    note: Callable[[str], None] = lambda text: None,
) -> tuple[Directions, torch.Tensor]:
    """What divides the codes below ``codes``, and these codes (N, d); the bundle stays as it is.

    Raises RdmError for too few codes and where nothing divides them, UsageError for a z of each timestep.
    """
    bundle.require_one_z("directions")
    found = _codes_of_images(codes, bundle, note)
    try:
        return find_concepts(found.z, seed=seed, advance=advance), found.z
    except RdmError as error:
        raise RdmError(f"{codes}: {error.message}", hint=error.hint) from error


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
