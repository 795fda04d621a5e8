"""What fits a bundle: codes that its networks made, steps that its schedule has, options that it knows."""

from __future__ import annotations

from rdm_cli.bundles.bundle import Bundle
from rdm_cli.codes.code import Codes
from rdm_cli.errors import CodeError, UsageError, setting
from rdm_cli.methods.conditions import Conditions, of_images


def stop_shift_for(bundle: Bundle, given: float | None) -> float:
    """The fraction of a sample's steps without PDAE's shift: as ``given``, or as the method has it.

    Raises UsageError where one is given and there is no shift.
    """
    usual = bundle.model.stop_shift
    if given is not None and usual is None:
        raise UsageError(f"{bundle.name}: {setting('stop_shift')}: there is no shift, this is no PDAE")
    return (usual or 0.0) if given is None else given


def check_codes(bundle: Bundle, codes: Codes) -> None:
    """Raise CodeError unless ``codes`` were made with this bundle's networks, ValueError for no Codes."""
    if not isinstance(codes, Codes):
        raise ValueError(f"codes are rdm_cli.Codes, as encode gives, and no {type(codes).__name__}")
    model = bundle.model
    for info in codes.infos:
        if info.bundle_digest != bundle.digest:
            raise CodeError(
                f"this code was made with bundle {info.bundle} ({info.bundle_digest[:12]}), "
                f"not with {bundle.name} ({bundle.digest[:12]})",
                hint=f"name that one with {setting('bundle')}, or encode the image again",
            )
        most = model.sampling.schedule.num_train_steps
        if info.steps is not None and not 1 <= info.steps <= most:
            raise CodeError(f"the code records {info.steps} steps, and there are 1 to {most}")
        if info.stop_shift and (model.stop_shift is None or not 0 <= info.stop_shift <= 1):
            raise CodeError(f"the code records a stop_shift of {info.stop_shift}, which cannot be")
    if codes.z.shape[1:] == (0,) and bundle.has_z:
        raise CodeError("this code holds no z")
    # where z depends on t, how many there are is the code's own business
    skipped = 1 + model.time_dependent
    if codes.z.shape[skipped:] != model.z_shape[skipped - 1 :] or codes.z.ndim != 1 + len(model.z_shape):
        raise CodeError(f"z has the shape {tuple(codes.z.shape[1:])}, not {model.z_shape}")
    if codes.x_T is not None and codes.x_T.shape[1:] != model.x_T_shape:
        raise CodeError(f"x_T has the shape {tuple(codes.x_T.shape[1:])}, not {model.x_T_shape}")
    if codes.other is not None and (codes.x_T is None or codes.other.shape != codes.x_T.shape):
        raise CodeError(f"the code's second state has the shape {tuple(codes.other.shape[1:])}, not x_T's")
    known = of_images(model.conditions)
    for name in codes.conditions.keys() - {"z"}:
        shape = tuple(codes.conditions[name].shape[1:])
        if name not in known or shape != known[name].shape:
            raise CodeError(f"the code holds a {name} of the shape {shape}, which does not fit")


def check_steps_of_z(bundle: Bundle, conditions: Conditions, num_steps: int) -> None:
    """Raise CodeError where z (N, S, ...) holds one for each of other steps than ``num_steps``."""
    z = conditions["z"]
    if bundle.model.time_dependent and z.shape[1] != num_steps:
        raise CodeError(
            f"the code holds z at the {z.shape[1]} steps that it was made for, and not at {num_steps}",
            hint=f"decode with {setting('steps')} {z.shape[1]}, "
            f"or encode again with {setting('steps')} {num_steps}",
        )
