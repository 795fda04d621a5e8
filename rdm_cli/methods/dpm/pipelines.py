"""Reads any diffusers pipeline of a ``UNet2DModel`` and a scheduler: what DDPMPipeline and LDMPipeline save.

They lie in ``unet/`` and ``scheduler/``, with the first stage of a latent model in ``vqvae/`` or ``vae/``; in
old repositories, network and scheduler lie side by side. diffusers opens the networks; of the scheduler,
whichever class it is, the noise schedule, what the network predicts and whether x_0 is clamped count.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rdm_cli.data.io.json_text import read_object
from rdm_cli.errors import CheckpointError
from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.schedules import ScheduleConfig
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.diffusers_networks import StoredWeights, find_weights, open_network
from rdm_cli.methods.dpm.model import DPM, DPMConfig
from rdm_cli.methods.scheduler_words import BETA_SCHEDULES, PREDICTION_TYPES
from rdm_cli.models.first_stage import FirstStageConfig
from rdm_cli.models.unet2d_config import CLASS_LABEL, UNet2DConfig

INDEX = "model_index.json"
FIRST_STAGES = ("vqvae", "vae")
_OTHER_SAMPLERS = {
    "thresholding": False, "rescale_betas_zero_snr": False, "clip_sample_range": 1.0, "snr_shift_scale": 1.0,
}  # fmt: skip
_BETAS = ("beta_start", "beta_end")
_OWN_TIMESTEPS = ("timestep_spacing", "steps_offset", "set_alpha_to_one")


@dataclass(frozen=True, kw_only=True)
class PipelineFiles:
    """Where a pipeline's networks and scheduler are described; the weights of each lie beside its config.

    ``first_stage`` None: it works on images as they are.
    """

    folder: Path
    config: Path
    scheduler: Path
    first_stage: Path | None = None

    @cached_property
    def weights(self) -> StoredWeights:
        """The UNet's weights; raises CheckpointError where there are none."""
        return find_weights(self.config.parent, pickled=True)

    @cached_property
    def first_stage_weights(self) -> StoredWeights | None:
        """The first stage's weights."""
        return None if self.first_stage is None else find_weights(self.first_stage.parent, pickled=True)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What of the pipeline is not followed, a line each; raises CheckpointError for a damaged one."""
        values = _read_json(self.scheduler, finite=False)
        own = ", ".join(f"{name} {values[name]!r:.40}" for name in _OWN_TIMESTEPS if name in values)
        told = [f"the scheduler's timesteps ({own}) are not used: rdm has its own"] if own else []
        stored = [w for w in (self.weights, self.first_stage_weights) if w is not None and w.variant]
        return (*told, *(f"{w.files[0].parent.name}: the weights are those of {w.variant}" for w in stored))


def find_pipeline(folder: Path) -> PipelineFiles | None:
    """The files of a ``UNet2DModel`` pipeline in ``folder``; None where there is none.

    Raises CheckpointError for an index that cannot be read.
    """
    for unet, scheduler in ((folder / "unet", folder / "scheduler"), (folder, folder)):
        config = unet / "config.json"
        if _class_of(config) in UNet2DConfig.CLASSES:
            return PipelineFiles(
                folder=folder,
                config=config,
                scheduler=scheduler / "scheduler_config.json",
                first_stage=_first_stage(folder),
            )
    return None


def _first_stage(folder: Path) -> Path | None:
    """The config of the pipeline's first stage: one that its index names or, without an index, one there."""
    index = folder / INDEX
    named = set(_parts(_read_json(index)) if index.is_file() else FIRST_STAGES)
    paths = (folder / name / "config.json" for name in FIRST_STAGES if name in named)
    return next((path for path in paths if path.is_file()), None)


def _parts(index: Mapping[str, Any]) -> dict[str, str]:
    """The parts that a pipeline's index names, with their classes; those that it has not are null."""
    lists = {n: v for n, v in index.items() if isinstance(v, list) and any(v) and not n.startswith("_")}
    return {name: str(value[-1]) for name, value in lists.items()}


def _class_of(config: Path) -> Any:
    try:
        return _read_json(config).get("_class_name")
    except CheckpointError:
        return None


def refuse_other_parts(files: PipelineFiles) -> None:
    """Raise CheckpointError where the pipeline has parts that rdm would leave out, and so misread it."""
    path = files.folder / INDEX
    if not path.is_file():
        return
    index = _read_json(path)
    parts = _parts(index)
    known = {"unet", "scheduler", *FIRST_STAGES}
    other = ", ".join(f"{name} ({kind})" for name, kind in parts.items() if name not in known)
    if other:
        raise CheckpointError(
            f"{path}: a diffusers {index.get('_class_name', 'pipeline')}, whose {other:.200} rdm cannot use",
            hint="rdm opens pipelines of a UNet2DModel and a scheduler, with a vqvae or vae or without",
        )
    for name in parts.keys() & set(FIRST_STAGES):
        config = files.folder / name / "config.json"
        if files.first_stage != config:
            raise CheckpointError(f"{config}: this part of the pipeline is missing")


