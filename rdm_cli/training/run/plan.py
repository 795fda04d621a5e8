"""From the user's words to a training plan: presets, overrides, resuming, starting from a bundle."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.config_json import from_json
from rdm_cli.bundles.pretrained import open_first_stage, open_pretrained
from rdm_cli.data.images.pixels import MAX_PIXELS
from rdm_cli.errors import CheckpointError, UsageError
from rdm_cli.methods.method import Method
from rdm_cli.registry import TRAINABLE, load, nearest
from rdm_cli.runtime import set_up
from rdm_cli.training.checkpoint import load_settings
from rdm_cli.training.loop import Budget, Settings
from rdm_cli.training.processes import PATIENCE
from rdm_cli.training.run.places import refuse_places

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What the user asked for.

    ``folder`` of images, ``bundle`` to write, ``run_folder`` for everything else. ``init_from`` is a
    bundle to start from, ``pretrained`` one whose model the method is trained around. ``commands`` are those
    by which the run was begun and gone on with. Minutes say how often a checkpoint and a sheet are written;
    None: never. Images of more than ``max_pixels`` are left out; ``value_range`` is
    --range as it was given. ``latents`` is a folder that keeps a first
    stage's latents; None: they are computed at every step. ``weights`` are stored in that arithmetic.
    """

    folder: Path
    bundle: Path
    run_folder: Path
    method: Method
    config: Any
    settings: Settings
    budget: Budget
    preset: str
    commands: tuple[str, ...]
    resume: bool = False
    init_from: str | None = None
    pretrained: str | None = None
    fit: str = "crop"
    mixed_precision: str = "no"
    max_pixels: int = MAX_PIXELS
    value_range: str | None = None
    weights: str = "fp32"
    checkpoint_minutes: float = 5.0
    sheet_minutes: float | None = 15.0
    tensorboard: bool = False
    latents: Path | None = None

    @property
    def command(self) -> str:
        """The command that this process was given."""
        return self.commands[-1]


def join_processes(*, device: str, threads: int | None) -> PartialState:
    """Set this process up, and meet the others of the run where a launcher has started several.

    Each of several has a device of its own, unless ``device`` is cpu; one alone uses ``device``. Raises
    UsageError for a device that is not there.
    """
    launched = "LOCAL_RANK" in os.environ
    resolved = set_up(device="auto" if launched and device != "cpu" else device, threads=threads)
    if device != "auto" and not launched and resolved.type == "cuda":
        torch.cuda.set_device(resolved)
    from accelerate import PartialState

    return PartialState(cpu=resolved.type == "cpu", timeout=PATIENCE)


def make_accelerator(
    *, device: str, threads: int | None, mixed_precision: str, tracker_folder: Path | None
) -> Accelerator:
    """accelerate's view of this process, which joins the others first; see :func:`join_processes`.

    Raises UsageError for fp16 on a CPU.
    """
    on_cpu = join_processes(device=device, threads=threads).device.type == "cpu"
    if mixed_precision == "fp16" and on_cpu:
        raise UsageError("--mixed-precision fp16 needs a GPU", hint="on a CPU, use bf16 or no")
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, is_tensorboard_available

    if tracker_folder is not None and not is_tensorboard_available():
        raise UsageError("--log tensorboard needs tensorboard", hint="pip install tensorboard")

    return Accelerator(
        mixed_precision=mixed_precision,
        cpu=on_cpu,
        log_with="tensorboard" if tracker_folder is not None else None,
        project_dir=None if tracker_folder is None else str(tracker_folder),
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True)  # or gradients are held twice
        ],
    )


_WORDS = {
    "fit": "crop",
    "mixed_precision": "no",
    "max_pixels": MAX_PIXELS,
    "value_range": None,
    "weights": "fp32",
    "latents": None,
}


def settle_words(*, resume_from: Path | None, **given: str | int | None) -> dict[str, Any]:
    """What ``_WORDS`` names: as given, or as the run in ``resume_from`` has it.

    Raises CheckpointError where there is no such run.
    """
    stored = {} if resume_from is None else load_settings(resume_from)
    return {name: given.get(name) or stored.get(name, default) for name, default in _WORDS.items()}


