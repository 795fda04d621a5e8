"""From what a user asks for, :class:`TrainOptions`, to what a run does, :class:`RunPlan`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.config_json import from_json
from rdm_cli.bundles.places import INDEX
from rdm_cli.bundles.pretrained import open_first_stage, open_pretrained
from rdm_cli.data.images.pixels import MAX_PIXELS
from rdm_cli.data.images.value_range import parse_range
from rdm_cli.data.sources.folders import class_names
from rdm_cli.errors import CheckpointError, UsageError
from rdm_cli.methods.method import Method
from rdm_cli.registry import TRAINABLE, load, nearest
from rdm_cli.runtime import set_up
from rdm_cli.training.checkpoint import FILE_NAME, load_settings
from rdm_cli.training.loop import Budget, Settings
from rdm_cli.training.processes import PATIENCE
from rdm_cli.training.run.trackers import refuse_missing

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What the user asks of ``rdm train METHOD``. None: the user did not say.

    A new run then takes the value of its preset or the usual one, a resumed run that of its checkpoint.

    - ``folder`` of images, ``bundle`` to write, ``run_folder`` for everything else. ``classes``: each
      sub-folder of ``folder`` is one.
    - Where it starts: a ``preset`` of the ``method``, the weights of the bundle ``init_from``, ``pretrained``
      for the model that the method is trained around, or with ``resume`` the checkpoint in ``run_folder``.
    - When it ends: at most one of ``num_images`` seen, ``num_steps`` and ``minutes``.
    - ``batch_size`` to ``seed``: changes of the recipe, as in :class:`~rdm_cli.training.loop.Settings`.
    - ``gamma`` to ``weighting``: changes of the networks, which the method's ``adopt`` takes by these names.
    - ``fit`` to ``latents``: see :class:`RunPlan`; a resumed run keeps them.
    - ``checkpoint_minutes`` to ``threads``: of this process alone. ``sheet_minutes`` None or 0: no sheets.
    """

    method: str
    folder: Path
    bundle: Path
    run_folder: Path
    classes: bool = False

    preset: str | None = None
    init_from: str | None = None
    pretrained: str | None = None
    resume: bool = False

    num_images: int | None = None
    num_steps: int | None = None
    minutes: float | None = None

    batch_size: int | None = None
    lr: float | None = None
    warmup_steps: int | None = None
    decay_fraction: float | None = None
    weight_decay: float | None = None
    ema_decay: float | None = None
    flip: bool | None = None
    num_accumulations: int | None = None
    num_workers: int | None = None
    seed: int | None = None

    gamma: float | None = None
    kl_weight: float | None = None
    perceptual_weight: float | None = None
    predict: str | None = None
    weighting: str | None = None

    fit: str | None = None
    mixed_precision: str | None = None
    max_pixels: int | None = None
    value_range: str | None = None
    weights: str | None = None
    latents: Path | None = None

    checkpoint_minutes: float = 5.0
    sheet_minutes: float | None = 15.0
    log: str | None = None
    compile: bool = False
    device: str = "auto"
    threads: int | None = None

    def given(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of ``names`` that are options and that the user gave, with their values."""
        values = {name: getattr(self, name, None) for name in names}
        return {name: value for name, value in values.items() if value is not None}


_OF_THE_NETWORKS = ("gamma", "kl_weight", "perceptual_weight", "predict", "weighting")
_BUDGETS = ("num_images", "num_steps", "minutes")
_STARTING_POINTS = ("preset", "init_from", "pretrained")
_RUN_OPTIONS = ("fit", "mixed_precision", "max_pixels", "value_range", "weights", "latents")


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a run does.

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
    log: str | None = None
    compile: bool = False
    latents: Path | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that the networks are told, which are sub-folders of images; () for most."""
        known: tuple[str, ...] = getattr(self.config, "class_names", ())
        return known

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
    if not launched and resolved.type == "cuda" and resolved.index is not None:
        torch.cuda.set_device(resolved)
    from accelerate import PartialState

    return PartialState(cpu=resolved.type == "cpu", timeout=PATIENCE)


_DIVIDES = (
    "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG",
)  # fmt: skip
"""By which ``accelerate launch`` tells the processes that they are to hold parts of a network."""


def make_accelerator(
    *, device: str, threads: int | None, mixed_precision: str, log: str | None, run_folder: Path | None = None
) -> Accelerator:
    """accelerate's view of this process, which joins the others first; see :func:`join_processes`.

    ``log`` is the tracker that gets the log too; tensorboard's files go into ``run_folder``. Raises
    UsageError for fp16 on a CPU, for a tracker that is not installed, and where accelerate is to divide the
    network among processes.
    """
    for name in _DIVIDES:
        if os.environ.get(name, "").lower() in ("1", "true", "yes", "on"):
            raise UsageError(
                f"{name}: each process holds the whole network", hint="leave it out: DDP is used"
            )
    on_cpu = join_processes(device=device, threads=threads).device.type == "cpu"
    if mixed_precision == "fp16" and on_cpu:
        raise UsageError("--mixed-precision fp16 needs a GPU", hint="on a CPU, use bf16 or no")
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    if log is not None:
        refuse_missing(log)
    return Accelerator(
        mixed_precision=mixed_precision,
        cpu=on_cpu,
        log_with=log,
        project_dir=None if run_folder is None else str(run_folder),
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True)  # or gradients are held twice
        ],
    )


