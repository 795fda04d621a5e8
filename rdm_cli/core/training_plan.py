"""From the user's words to a training plan: presets, overrides, resuming, starting from a bundle."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rdm_cli.core.runtime import resolve_device, set_up
from rdm_cli.core.training_run import RunPlan, bundle_config, config_from_json, stored_settings
from rdm_cli.errors import UsageError
from rdm_cli.methods.method import Method
from rdm_cli.registry import METHODS, load, nearest
from rdm_cli.training.loop import Budget, Settings

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(
    *, device: str, threads: int | None, mixed_precision: str, tracker_folder: Path | None
) -> Accelerator:
    """accelerate's view of this process; raises UsageError for fp16 on a CPU.

    Under ``accelerate launch`` the launcher chooses each process's device; else ``device`` does.
    """
    launched = "LOCAL_RANK" in os.environ
    resolved = set_up(device=device if not launched else "auto", threads=threads)
    if mixed_precision == "fp16" and resolved.type == "cpu":
        raise UsageError("--mixed-precision fp16 needs a GPU", hint="on a CPU, use bf16 or no")
    if device != "auto" and not launched:
        resolve_device(device)
        if resolved.type == "cuda":
            torch.cuda.set_device(resolved)
    from accelerate import Accelerator

    return Accelerator(
        mixed_precision=mixed_precision,
        cpu=resolved.type == "cpu",
        log_with="tensorboard" if tracker_folder is not None else None,
        project_dir=None if tracker_folder is None else str(tracker_folder),
        step_scheduler_with_optimizer=False,
    )


def make_plan(
    method_name: str,
    *,
    folder: Path,
    bundle: Path,
    run_folder: Path,
    preset: str,
    changes: dict[str, Any],
    num_images: int | None,
    num_steps: int | None,
    minutes: float | None,
    resume: bool,
    init_from: str | None,
    num_processes: int,
    on_cpu: bool,
    **rest: Any,
) -> RunPlan:
    """Settle what a run does.

    A new run takes the preset's recipe and, with ``init_from``, that bundle's networks; a resumed one
    takes what its checkpoint recorded. ``changes`` replace single settings of either. Raises UsageError
    for what does not fit together.
    """
    method: Method = load(METHODS, "method", method_name)
    if preset not in method.presets:
        raise UsageError(f"there is no preset {preset!r}", hint=nearest(preset, method.presets))
    if resume:
        settings, budget, stored = stored_settings(run_folder)
        config = config_from_json(method, stored)
    else:
        chosen = method.presets[preset]
        config = chosen.config if init_from is None else bundle_config(method, init_from)
        recipe = dataclasses.asdict(chosen.recipe)
        budget = Budget(num_images=recipe.pop("num_images"))
        settings = Settings(**recipe, num_workers=0 if on_cpu else 4)
    settings = dataclasses.replace(settings, **changes)
    if settings.batch_size % (num_processes * settings.num_accumulations):
        raise UsageError(
            f"a batch of {settings.batch_size} cannot be shared by {num_processes} processes with "
            f"{settings.num_accumulations} passes each",
            hint="choose a multiple",
        )
    if num_steps is not None:
        budget = Budget(num_images=num_steps * settings.batch_size)
    elif num_images is not None:
        budget = Budget(num_images=num_images)
    elif minutes is not None:
        budget = Budget(num_images=budget.num_images, minutes=minutes)
    return RunPlan(
        folder=folder,
        bundle=bundle,
        run_folder=run_folder,
        method=method,
        config=config,
        settings=settings,
        budget=budget,
        resume=resume,
        init_from=init_from,
        **rest,
    )
