"""A batch job on an engine that others made, where --engine names one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rdm_cli import options as o
from rdm_cli.errors import UsageError
from rdm_cli.jobs.batch import Outcome, Task
from rdm_cli.jobs.results import Result

if TYPE_CHECKING:
    from rdm_cli.engines.ray import Work
    from rdm_cli.jobs.job import Job

M = TypeVar("M", o.Machine, o.DecodingMachine)


def refuse_engine(engines: o.Engines, work: o.ShardedWork, results: str) -> None:
    """Raise UsageError for options that do not go together; ``results`` are what an engine writes."""
    if engines.engine == "none" and (engines.address is not None or engines.per_gpu != 1):
        raise UsageError("--address and --per-gpu are those of an engine", hint="add --engine ray")
    if engines.engine != "none" and work.as_tar:
        raise UsageError(f"--tar: with --engine results are {results}", hint="leave out one of them")


def outcomes_on_engine(
    engines: o.Engines,
    job: Job,
    machine: M,
    work: Work,
    opening: Callable[..., Any],
    *,
    digest: str | None = None,
    items_at_once: int,
) -> Iterator[Outcome[Task, Result]]:
    """Do ``work`` with each input of ``job`` on the engine.

    Each worker does it with what ``opening(machine=..., on_remark=...)`` opens there. See
    :class:`~rdm_cli.engines.ray.Workers` for the rest, and for what is raised; UsageError, too, where one
    file is asked for.
    """
    if job.to_stdout or job.names:
        raise UsageError("- is one file, for which --engine does nothing", hint="leave out --engine")
    from rdm_cli.engines.ray import Workers, outcomes_on_ray

    on_gpus = machine.device.startswith("cuda")
    # a worker sees the one GPU that it has, whatever its number
    own = replace(machine, threads=machine.threads or 1, device="cuda" if on_gpus else machine.device)
    workers = Workers(
        opened=partial(opening, machine=own),
        digest=digest,
        work=work,
        on_gpus=None if machine.device == "auto" else on_gpus,
        per_gpu=engines.per_gpu,
        threads=own.threads or 1,
        items_at_once=items_at_once,
    )
    return outcomes_on_ray(job, workers, engines.address)