def make_plan(options: TrainOptions, *, num_processes: int, on_cpu: bool, command: str) -> RunPlan:
    """What a run does that is begun by ``command`` with ``options``, on ``num_processes``.

    A new run takes the recipe of its preset and, with ``init_from``, that bundle's networks. A resumed one
    takes what its checkpoint recorded: where it started may be named again but not changed. Raises
    UsageError for what does not fit together, CheckpointError where there is nothing to resume.
    """
    run_folder, preset, resume = options.run_folder, options.preset, options.resume
    if len(options.given(_BUDGETS)) > 1:
        raise UsageError("--images, --steps and --minutes exclude each other")
    if options.value_range is not None:
        parse_range(options.value_range)  # a wrong one is told before any work
    stored = load_settings(run_folder) if resume else {}
    method: Method = load(TRAINABLE, "method", options.method)
    if preset is not None:
        refuse_unknown_preset(method, preset)
    refuse_places(options)
    networks = options.given(_OF_THE_NETWORKS)
    if options.classes:
        networks["classes"] = class_names(options.folder)
    if resume:
        settings, budget, config = _recorded(stored, run_folder, method)
        _refuse_another_start(options, stored, method)
        is_refused = bool(networks) and not _changes_nothing(method, config, options.pretrained, networks)
    else:
        preset = preset or method.usual_preset
        config = method.presets[preset].config
        if options.init_from is not None:
            config = _bundle_config(method, config, options.init_from)
        elif method.adopt is not None:
            config, networks = _adopted(method, config, options.pretrained, networks), {}
        recipe = dataclasses.asdict(method.presets[preset].recipe)
        budget = Budget(num_images=recipe.pop("num_images"))
        settings = Settings(**recipe, num_workers=0 if on_cpu else 4)
        is_refused = bool(networks)
    changes = options.given(field.name for field in dataclasses.fields(Settings))
    settings = dataclasses.replace(settings, **changes)
    if not -(2**63) <= settings.seed < 2**64:
        raise UsageError(f"--seed {settings.seed}: training takes seeds of 64 bits")
    if settings.batch_size % (num_processes * settings.num_accumulations):
        raise UsageError(
            f"a batch of {settings.batch_size} cannot be shared by {num_processes} processes with "
            f"{settings.num_accumulations} passes each",
            hint="choose a multiple",
        )
    if is_refused:
        raise UsageError(f"{_option(next(iter(networks)))}: what is resumed or started from keeps its own")
    if options.num_steps is not None:
        budget = Budget(num_images=options.num_steps * settings.batch_size)
    elif options.num_images is not None:
        budget = Budget(num_images=options.num_images)
    elif options.minutes is not None:
        budget = Budget(num_images=budget.num_images, minutes=options.minutes)
    run_options = {name: stored[name] for name in _RUN_OPTIONS if stored.get(name)}
    run_options |= options.given(_RUN_OPTIONS)
    if "latents" in run_options:
        run_options["latents"] = Path(run_options["latents"])
        if not getattr(config, "takes_latents", False):
            raise UsageError("--cache-latents: this model is trained on the images themselves")
    earlier = [str(line) for line in stored.get("commands", ())]
    return RunPlan(
        folder=options.folder,
        bundle=options.bundle,
        run_folder=run_folder,
        method=method,
        config=config,
        settings=settings,
        budget=budget,
        preset=cast(str, stored.get("preset") or preset),
        init_from=stored.get("init_from") or options.init_from,
        pretrained=stored.get("pretrained") or options.pretrained,
        commands=tuple(earlier if command in earlier else [*earlier, command]),
        resume=resume,
        checkpoint_minutes=options.checkpoint_minutes,
        sheet_minutes=options.sheet_minutes,
        log=options.log,
        compile=options.compile,
        **run_options,
    )


