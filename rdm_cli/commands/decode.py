"""rdm decode: codes to images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rdm_cli import completion
from rdm_cli import options as o
from rdm_cli.commands.batch_job import planned_job, report, shard_asked_for
from rdm_cli.commands.on_engine import outcomes_on_engine, refuse_engine
from rdm_cli.commands.opening import open_for
from rdm_cli.console import Console
from rdm_cli.data.sources.folders import CODE_SUFFIX, CODE_SUFFIXES
from rdm_cli.jobs.batch import Outcome, Task
from rdm_cli.jobs.results import Result
from rdm_cli.option_groups import spread

if TYPE_CHECKING:
    import torch

    from rdm_cli.codes.code import CodeInfo
    from rdm_cli.data.images.pixels import Remark
    from rdm_cli.pipeline.pipeline import Pipeline

ITEMS_AT_ONCE = 32
"""Codes that a worker of an engine is handed, and that are decoded again where it dies."""


@dataclass(frozen=True, kw_only=True)
class _Opening:
    """Opens the bundle of each code, once, as the options say."""

    bundle: str | None
    machine: o.DecodingMachine
    images: o.Images
    style: Path | None
    solver: str | None
    on_remark: Remark
    _opened: dict[tuple[str, str], Pipeline] = field(default_factory=dict)

    @cached_property
    def device(self) -> torch.device:
        """What computes; raises UsageError where it cannot be had, or not in the precision asked for."""
        from rdm_cli.runtime import checked_precision, set_up

        device = set_up(device=self.machine.device, threads=self.machine.threads)
        if self.machine.precision is not None:
            checked_precision(device, self.machine.precision)
        return device

    def open(self, name: str, *, arithmetic: str, fetches: bool) -> Pipeline:
        """The bundle called ``name``; raises RdmError."""
        from rdm_cli.pipeline.pipeline import open_pipeline
        from rdm_cli.runtime import precision_named

        if (name, arithmetic) not in self._opened:
            self._opened[name, arithmetic] = open_pipeline(
                name,
                device=self.device,
                precision=precision_named(arithmetic),
                batch_size=self.machine.batch_size,
                max_pixels=self.images.max_pixels,
                value_range=self.images.value_range,
                on_remark=self.on_remark,
                style=self.style,
                class_name=self.images.class_name,
                solver=self.solver,
                fetches=fetches,
            )
        return self._opened[name, arithmetic]

    def __call__(self, info: CodeInfo) -> Pipeline:
        """The pipeline of a code; raises RdmError."""
        arithmetic = self.machine.precision or info.precision
        return open_for(info, self.bundle, partial(self.open, arithmetic=arithmetic))


def _decoded(
    opening: _Opening, tasks: Iterable[Task], *, num_items: int | None, **more: Any
) -> Iterator[Outcome[Task, Result]]:
    """What becomes of each code, of ``num_items`` in all; ``more`` is that of ``decode_files``."""
    from rdm_cli.jobs.files import decode_files
    from rdm_cli.jobs.loading import batch_size_for

    batch_size = opening.machine.batch_size or batch_size_for(opening.device, num_items)
    return decode_files(opening, tasks, batch_size=batch_size, **more)


@spread
def decode(
    inputs: o.Inputs = None,
    output: o.Output = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            "-b",
            "--bundle",
            metavar="BUNDLE",
            envvar="RDM_BUNDLE",
            autocompletion=completion.bundles,
            show_default="the one each code records",
            help="Decode with this bundle: a shipped name, a folder, or hf:owner/name[@revision].",
        ),
    ] = None,
    steps: o.Steps = None,
    solver: o.SolverOption = None,
    x_t: Annotated[
        o.StartNoise, typer.Option("--x-t", help="The code's own x_T, or one drawn at random.")
    ] = "inferred",
    seed: o.Seed = 0,
    force: o.Force = False,
    style: o.Style = None,
    *,
    images: o.Images,
    work: o.ShardedWork,
    engines: o.Engines,
    machine: o.DecodingMachine,
    voice: o.Voice,
) -> None:
    """Decode codes into pictures: a.safetensors becomes a.png beside it, or under -o.

    A picture has the bundle's size, whatever the size of the image that was encoded.
    Each code is decoded with the bundle, the steps and the precision that it records, unless told otherwise.

    Examples:
        rdm decode codes/ -o pictures/
        rdm decode photo.safetensors --solver unipc --steps 12
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    refuse_engine(engines, work, results="files")
    with planned_job(
        console,
        "decode",
        inputs,
        files_from=work.files_from,
        column=work.column,
        shard=shard_asked_for(work.shard),
        manifest=work.manifest,
        output=output,
        as_tar=work.as_tar,
        suffixes=CODE_SUFFIXES,
        result_suffix=".png",
        stdin_suffix=CODE_SUFFIX,
    ) as job:
        opening = partial(_Opening, bundle=bundle, images=images, style=style, solver=solver)
        here = opening(machine=machine, on_remark=job.remark)
        _ = here.device  # a wrong option fails once, not once a code
        if bundle is not None:
            here.open(bundle, arithmetic=machine.precision or "fp32", fetches=True)  # a wrong name likewise
        do: Any = partial(_decoded, num_items=job.num_items, steps=steps, x_T=x_t, seed=seed, force=force)

        def outcomes(advance: Callable[[float], None]) -> Iterator[Outcome[Task, Result]]:
            if engines.engine == "none":
                return do(here, job.tasks, advance=advance)
            return outcomes_on_engine(engines, job, machine, do, opening, items_at_once=ITEMS_AT_ONCE)

        report(console, job, outcomes, verb="decoded", noun="code", failures=work.failures)