def make_plan(
    method_name: str,
    *,
    folder: Path,
    bundle: Path,
    run_folder: Path,
    preset: str | None,
    changes: dict[str, Any],
    num_images: int | None,
    num_steps: int | None,
    minutes: float | None,
    resume: bool,
    init_from: str | None,
    pretrained: str | None = None,
    adopting: Mapping[str, Any] | None = None,
    num_processes: int,
    on_cpu: bool,
    command: str,
    latents: str | None = None,
    **rest: Any,
) -> RunPlan:
    """Settle what a run does.

    A new run takes the recipe of its ``preset`` (None: the method's first choice) and, with ``init_from``,
    that bundle's networks; a resumed one takes what its checkpoint recorded, and what it began with may be
    said again but not changed. ``changes`` replace single settings of either. Raises UsageError for what does
    not fit together.
    """
    method: Method = load(TRAINABLE, "method", method_name)
    if preset is not None and preset not in method.presets:
        raise UsageError(f"there is no preset {preset!r}", hint=nearest(preset, method.presets))
    refuse_places(folder, bundle, run_folder, resume=resume, sources=(init_from, pretrained))
    began: dict[str, Any] = {"preset": preset, "init_from": init_from, "pretrained": pretrained}
    commands: tuple[str, ...] = (command,)
    if resume:
        settings, budget, config = _recorded(run_folder, method)
        began, commands = _as_begun(run_folder, began, command)
    else:
        began["preset"] = preset = preset or method.usual_preset
        chosen = method.presets[preset]
        config = chosen.config if init_from is None else _bundle_config(method, chosen.config, init_from)
        if method.adopt is not None and init_from is None:
            config = _adopted(method, config, pretrained, adopting or {})
            adopting = None
        recipe = dataclasses.asdict(chosen.recipe)
        budget = Budget(num_images=recipe.pop("num_images"))
        settings = Settings(**recipe, num_workers=0 if on_cpu else 4)
    settings = dataclasses.replace(settings, **changes)
    if not -(2**63) <= settings.seed < 2**64:
        raise UsageError(f"--seed {settings.seed}: training takes seeds of 64 bits")
    if settings.batch_size % (num_processes * settings.num_accumulations):
        raise UsageError(
            f"a batch of {settings.batch_size} cannot be shared by {num_processes} processes with "
            f"{settings.num_accumulations} passes each",
            hint="choose a multiple",
        )
    if adopting and not (resume and _changes_nothing(method, config, pretrained, adopting)):
        raise UsageError(f"{_option(next(iter(adopting)))}: what is resumed or started from keeps its own")
    if latents is not None and not getattr(config, "takes_latents", False):
        raise UsageError("--cache-latents: this model is trained on the images themselves")
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
        commands=commands,
        latents=None if latents is None else Path(latents),
        **began,
        **rest,
    )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _as_begun(
    run_folder: Path, given: Mapping[str, Any], command: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the run in ``run_folder`` began with, and its commands, of which ``command`` is the latest.

    Raises UsageError where something else is ``given``.
    """
    stored = load_settings(run_folder)
    for name, value in given.items():
        if value is not None and name in stored and stored[name] != value:
            word = stored[name] or "nothing"
            raise UsageError(
                f"{_option(name)} {value}: the run in {run_folder} began with {word}, and keeps it",
                hint="leave it out, or begin another --run",
            )
    earlier = [str(line) for line in stored.get("commands", ())]
    commands = earlier if command in earlier else [*earlier, command]
    return {name: stored.get(name) or given[name] for name in given}, tuple(commands)


def _recorded(run_folder: Path, method: Method) -> tuple[Settings, Budget, Any]:
    """What the run's checkpoint says of settings, budget and networks; CheckpointError if it does not."""
    stored = load_settings(run_folder)
    config = type(next(iter(method.presets.values())).config)
    try:
        if stored["method"] != method.name:
            raise CheckpointError(f"{run_folder}: a run of {stored['method']}, not of {method.name}")
        return (
            from_json(Settings, stored["settings"]),
            from_json(Budget, stored["budget"]),
            from_json(config, stored["config"]),
        )
    except KeyError as error:
        raise CheckpointError(f"{run_folder}: the checkpoint does not say its {error.args[0]}") from error
    except ValueError as error:
        raise CheckpointError(f"{run_folder}: a run that this rdm cannot go on with ({error})") from error


def _bundle_config(method: Method, config: Any, name: str) -> Any:
    """The config of a bundle that training is to start from; UsageError for another method's.

    A first stage has no more than its network's, which takes the place of that in the preset's ``config``.
    """
    if not method.samples:
        return dataclasses.replace(config, first_stage=open_first_stage(name).config)
    bundle = open_bundle(name)
    if bundle.method.name != method.name:
        raise UsageError(f"--init-from {name}: a {bundle.method.name} bundle, not one of {method.name}")
    return cast(Any, bundle.model).config


def _adopted(method: Method, config: Any, pretrained: str | None, options: Mapping[str, Any]) -> Any:
    """``config`` changed by ``options``, and to fit what ``pretrained`` names, where the method needs it.

    Raises UsageError where it does not fit.
    """
    needed = method.pretrained
    assert method.adopt is not None
    if needed is None:
        return method.adopt(config, None, **options)
    if pretrained is None:
        raise UsageError(f"rdm train {method.name} {needed.purpose}", hint=needed.hint)
    try:
        return method.adopt(config, open_pretrained(needed, pretrained), **options)
    except ValueError as error:
        raise UsageError(f"{needed.option} {pretrained}: {error}") from error


def _changes_nothing(method: Method, config: Any, pretrained: str | None, options: Mapping[str, Any]) -> bool:
    """Whether a resumed run's ``config`` is what ``options`` ask for, as where a command is given again."""
    try:
        return bool(_adopted(method, config, pretrained, options) == config)
    except UsageError:
        return False
