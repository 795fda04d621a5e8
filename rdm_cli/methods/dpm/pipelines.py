"""Reads any diffusers pipeline of a ``UNet2DModel`` and a scheduler, as DDPMPipeline saves them.

The two lie in ``unet/`` and ``scheduler/`` or, in old repositories, side by side. diffusers opens the
network; of the scheduler, whichever class it is, the noise schedule and what the network predicts count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdm_cli.data.json_text import read_object
from rdm_cli.errors import CheckpointError
from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.schedules import ScheduleConfig
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.dpm.model import DPM, DPMConfig
from rdm_cli.methods.scheduler_words import BETA_SCHEDULES, PREDICTION_TYPES
from rdm_cli.models.unet2d_config import CLASS_LABEL, UNet2DConfig

_STEM = "diffusion_pytorch_model"
_OTHER_SAMPLERS = {"thresholding": False, "rescale_betas_zero_snr": False, "clip_sample_range": 1.0}


@dataclass(frozen=True, kw_only=True)
class PipelineFiles:
    """Where a pipeline's network and scheduler are described; the weights lie beside ``config``."""

    folder: Path
    config: Path
    scheduler: Path

    @property
    def weights(self) -> Path:
        """The weights, as safetensors."""
        return self.config.with_name(f"{_STEM}.safetensors")

    @property
    def pickled_weights(self) -> Path:
        """The weights as they were stored before safetensors."""
        return self.config.with_name(f"{_STEM}.bin")


def find_pipeline(folder: Path) -> PipelineFiles | None:
    """The files of a ``UNet2DModel`` pipeline in ``folder``; None where there is none."""
    for unet, scheduler in ((folder / "unet", folder / "scheduler"), (folder, folder)):
        config = unet / "config.json"
        try:
            found = config.is_file() and _read_json(config).get("_class_name")
        except CheckpointError:
            continue
        if found in UNet2DConfig.CLASSES:
            return PipelineFiles(folder=folder, config=config, scheduler=scheduler / "scheduler_config.json")
    return None


def read_pipeline(files: PipelineFiles, *, class_label: int | None = None, pickled: bool = False) -> DPM:
    """Open a pipeline as a plain DPM.

    ``class_label`` is the class that a class-conditional network is asked about; ``pickled`` reads weights
    that are no safetensors too, as tensors alone. Raises CheckpointError.
    """
    from rdm_cli.models.unet2d import PretrainedUNet2D

    values = _read_json(files.config)
    if class_label is not None:
        values[CLASS_LABEL] = class_label
    sampling, prediction = _read_scheduler(files.scheduler)
    try:
        unet = UNet2DConfig(class_name=UNet2DConfig.CLASSES[0], values=values)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{files.config}: {error}") from error
    safe = files.weights.is_file()
    if not safe and not files.pickled_weights.is_file():
        raise CheckpointError(f"{files.weights}: the weights are missing")
    if not safe and not pickled:
        raise CheckpointError(
            f"{files.pickled_weights}: these weights are pickled",
            hint=f"rdm bundles convert dpm {files.folder} -o BUNDLE reads them, as tensors alone",
        )
    try:
        reader: Any = PretrainedUNet2D
        opened = reader.from_pretrained(str(files.config.parent), use_safetensors=safe, local_files_only=True)
        model = DPM(DPMConfig(unet=unet, prediction=prediction, sampling=sampling))
        model.unet.load_state_dict(opened.state_dict())
    except Exception as error:  # diffusers raises many kinds for configs and weights that do not fit
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{files.config.parent}: not a network that diffusers opens ({reason})"
        ) from error
    return model


def _read_scheduler(path: Path) -> tuple[SamplingSpec, Prediction]:
    values = _read_json(path)
    try:
        return scheduler_spec(values)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def scheduler_spec(values: Mapping[str, Any]) -> tuple[SamplingSpec, Prediction]:
    """The noise schedule of any diffusers scheduler that has betas, and what its network predicts.

    Raises ValueError, naming the entry, where rdm has no word for it.
    """
    kind = values.get("beta_schedule")
    if kind not in BETA_SCHEDULES or values.get("trained_betas") is not None:
        what = "trained_betas" if values.get("trained_betas") is not None else f"beta_schedule {kind!r}"
        raise ValueError(f"{what}: rdm reads the beta_schedules {', '.join(BETA_SCHEDULES)}")
    predicts = values.get("prediction_type", "epsilon")
    if predicts not in PREDICTION_TYPES:
        raise ValueError(f"prediction_type {predicts!r}: rdm reads {', '.join(PREDICTION_TYPES)}")
    clips = bool(values.get("clip_sample", True))
    for name, usual in _OTHER_SAMPLERS.items():
        if values.get(name, usual) != usual and (clips or name != "clip_sample_range"):
            raise ValueError(f"{name} {values[name]!r}: rdm samples without")
    schedule = ScheduleConfig(
        beta_kind=BETA_SCHEDULES[kind],
        beta_start=float(values.get("beta_start", 1e-4)),
        beta_end=float(values.get("beta_end", 0.02)),
        num_train_steps=int(values.get("num_train_timesteps", 1000)),
    )
    return SamplingSpec(schedule=schedule, spacing="linspace", clip_x_0=clips), PREDICTION_TYPES[predicts]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: this part of the pipeline is missing") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from error
