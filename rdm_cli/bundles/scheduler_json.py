"""A sampling spec as diffusers' scheduler_config.json, and back.

Everything that diffusers' DDIMScheduler has a word for is written in its words; what it has none for
(Diff-AE's choice of timesteps, the default number of steps) goes under ``_rdm``, which it ignores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from rdm_cli.bundles.config_json import from_json, json_file, to_json
from rdm_cli.data.io.json_text import parse_object
from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.schedules import ScheduleConfig, Spacing
from rdm_cli.kernels.spec import Sampling, SamplingSpec, Variance
from rdm_cli.methods.scheduler_words import BETA_SCHEDULES, PREDICTION_TYPES
from rdm_cli.registry import INVERSIONS, SOLVERS

_BETA_WORDS = {kind: word for word, kind in BETA_SCHEDULES.items()}
_PREDICTION_WORDS = {kind: word for word, kind in PREDICTION_TYPES.items()}


def scheduler_json(spec: SamplingSpec, prediction: Prediction) -> dict[str, Any]:
    """``spec`` in diffusers' words."""
    to_the_ends = spec.spacing != "linspace"
    variance = {} if spec.variance == "posterior" else {"variance": spec.variance}
    return {
        "_class_name": "DDIMScheduler",
        "_rdm": {"spacing": spec.spacing, "steps": spec.steps} | variance | _samplings(spec),
        "num_train_timesteps": spec.schedule.num_train_steps,
        "beta_start": spec.schedule.beta_start,
        "beta_end": spec.schedule.beta_end,
        "beta_schedule": _BETA_WORDS[spec.schedule.beta_kind],
        "clip_sample": spec.clip_x_0,
        "clip_sample_range": 1.0,
        "prediction_type": _PREDICTION_WORDS[prediction],
        "set_alpha_to_one": to_the_ends,
        "steps_offset": 0,
        "timestep_spacing": "leading" if spec.spacing == "stride" else "linspace",
    }


_SAMPLINGS = ("sampler", "inverter")


def _samplings(spec: SamplingSpec) -> dict[str, Any]:
    """Their entries; none for a usual one, so that a scheduler without one says no more than it did."""
    usual = to_json(Sampling())
    found = {name: to_json(getattr(spec, name)) for name in _SAMPLINGS}
    said = {name: {k: v for k, v in one.items() if v != usual[k]} for name, one in found.items()}
    return {name: one for name, one in said.items() if one}


def without_samplings(stored: bytes) -> bytes:
    """A scheduler's file less its usual ways up and down: what codes depend on.

    A code records how it was made, so another usual way makes no other bundle. A file that names no such way
    is left as it is; ValueError where it is no JSON object.
    """
    values = parse_object(stored, finite=False)  # as it was read, where diffusers wrote it
    own = values.get("_rdm")
    if not isinstance(own, dict) or not [own.pop(name) for name in _SAMPLINGS if name in own]:
        return stored
    return json_file(values).encode()


def read_scheduler(values: Mapping[str, Any]) -> tuple[SamplingSpec, Prediction]:
    """The spec and the prediction that :func:`scheduler_json` wrote; ValueError for others."""
    try:
        own = values["_rdm"]
        if values["beta_schedule"] not in BETA_SCHEDULES:
            raise ValueError(f"beta_schedule {values['beta_schedule']!r} is not supported")
        if own["spacing"] not in get_args(Spacing):
            raise ValueError(f"spacing {own['spacing']!r} is not supported")
        if own.get("variance", "posterior") not in get_args(Variance):
            raise ValueError(f"variance {own['variance']!r} is not supported")
        spec = SamplingSpec(
            schedule=ScheduleConfig(
                beta_kind=BETA_SCHEDULES[values["beta_schedule"]],
                beta_start=float(values["beta_start"]),
                beta_end=float(values["beta_end"]),
                num_train_steps=int(values["num_train_timesteps"]),
            ),
            spacing=own["spacing"],
            clip_x_0=bool(values["clip_sample"]),
            steps=int(own["steps"]),
            variance=own.get("variance", "posterior"),
            **{name: from_json(Sampling, own.get(name, {})) for name in _SAMPLINGS},
        )
        for one in (spec.sampler, spec.inverter):
            if one.solver not in SOLVERS:
                raise ValueError(f"solver {one.solver!r} is not supported")
        if spec.inverter.solver not in INVERSIONS:
            raise ValueError(f"inverter {spec.inverter.solver!r} leads down alone")
        if spec.inverter.iterations is not None and spec.inverter.iterations < 1:
            raise ValueError(f"{spec.inverter.iterations} iterations cannot be taken")
        for steps in (spec.steps, spec.sampler.steps, spec.inverter.steps):
            if steps is not None and not 1 <= steps <= spec.schedule.num_train_steps:
                raise ValueError(f"{steps} steps of {spec.schedule.num_train_steps} cannot be taken")
        return spec, PREDICTION_TYPES[values["prediction_type"]]
    except (ArithmeticError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the entry {error} is missing or of the wrong kind") from error
