"""rdm train all: from a folder of images, and their labels, to a bundle that samples and edits.

What five commands do, as steps of one run. Its folder says which are done, so that a run that was stopped
goes on at the step that it was in.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from rdm_cli import completion
from rdm_cli import options as o
from rdm_cli.commands.batch_job import planned_job, report
from rdm_cli.commands.follow_training import (
    follow_attributes,
    follow_prior,
    resuming,
    this_command,
    train_or_forecast,
)
from rdm_cli.console import Console
from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.data.images.value_range import parse_range
from rdm_cli.data.io.atomic import write_whole
from rdm_cli.data.io.json_text import read_object
from rdm_cli.data.sources.folders import CODE_SUFFIX
from rdm_cli.errors import CheckpointError, PartialError, UsageError
from rdm_cli.option_groups import spread
from rdm_cli.registry import FIRST_STAGE, TRAINABLE, load

if TYPE_CHECKING:
    from rdm_cli.bundles.bundle import Bundle
    from rdm_cli.jobs.batch import Outcome, Task
    from rdm_cli.jobs.results import Result
    from rdm_cli.methods.method import Method
    from rdm_cli.pipeline.pipeline import Pipeline
    from rdm_cli.training.run.plan import TrainOptions

WithCodes = Literal["diffae", "pdae", "lrdm"]
"""Methods whose bundles hold codes."""
AROUND = {"pdae": ("dpm", ""), "lrdm": (FIRST_STAGE, "kl-")}
"""What a method is trained around, and how the names of its presets begin."""
TRAININGS = ("around", "model")
"""Steps that are a training of their own."""
STATE = "all.json"
BEGUN_WITH = ("folder", "bundle", "method", "preset", "pretrained")
"""Options that a run keeps; each of the others it keeps once a step that it settles is done."""
NAMED = BEGUN_WITH[:4]
"""Those that have a value in every run."""
BUDGETS = ("num_images", "num_steps", "minutes")
SETTLES = {"labels": ("prior", "attributes"), "prior_samples": ("prior",)}
"""Steps that an option settles; the others settle the model."""


@spread
def train_all(
    folder: Annotated[Path, typer.Argument(help="Folder of images, searched recursively.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="BUNDLE", help="The bundle to write.")],
    labels: Annotated[
        Path | None,
        o.left_open(
            "--labels",
            "FILE",
            "What edits and samples may be about: metadata.csv, metadata.jsonl, or one of CelebA's lists.",
            "none, and no attributes",
        ),
    ] = None,
    method: Annotated[WithCodes | None, o.left_open("--method", None, "What to train.", "diffae")] = None,
    preset: Annotated[
        str | None,
        o.left_open(
            "--preset",
            "NAME",
            "Networks and recipe.",
            "the largest small one that the images fill",
            autocompletion=completion.presets,
        ),
    ] = None,
    num_images: Annotated[
        int | None, o.left_open("--images", "N", "Stop training after N images seen.", min=1)
    ] = None,
    num_steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", min=1, help="Stop training after N optimiser steps.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", metavar="MINUTES", min=0.01, help="Stop training after so many minutes."),
    ] = None,
    pretrained: Annotated[
        str | None,
        o.left_open(
            "--pretrained",
            "BUNDLE",
            "What a PDAE (a DPM) or an LRDM (a first stage) is trained around.",
            "trained first, for as long as the model",
        ),
    ] = None,
    prior_samples: Annotated[
        int | None, o.left_open("--prior-samples", "N", "Codes that the prior sees.", "2,000,000", min=1)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on at the step that was interrupted.")] = False,
    *,
    optimiser: o.Optimiser,
    run: o.Run,
    images: o.TrainingImages,
    machine: o.TrainingMachine,
    voice: o.Voice,
) -> None:
    """Make a bundle of a folder of images: model, codes, prior, attributes and model card.

    The steps are those of rdm train METHOD, rdm encode, rdm train prior and rdm train attributes, and figures
    in the card. What is done is kept in the run's folder: a run that was stopped goes on with --resume, with
    the options that it began with. docs/training.md says how long it takes.

    Examples:
        rdm train all photos/ --labels photos/metadata.csv -o my-bundle
        rdm train all photos/ -o my-bundle --minutes 240 --mixed-precision bf16
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError(
            "rdm train all is one process", hint="for several, run rdm train METHOD and the rest"
        )
    settled = {
        "folder": str(folder.resolve()),
        "bundle": str(output.resolve()),
        "labels": None if labels is None else str(labels.resolve()),
        "method": method,
        "preset": preset,
        "pretrained": pretrained,
        "num_images": num_images,
        "num_steps": num_steps,
        "minutes": minutes,
        "prior_samples": prior_samples,
        **vars(optimiser),
        **vars(images),
        "weights": run.weights,
        "seed": run.seed,
    }
    place = run.run_folder or Path("runs") / output.name
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    (_resumed if resume else _begun)(place, settled, console, run, machine).go()


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run in the folder ``place``: the ``options`` that settle what becomes of it, and the steps ``done``.

    ``run`` and ``machine`` are of this process alone.
    """

    place: Path
    options: dict[str, Any]
    done: list[str]
    console: Console
    run: o.Run
    machine: o.TrainingMachine

    def save(self) -> None:
        """Keep what a resumed run needs to know."""
        self.place.mkdir(parents=True, exist_ok=True)
        content = {"options": self.options, "done": self.done}
        write_whole(self.place / STATE, f"{json.dumps(content, indent=2)}\n".encode())

    def go(self) -> None:
        """Do the steps that are not done, and say what can be done with the bundle."""
        steps = self.steps()
        if self.options["labels"] is None:
            self.console.note(
                "no --labels: the bundle gets no attributes, and its samples cannot be asked for any"
            )
        for i, (name, (what, work)) in enumerate(steps.items(), start=1):
            told = f"step {i} of {len(steps)}: {what}"
            if name in self.done:
                self.console.note(f"{told}: done before")
                continue
            self.console.note(told)
            try:
                work()
            except KeyboardInterrupt:
                if name not in TRAININGS:  # which have said so
                    self.console.problem(f"rdm: stopped in {told}; go on with: {resuming(this_command())}")
                raise
            self.done.append(name)
            self.save()
        bundle, commands = _shown(self.options["bundle"]), self._to_try()
        for line in ("try next:", *(f"    {command}" for command in commands)):
            self.console.note(line)
        self.console.emit(bundle, output=bundle, run=str(self.place), next=commands)

    def steps(self) -> dict[str, tuple[str, Callable[[], None]]]:
        """What is done, in order: by name, in words, and how."""
        method, labels = self.options["method"], self.options["labels"]
        steps: dict[str, tuple[str, Callable[[], None]]] = {}
        if self._trains_around():
            steps["around"] = (f"train the {AROUND[method][0]} that the model stands on", self._train_around)
        steps["model"] = (f"train the model, {method} {self.options['preset']}", self._train_model)
        steps["codes"] = ("encode the images", self._encode)
        if _method(method).prior != "gaussian":
            steps["prior"] = ("train the prior, which draws samples", self._train_prior)
        if labels is not None:
            steps["attributes"] = ("fit the attributes, which edits follow", self._fit_attributes)
        steps["card"] = ("measure figures for the model card", self._write_card)
        return steps

    def _trains_around(self) -> bool:
        return self.options["method"] in AROUND and self.options["pretrained"] is None

    def training(self, step: str) -> TrainOptions:
        """The options of the training that is the ``step`` "model" or "around"."""
        from rdm_cli.training.checkpoint import FILE_NAME
        from rdm_cli.training.run.plan import TrainOptions

        around = self.place / "around" / "bundle"
        options = {name: value for name, value in self.options.items() if name not in SETTLES}
        options |= {"folder": Path(options["folder"]), "bundle": Path(options["bundle"])}
        if self._trains_around():
            options["pretrained"] = str(around)
        if step == "around":
            name, begins = AROUND[options["method"]]
            same = f"{begins}{options['preset']}"
            preset = same if same in _method(name).presets else None
            options |= {
                "method": name,
                "preset": preset,
                "bundle": around,
                "pretrained": None,
                "weights": None,
            }
        place = self.place / step
        own = vars(self.run) | vars(self.machine) | options | {"run_folder": place}
        return TrainOptions(**own, resume=(place / FILE_NAME).exists())

    def _train_around(self) -> None:
        train_or_forecast(self.console, self.training("around"))

    def _train_model(self) -> None:
        train_or_forecast(self.console, self.training("model"))

    def _encode(self) -> None:
        with planned_job(
            self.console,
            "encode",
            [self.options["folder"]],
            files_from=None,
            output=str(self.place / "codes"),
            suffixes=SUFFIXES,
            result_suffix=CODE_SUFFIX,
        ) as job:
            from rdm_cli.jobs.encode import Encoding, encode_files
            from rdm_cli.pipeline.effort import Effort

            pipeline = self._pipeline(on_remark=job.remark)
            encoding, fit = Encoding(effort=Effort(with_x_T=False)), cast(o.Fit, self.options["fit"])

            def outcomes(advance: Callable[[float], None]) -> Iterator[Outcome[Task, Result]]:
                return encode_files(
                    pipeline, job.tasks, encoding, fit=fit, num_items=job.num_items, advance=advance
                )

            try:
                report(
                    self.console,
                    job,
                    outcomes,
                    verb="encoded",
                    noun="image",
                    failures=None,
                    describe=lambda data: None,
                )
            except typer.Exit as end:  # images that training left out, too, are named by now
                if end.exit_code != PartialError.exit_code:
                    raise

    def _train_prior(self) -> None:
        from rdm_cli.training.run.on_codes import prior_network, prior_settings

        opened, labels = self._opened(), self._labels()
        network = prior_network(opened, None, None, with_labels=labels is not None)
        follow_prior(
            self.console,
            opened,
            self.place / "codes",
            settings=prior_settings(network, samples=self.options["prior_samples"], batch_size=None, lr=None),
            network=network,
            labels=labels,
            seed=self.options["seed"],
            weights=self.options["weights"],
        )

    def _fit_attributes(self) -> None:
        labels = self._labels()
        assert labels is not None
        codes = self.place / "codes"
        follow_attributes(self.console, self._opened(), codes, labels, seed=self.options["seed"])

    def _write_card(self) -> None:
        from rdm_cli.bundles.writing import write_figures
        from rdm_cli.evaluation.card import card_figures, card_work

        pipeline, images = self._pipeline(), self._encoded_images()
        with self.console.progress("measuring", card_work(pipeline, images)) as advance:
            figures = card_figures(
                pipeline,
                images,
                self.options["fit"],
                seed=self.options["seed"],
                advance=advance,
            )
        write_figures(pipeline.bundle, figures)

    def _opened(self) -> Bundle:
        from rdm_cli.bundles.bundle import open_bundle
        from rdm_cli.runtime import set_up

        device = set_up(device=self.machine.device, threads=self.machine.threads)
        return open_bundle(self.options["bundle"], device)

    def _pipeline(self, **more: Any) -> Pipeline:
        from rdm_cli.pipeline.pipeline import open_pipeline
        from rdm_cli.runtime import set_up

        value_range = self.options["value_range"]
        return open_pipeline(
            self.options["bundle"],
            device=set_up(device=self.machine.device, threads=self.machine.threads),
            max_pixels=self.options["max_pixels"] or o.MAX_PIXELS_DEFAULT,
            value_range=None if value_range is None else parse_range(value_range),
            **more,
        )

    def _labels(self) -> Path | None:
        labels = self.options["labels"]
        return None if labels is None else Path(labels)

    def _encoded_images(self) -> list[Path]:
        """The images that could be read: those that have a code."""
        from rdm_cli.data.sources.folders import find_inputs

        codes = self.place / "codes"
        items = find_inputs([Path(self.options["folder"])])
        return [i.source for i in items if (codes / i.relative.with_suffix(CODE_SUFFIX)).is_file()]

    def _to_try(self) -> list[str]:
        """Three commands for this bundle, which work as they stand."""
        bundle, (first, *others) = _shown(self.options["bundle"]), map(_shown, self._encoded_images())
        name = Path(bundle).name
        looks = ["rdm", "reconstruct", first, "-b", bundle, "-o", f"{name}-pictures"]
        if self.options["labels"] is not None:
            scores = self._opened().directions.scores
            best = max(scores, key=lambda attribute: scores[attribute]["auroc"])
            looks = ["rdm", "manipulate", first, "--attr", best, "--scale", "0.3", *looks[3:]]
        way = ["rdm", "interpolate", first, (others or [first])[0], "-b", bundle, "-o", f"{name}-way"]
        drawn = ["rdm", "sample", "--n", "16", "-b", bundle, "-o", f"{name}-samples"]
        return [shlex.join(command) for command in (looks, drawn, way)]


def _shown(path: str | Path) -> str:
    """A path as short as it can be said from here."""
    with suppress(ValueError):
        return str(Path(path).relative_to(Path.cwd()))
    return str(path)


def _method(name: str) -> Method:
    found: Method = load(TRAINABLE, "method", name)
    return found


def _begun(place: Path, options: dict[str, Any], *more: Any) -> _Run:
    """A new run, of which all is checked that can be before hours of training."""
    from rdm_cli.training.run.on_codes import check_labels
    from rdm_cli.training.run.plan import make_plan, refuse_places, refuse_unknown_preset
    from rdm_cli.training.run.start import small_preset

    if (place / STATE).exists():
        raise UsageError(
            f"{place}: a run lies here already", hint="continue it with --resume, or name another --run"
        )
    usual = {"method": "diffae", "fit": "crop", "weights": "fp32", "seed": 0}
    options |= {name: value for name, value in usual.items() if options[name] is None}
    method, folder = _method(options["method"]), Path(options["folder"])
    options["preset"] = options["preset"] or small_preset(method, folder)
    refuse_unknown_preset(method, options["preset"])
    if options["labels"] is not None:
        check_labels(folder, Path(options["labels"]), seed=options["seed"])
    new = _run(place, options, [], *more)
    refuse_places(new.training("model"))
    first = next(iter(new.steps()))
    make_plan(new.training(first), num_processes=1, on_cpu=True, command="")
    new.save()
    return new


def _resumed(place: Path, options: dict[str, Any], *more: Any) -> _Run:
    """The run in ``place``, with what was named anew; UsageError for what it has settled otherwise."""
    file = place / STATE
    if not file.exists():
        raise CheckpointError(f"{place}: no run to resume", hint="start without --resume")
    try:
        content = read_object(file)
        known, done = dict.fromkeys(options) | content["options"], list(content["done"])
        if not all(isinstance(known[name], str) for name in NAMED):
            raise ValueError(f"one of {', '.join(NAMED)} is missing")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: does not say what the run is ({error})") from error
    budget = [name for name in BUDGETS if options[name] is not None]
    for name, value in options.items():
        if value is None or value == known.get(name):
            continue
        if name in BEGUN_WITH or set(done) & set(SETTLES.get(name, ("model",))):
            raise UsageError(
                f"{place}: the run has {name.replace('_', ' ')} {known.get(name)}, and keeps it ({value})",
                hint="leave it out, or begin another --run",
            )
        known[name] = value
        if name in budget:  # of which there is one
            known |= {other: None for other in BUDGETS if other not in budget}
    return _run(place, known, done, *more)


def _run(
    place: Path, options: dict[str, Any], done: list[str], console: Console, run: o.Run, machine: Any
) -> _Run:
    return _Run(place=place, options=options, done=done, console=console, run=run, machine=machine)