def read_pipeline(files: PipelineFiles, *, class_label: int | None = None, pickled: bool = False) -> DPM:
    """Open a pipeline as a plain DPM, of images or of the latents of its first stage.

    ``class_label`` is the class that a class-conditional network is asked about; ``pickled`` reads weights
    that are no safetensors too, as tensors alone. Raises CheckpointError.
    """
    from rdm_cli.models.unet2d import PretrainedUNet2D

    refuse_other_parts(files)
    values = _read_json(files.config)
    if class_label is not None:
        values[CLASS_LABEL] = class_label
    sampling, prediction = _read_scheduler(files.scheduler)
    try:
        unet = UNet2DConfig(class_name=UNet2DConfig.CLASSES[0], values=values)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{files.config}: {error}") from error
    first_stage = None if files.first_stage is None else read_first_stage_config(files.first_stage)
    try:
        config = DPMConfig(unet=unet, first_stage=first_stage, prediction=prediction, sampling=sampling)
    except ValueError as error:
        raise CheckpointError(f"{files.folder}: {error}") from error
    for weights in (files.weights, files.first_stage_weights):
        if weights is not None and not weights.is_safe and not pickled:
            raise CheckpointError(
                f"{weights.files[0]}: these weights are pickled",
                hint=f"rdm bundles convert dpm {files.folder} -o BUNDLE reads them, as tensors alone",
            )
    opened = open_network(PretrainedUNet2D, files.config.parent, files.weights)
    stage = None
    if files.first_stage is not None and files.first_stage_weights is not None:
        stage = open_first_stage_network(files.first_stage, files.first_stage_weights)
    try:
        model = DPM(config)
        model.unet.load_state_dict(opened.state_dict())
        if stage is not None:
            model.first_stage.load_state_dict(stage.state_dict())
    except Exception as error:  # diffusers raises many kinds for configs and weights that do not fit
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{files.config.parent}: not a network that diffusers opens ({reason})"
        ) from error
    return model


def _read_scheduler(path: Path) -> tuple[SamplingSpec, Prediction]:
    values = _read_json(
        path, finite=False
    )  # diffusers itself writes -Infinity for DPMSolverMultistepScheduler
    try:
        return scheduler_spec(values)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def scheduler_spec(values: Mapping[str, Any]) -> tuple[SamplingSpec, Prediction]:
    """The noise schedule of any diffusers scheduler that has betas, and what its network predicts.

    What ``values`` leave out is as the scheduler's own class has it: not every class clamps x_0. Raises
    ValueError, naming the entry, where rdm has no word for it.
    """
    values = _defaults(values.get("_class_name")) | dict(values)
    kind = values.get("beta_schedule")
    if kind not in BETA_SCHEDULES or values.get("trained_betas") is not None:
        what = "trained_betas" if values.get("trained_betas") is not None else f"beta_schedule {kind!r}"
        raise ValueError(f"{what}: rdm reads the beta_schedules {', '.join(BETA_SCHEDULES)}")
    predicts = values.get("prediction_type", "epsilon")
    if values.get("predict_epsilon") is False:  # what diffusers called it before it had v
        predicts = "sample"
    if predicts not in PREDICTION_TYPES:
        raise ValueError(f"prediction_type {predicts!r}: rdm reads {', '.join(PREDICTION_TYPES)}")
    clips = bool(values.get("clip_sample", False))
    for name, usual in _OTHER_SAMPLERS.items():
        if values.get(name, usual) != usual and (clips or name != "clip_sample_range"):
            raise ValueError(f"{name} {values[name]!r}: rdm samples without")
    betas = {} if BETA_SCHEDULES[kind] == "cosine" else {n: float(_entry(values, n)) for n in _BETAS}
    num_train_steps = int(_entry(values, "num_train_timesteps"))
    schedule = ScheduleConfig(beta_kind=BETA_SCHEDULES[kind], num_train_steps=num_train_steps, **betas)
    return SamplingSpec(schedule=schedule, spacing="linspace", clip_x_0=clips), PREDICTION_TYPES[predicts]


def _entry(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise ValueError(f"{name} is missing")
    return values[name]


def _defaults(class_name: Any) -> dict[str, Any]:
    """What a scheduler's class takes for entries that its file lacks; {} for a class that diffusers has not.

    A file that names no class is of the time when there was DDPMScheduler alone.
    """
    import diffusers

    name = "DDPMScheduler" if class_name is None else class_name
    found = getattr(diffusers, name, None) if isinstance(name, str) and name.endswith("Scheduler") else None
    if not inspect.isclass(found):
        return {}
    parameters = inspect.signature(found.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def read_first_stage_config(path: Path) -> FirstStageConfig:
    """A first stage's ``config.json``; raises CheckpointError."""
    try:
        config = FirstStageConfig.from_values(_read_json(path))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    assert isinstance(config, FirstStageConfig)
    return config


def open_first_stage_network(config: Path, weights: StoredWeights) -> Any:
    """The autoencoder that ``config`` describes, by the diffusers class that it names; CheckpointError."""
    import diffusers

    class_name = read_first_stage_config(config).class_name
    return open_network(getattr(diffusers, class_name), config.parent, weights)


def _read_json(path: Path, *, finite: bool = True) -> dict[str, Any]:
    try:
        return read_object(path, finite=finite)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: this part of the pipeline is missing") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from error