def in_effect(options: TrainOptions, plan: RunPlan) -> TrainOptions:
    """``options``, and what ``plan`` made of those that were left open: they ask for the same run."""
    known = {field.name for field in dataclasses.fields(TrainOptions)}
    settings = {name: value for name, value in vars(plan.settings).items() if name in known}
    networks = {} if plan.init_from is not None else plan.method.adopted(plan.config)
    by_time = plan.budget.minutes is not None
    return dataclasses.replace(
        options,
        **{name: getattr(plan, name) for name in (*_STARTING_POINTS, *_RUN_OPTIONS)},
        **settings,
        **networks,
        num_images=None if by_time else plan.budget.num_images,
        num_steps=None,
        minutes=plan.budget.minutes,
    )


def refuse_unknown_preset(method: Method, name: str) -> None:
    """Raise UsageError, with the names that there are, where ``name`` is no preset of the method."""
    if name not in method.presets:
        raise UsageError(f"there is no preset {name!r}", hint=nearest(name, method.presets))


def refuse_places(options: TrainOptions) -> None:
    """Refuse before hours of training what would fail, or destroy something, after them: UsageError.

    A bundle that is there is replaced where a run is resumed, for it may be that run's own; one that training
    starts from, or around, never is.
    """
    bundle, run_folder = options.bundle, options.run_folder
    if not options.resume and (run_folder / FILE_NAME).exists():
        raise UsageError(
            f"{run_folder}: a run lies here already",
            hint="continue it with --resume, or name another --run",
        )
    if bundle.exists() and not _is_empty_folder(bundle):
        if not (bundle / INDEX).is_file():
            raise UsageError(f"{bundle}: something lies here that is no bundle", hint="name another --output")
        for source in (options.init_from, options.pretrained):
            if source is not None and _is_the_same(Path(source), bundle):
                raise UsageError(f"{bundle}: training starts from this bundle", hint="name another --output")
        if not options.resume:
            raise UsageError(
                f"{bundle}: a bundle lies here already", hint="name another --output, or remove it"
            )
    if run_folder.resolve().is_relative_to(options.folder.resolve()):
        raise UsageError(
            f"{run_folder}: the run's sheets would lie among the images of {options.folder}",
            hint="name another --run",
        )
    for place in (bundle.absolute().parent, run_folder.absolute()):
        nearest_there = next(p for p in (place, *place.parents) if os.path.lexists(p))
        if not nearest_there.is_dir() or not os.access(nearest_there, os.W_OK | os.X_OK):
            raise UsageError(f"{nearest_there}: nothing can be written here")


def _is_the_same(source: Path, bundle: Path) -> bool:
    """Whether ``source`` is ``bundle`` or a part of it, as its first stage is."""
    return source.exists() and source.resolve().is_relative_to(bundle.resolve())


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _refuse_another_start(options: TrainOptions, stored: Mapping[str, Any], method: Method) -> None:
    """Raise UsageError where ``options`` name another start than the run has ``stored``."""
    for name, value in options.given(_STARTING_POINTS).items():
        if name in stored and stored[name] != value:
            option = _option(name)
            if name == "pretrained" and method.pretrained is not None:
                option = method.pretrained.option
            raise UsageError(
                f"{option} {value}: the run in {options.run_folder} began with {stored[name] or 'nothing'}, "
                "and keeps it",
                hint="leave it out, or begin another --run",
            )


def _recorded(stored: Mapping[str, Any], run_folder: Path, method: Method) -> tuple[Settings, Budget, Any]:
    """Settings, budget and networks that the checkpoint in ``run_folder`` has ``stored``.

    Raises CheckpointError where it does not say them, or is of another method.
    """
    try:
        if stored["method"] != method.name:
            raise CheckpointError(f"{run_folder}: a run of {stored['method']}, not of {method.name}")
        return (
            from_json(Settings, stored["settings"]),
            from_json(Budget, stored["budget"]),
            from_json(method.config, stored["config"]),
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
