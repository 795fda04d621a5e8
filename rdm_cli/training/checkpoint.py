"""Checkpoints of a training run: one safetensors file, replaced whole."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rdm_cli.data.io.json_text import parse_object
from rdm_cli.data.io.tensor_files import read_metadata, read_tensors, write_tensors
from rdm_cli.errors import CheckpointError
from rdm_cli.training.ema import WeightAverage

FILE_NAME = "checkpoint.safetensors"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come: optimiser steps, images seen and seconds spent training."""

    step: int = 0
    num_images: int = 0
    elapsed_seconds: float = 0.0


def save_checkpoint(
    folder: Path,
    *,
    model: nn.Module,
    average: WeightAverage,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    settings: dict[str, Any],
    scaler: torch.amp.GradScaler | None = None,
) -> Path:
    """Write everything that the rest of the run depends on; kill -9 leaves the old file or the new.

    ``scaler`` is that of fp16, by which the next step's loss is multiplied; None: the run has none.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.averages.items()}
    parameters = _trained(model)
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{parameters[index]}:{key}"] = torch.as_tensor(value)
    header = {
        "progress": asdict(progress),
        "num_average_updates": average.num_updates,
        "settings": settings,
    }
    if scaler is not None:
        header["scaler"] = scaler.state_dict()
    path = folder / FILE_NAME
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_tensors(path, contiguous, {"rdm": json.dumps(header, sort_keys=True)}, durable=True)
    return path


def _trained(model: nn.Module) -> list[str]:
    """The parameters that an optimiser numbers, in its order; a file names them, so that none is mistaken."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint read back; :meth:`restore` puts it into a run's objects.

    ``scaler`` is the state of fp16's ``GradScaler``; None: the run has none, or an older rdm did not keep it.
    """

    tensors: dict[str, Tensor]
    progress: Progress
    num_average_updates: int
    settings: dict[str, Any]
    scaler: dict[str, float] | None = None

    def _part(self, prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): value
            for name, value in self.tensors.items()
            if name.startswith(prefix)
        }

    def restore(
        self,
        *,
        model: nn.Module,
        average: WeightAverage,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        """Load weights, their average, and the states of the optimiser and of fp16's ``scaler``, if any.

        Raises CheckpointError for another network's.
        """
        state: dict[int, dict[str, Tensor]] = {}
        groups = optimizer.state_dict()["param_groups"]
        try:
            indices = {name: index for index, name in enumerate(_trained(model))}
            for name, value in self._part("optimizer.").items():
                parameter, _, key = name.partition(":")
                state.setdefault(indices[parameter], {})[key] = value
            model.load_state_dict(self._part("model."))
            average.load(self._part("average.").items(), self.num_average_updates)
            optimizer.load_state_dict({"state": state, "param_groups": groups})
            if scaler is not None and self.scaler is not None:
                scaler.load_state_dict(self.scaler)
        except (RuntimeError, KeyError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise CheckpointError(f"the checkpoint is of another network: {reason}") from error


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read ``folder``'s checkpoint; raises CheckpointError where there is none or it is damaged."""
    return _read(folder, tensors=True)


def load_header(folder: Path) -> Checkpoint:
    """``folder``'s checkpoint without its tensors; errors as above."""
    return _read(folder, tensors=False)


def load_settings(folder: Path) -> dict[str, Any]:
    """The ``settings`` of ``folder``'s checkpoint; errors as above."""
    return load_header(folder).settings


def _read(folder: Path, *, tensors: bool) -> Checkpoint:
    path = folder / FILE_NAME
    if not path.exists():
        raise CheckpointError(f"{folder}: no checkpoint to resume from", hint="start without --resume")
    try:
        header = parse_object(read_metadata(path)["rdm"])
        progress, updates, settings = (header[k] for k in ("progress", "num_average_updates", "settings"))
        if not (isinstance(progress, dict) and isinstance(updates, int) and isinstance(settings, dict)):
            raise ValueError("its header says something else than how far the run has come")
        if not all(isinstance(value, int | float) for value in progress.values()):
            raise ValueError("its progress is no number")
        scaler = header.get("scaler")
        if scaler is not None and not isinstance(scaler, dict):
            raise ValueError("its scaler is none of fp16's")
        return Checkpoint(
            tensors=read_tensors(path) if tensors else {},
            progress=Progress(**progress),
            num_average_updates=updates,
            settings=settings,
            scaler=scaler,
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint ({error})") from error
